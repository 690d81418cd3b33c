"""Write files that are complete after a crash, and append to one file from many processes."""

import contextlib
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import filelock

LOCK_SECONDS = 60.0
CHECKSUM = b'"checksum": "'
log = logging.getLogger(__name__)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    The bytes are on the disk before the file gets its name, and so is the name when this returns. Until then the file
    has a name that no other process uses. If anything fails, that file is removed and the old one stays. Only a killed
    process leaves one behind: see `remove_abandoned`.

    Args:
        path: the file; its folder is made where missing.
        data: what it is to hold.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    make_folder(path.parent)
    try:
        partial, file = _new_partial(path.parent)
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what is told
                partial.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # the name that a person knows


def write_text(path: Path, text: str) -> None:
    """Write text as `write_bytes` does, in UTF-8."""
    write_bytes(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where missing; their names are on the disk when this returns."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _flush_folder(new.parent)


def to_json(value: Any) -> str:
    """Return strict JSON: null stands for NaN and the infinities, which JSON does not know."""

    def strict(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: strict(inner) for name, inner in part.items()}
        if isinstance(part, list | tuple):
            return [strict(inner) for inner in part]
        return None if isinstance(part, float) and not math.isfinite(part) else part

    return json.dumps(strict(value), allow_nan=False)


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder and in those below it.

    A living process holds a lock on its own, which stays.
    """
    for partial in folder.rglob(".*.partial"):
        with contextlib.suppress(OSError), partial.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def append_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Append JSON objects, a line each, to a file that other processes may append to as well.

    Each line gets a checksum. The lines are on the disk when this returns. A killed process, or one whose disk was
    full, may have left a torn last line. It is cut off first, so that it does not spoil the new one. If only its
    newline is missing, that is added.

    Args:
        path: the file; made where missing.
        values: JSON objects; NaN and the infinities become null.

    Raises:
        OSError: no line was written, and the file is as it was; or others hold the lock for a minute.
    """
    lines = b"".join(_to_line(value) + b"\n" for value in values)
    make_folder(path.parent)
    with _locked(path):
        _append(path, lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line; none where there is no file.

    A line that is not what was written is left out, and a warning names it, once. Blank lines are ignored.
    """
    rows = []
    for number, line in enumerate(_split(path), 1):
        row = parse_line(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            warn_once(f"{path}, line {number} is damaged and left out; the command that wrote it writes it again")
    return rows


def set_damaged_aside(path: Path) -> None:
    """Move the damaged lines of a file to `<name>.damaged` beside it; nothing happens where there are none."""
    read_lines(path)  # which names them
    if not path.exists():
        return
    with _locked(path):
        lines = [line for line in _split(path) if line.strip()]
        damaged = [line for line in lines if parse_line(line) is None]
        if damaged:
            aside = path.with_name(f"{path.name}.damaged")
            write_bytes(aside, _join([*_split(aside), *damaged]))
            write_bytes(path, _join([line for line in lines if parse_line(line) is not None]))


def _append(path: Path, lines: bytes) -> None:
    """Append lines, newlines included; nobody else may append at the same time."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before = os.fstat(descriptor).st_size
        tail = _tail(descriptor, before)
        if tail and parse_line(tail) is None:
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
    _flush_folder(path.parent)


def _tail(descriptor: int, size: int) -> bytes:
    """Return what follows the last newline of a file of `size` bytes."""
    tail, start = b"", size
    while start > 0 and b"\n" not in tail:
        length = min(start, 2**16)
        start -= length
        tail = os.pread(descriptor, length, start) + tail
    return tail.rpartition(b"\n")[2]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds beside its checksum; None where that is not what was written."""
    body, _, checksum = line.rstrip(b"\r").rpartition(CHECKSUM)
    if checksum != _checksum(body):
        return None
    row = json.loads(line)
    del row["checksum"]
    return row


def _to_line(value: dict[str, Any]) -> bytes:
    """Return a JSON object of one line, the checksum of what stands before it as its last value."""
    body = to_json(value)[:-1].encode() + (b", " if value else b"")
    return body + CHECKSUM + _checksum(body)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=8).hexdigest().encode() + b'"}'


def _split(path: Path) -> list[bytes]:
    """Return a file's lines; none where there is no file."""
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []


def _join(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines if line)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other writers away from a file by `.<name>.lock` beside it."""
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise TimeoutError(
            f"{path} was locked by another process for {LOCK_SECONDS:.0f} s: end that process"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _new_partial(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a file for what is not yet complete; it is locked until it is closed."""
    while True:
        path = folder / f".{secrets.token_hex(8)}.partial"
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # or somebody took it for abandoned just before it was locked
            return path, file
        file.close()


@functools.cache
def warn_once(message: str) -> None:
    """Warn once, however often a file is read."""
    log.warning("%s", message)


def _flush_folder(folder: Path) -> None:
    """Make a folder's names durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
