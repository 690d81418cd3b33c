"""The finished runs of a workdir, while others append to them."""

import os
from pathlib import Path

from capsnet_jax.sweeps.files import parse_line
from capsnet_jax.sweeps.records import Record, from_line


class Follower:
    """Reads `runs.jsonl` as `records.load_all` does, but of a file that has grown only what was appended.

    A workdir of 10,000 runs has 70 MB of records, which every process looks at before each of its programs.
    Damaged lines are left out in silence; `load_all` names them.
    """

    def __init__(self, workdir: Path):
        """Name the workdir; nothing is read yet."""
        self._workdir = workdir
        self._finished: dict[str, Record] = {}
        self._file: tuple[int, int] | None = None  # device and inode; a file that is put in its place has others
        self._offset = 0  # behind the last newline that was read

    def read(self) -> dict[str, Record]:
        """Return every finished run by name; one that was trained anew counts as it was the last time."""
        try:
            file = (self._workdir / "runs.jsonl").open("rb")
        except FileNotFoundError:
            self._file = None
            return {}
        with file:  # opened anew each time: a network file system then looks for what other machines wrote
            status = os.fstat(file.fileno())
            if self._file != (status.st_dev, status.st_ino) or status.st_size < self._offset:
                self._file, self._offset, self._finished = (status.st_dev, status.st_ino), 0, {}
            file.seek(self._offset)
            lines = file.read().split(b"\n")
        tail = lines.pop()
        self._offset += sum(len(line) + 1 for line in lines)
        self._finished |= self._records(lines)
        return self._finished | self._records([tail])  # a whole line may lack its newline; it is read again

    def _records(self, lines: list[bytes]) -> dict[str, Record]:
        rows = [row for line in lines if (row := parse_line(line)) is not None]
        read = [from_line(row, self._workdir) for row in rows]
        return {record.name: record for record in read if record is not None}
