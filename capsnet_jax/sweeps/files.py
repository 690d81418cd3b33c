"""Write files that are complete after a crash, and append to one file from many processes."""

import json
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock

LOCK_SECONDS = 60.0


class DamagedFileError(Exception):
    """A line of a file is no JSON object; the message names the file, the line and the remedy."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    The bytes are on the disk before the file gets its name. Until then it has a name that no other process uses. If
    anything fails, the temporary file is removed and the old file stays. Only a killed process leaves a temporary file
    behind: see `remove_partial`.

    Args:
        path: the file; its folder is made where missing.
        data: what it is to hold.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write text as `write_bytes` does, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON as `write_bytes` does, indented for people."""
    write_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: null stands for NaN and the infinities, which JSON does not know."""

    def strict(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: strict(inner) for name, inner in part.items()}
        if isinstance(part, list | tuple):
            return [strict(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(strict(value), indent=indent, allow_nan=False)


def remove_partial(folder: Path, name: str) -> None:
    """Remove what killed processes left of files called `name` (a glob pattern).

    Only for files that one process at a time writes: the temporary file of a living process would go too.
    """
    for path in folder.glob(f".{name}.*.partial"):
        path.unlink(missing_ok=True)


def append_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Append JSON objects, a line each, to a file that other processes may append to as well.

    The lines are on the disk when this returns. A killed process, or one whose disk was full, may have left a torn last
    line. It is cut off first, so that it does not spoil the new one. If only its newline is missing, that is added.
    `.<name>.lock` beside the file keeps two writers apart.

    Args:
        path: the file; made where missing.
        values: JSON objects; NaN and the infinities become null.

    Raises:
        OSError: no line was written, and the file is as it was; or others hold the lock for a minute.
    """
    text = "".join(to_json(value) + "\n" for value in values)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            _append(path, text.encode())
    except filelock.Timeout as error:
        raise TimeoutError(
            f"{path} was locked by another process for {LOCK_SECONDS:.0f} s: end that process"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line; none where there is no file.

    A torn last line is ignored: its writer was killed, or is still writing. Blank lines are ignored too.

    Raises:
        DamagedFileError: another line is no JSON object.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            raise DamagedFileError(f"{path}, line {number}: no JSON object; mend the line or remove it")
    last = _parse(tail)
    return rows if last is None else [*rows, last]


def _append(path: Path, lines: bytes) -> None:
    """Append lines, newlines included; nobody else may append at the same time."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        tail = _tail(descriptor, before)
        if tail and _parse(tail) is None:
            before -= len(tail)
            os.ftruncate(descriptor, before)
        elif tail:
            lines = b"\n" + lines
        try:
            while lines:  # a write may take a part only
                lines = lines[os.write(descriptor, lines) :]
            os.fsync(descriptor)
        except BaseException:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)
    if new:
        _flush_folder(path.parent)


def _tail(descriptor: int, size: int) -> bytes:
    """Return what follows the last newline of a file of `size` bytes."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        length = min(start, 2**16)
        start -= length
        tail = os.pread(descriptor, length, start) + tail
    return tail.rpartition(b"\n")[2]


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return a line's JSON object; None where it is something else. No part of an object is itself an object."""
    try:
        row = json.loads(line)
    except ValueError:  # of JSON or of UTF-8
        return None
    return row if isinstance(row, dict) else None


def _flush_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
