"""What a power cut may leave of a folder: a disk that writes late, seen from the calls of the process that uses it.

Before every call `Disk` looks at the whole folder. That is what the system shows, and not what is on the disk: there is
what was there at the last fsync. A file's bytes are safe when the file was synced, a name is safe when its folder was.
All else may be there or not, in any mixture, of which `remains` draws one.
"""

import os
import pickle
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

Names = dict[str, int]  # of a folder: the number of each file or folder


@dataclass
class State:
    """The folder at one moment; files and folders are numbered, number 0 is the folder itself.

    Attributes:
        what: the call that comes next.
        data: bytes of each file that ever was.
        safe_data: the same when it was last synced.
        names: of each folder.
        safe_names: the same when it was last synced.
        later_names: every list of names of a folder since then, in order.
    """

    what: str = "start"
    data: dict[int, bytes] = field(default_factory=dict)
    safe_data: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, Names] = field(default_factory=dict)
    safe_names: dict[int, Names] = field(default_factory=dict)
    later_names: dict[int, list[Names]] = field(default_factory=dict)


@dataclass
class Disk:
    """Every state of a folder at which the power may be cut; all that is there at first is safe."""

    root: str
    path: str
    now: State = field(default_factory=State)
    states: list[State] = field(default_factory=list)
    ids: dict[int, int] = field(default_factory=dict)  # number of each inode that has a name
    count: int = 0

    @classmethod
    def continued(cls, path: str) -> Self:
        """Go on from the file `path`, which stands beside the folder of the same name; without a file, start."""
        if os.path.exists(path):
            return pickle.loads(Path(path).read_bytes())
        disk = cls(root=path.removesuffix(".disk"), path=path)
        disk._look()
        disk.now.safe_data = dict(disk.now.data)
        disk.now.safe_names = dict(disk.now.names)
        return disk

    def before(self, name: str, path: str) -> None:
        """Note how things stand before a call, and what will be safe after it."""
        self._look(f"{name} {os.path.relpath(path, self.root)}")
        number = self.ids.get(_inode(path), -1)
        if name == "fsync" and number in self.now.names:
            self.now.safe_names = self.now.safe_names | {number: self.now.names[number]}
            self.now.later_names = self.now.later_names | {number: []}
        elif name == "fsync" and number in self.now.data:
            self.now.safe_data = self.now.safe_data | {number: self.now.data[number]}

    def save(self) -> None:
        """Keep everything, the end included."""
        self._look("end")
        Path(self.path).write_bytes(pickle.dumps(self))

    def _look(self, what: str = "start") -> None:
        old, present = self.now, {}
        now = State(what, dict(old.data), old.safe_data, dict(old.names), old.safe_names, dict(old.later_names))
        for path in [Path(self.root), *sorted(Path(self.root).rglob("*"))]:
            inode = _inode(str(path))
            if inode not in self.ids or inode in present:
                self.ids[inode], self.count = self.count, self.count + 1
            present[inode] = number = self.ids[inode]
            if path.is_dir():
                names = {child.name: _inode(str(child)) for child in path.iterdir()}
                for child in names.values():
                    if child not in self.ids:
                        self.ids[child], self.count = self.count, self.count + 1
                now.names[number] = {name: self.ids[child] for name, child in names.items()}
                if now.names[number] != old.names.get(number):
                    now.later_names[number] = [*now.later_names.get(number, []), now.names[number]]
            else:
                data = path.read_bytes()
                now.data[number] = old.data[number] if old.data.get(number) == data else data
        self.ids = present  # an inode without a name may be given to another file
        self.now = now
        self.states.append(now)


def remains(state: State, names: str, data: str, rng: random.Random, folder: Path) -> None:
    """Write to a new folder what a power cut leaves of a state.

    Args:
        state: at the moment of the cut.
        names: "late": those that are safe; "early": all; "mixed": each folder as it was at any moment since its sync.
        data: "late": what is safe, zeros or nothing after that; "early": all; "mixed": each file one of these.
        rng: draws.
        folder: is made.
    """

    def put(number: int, path: Path) -> None:
        if number in state.names:
            path.mkdir()
            late, early = state.safe_names.get(number, {}), state.names[number]
            between = [late, *state.later_names.get(number, []), early]
            for name, child in {"late": late, "early": early, "mixed": rng.choice(between)}[names].items():
                put(child, path / name)
        else:
            safe, all_of_it = state.safe_data.get(number, b""), state.data[number]
            zeros = safe + bytes(max(0, len(all_of_it) - len(safe)))
            late = rng.choice([safe, zeros])
            path.write_bytes({"late": late, "early": all_of_it, "mixed": rng.choice([late, all_of_it])}[data])

    put(0, folder)


def _inode(path: str) -> int:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return -1
