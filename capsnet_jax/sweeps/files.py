"""Files that are whole or not there, and append-only files of JSON lines that several processes may write to."""

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock


class RecordError(Exception):
    """A file of records that cannot be read; the message is one line with the file, the line and the remedy."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, as `write_bytes` does."""
    write_text(path, to_json(value, indent=2) + "\n")


def append_lines(path: Path, values: Sequence[Any]) -> None:
    """Append a JSON line for each value, all of them or none.

    Processes take turns. A last line that an earlier kill left unfinished is cut off first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(to_json(value) + "\n" for value in values).encode()
    with _turn(path), path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(whole)
            raise
    flush_folder(path.parent)


def read_lines(path: Path) -> list[Any]:
    """Read a file of JSON lines; [] where there is none. A last line without its end is passed over.

    Raises:
        RecordError: another line is damaged.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise RecordError(f"{path} line {number} is damaged ({error}); repair or delete that line") from error
    return values


def to_json(value: Any, indent: int | None = None) -> str:
    """Return JSON as its standard has it: null stands for NaN and the infinities."""

    def strict(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: strict(inner) for name, inner in part.items()}
        if isinstance(part, list | tuple):
            return [strict(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(strict(value), indent=indent, allow_nan=False)


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Hold the right to write a file; the kernel gives it back when a process ends, however it ends."""
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        yield
