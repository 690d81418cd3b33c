"""Counts the calls that change or open files of one folder, and lets something happen right before the n-th one.

`install` is called in a process that is to run one command. What may happen (`do`):

kill      SIGKILL; of a write, half of its bytes are written first
delete    the whole folder is removed, as by somebody else
ENOSPC …  an error of `errno`; with `lasting`, it meets every call from then on that changes something, and no other
"""

import builtins
import errno
import functools
import io
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("open", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync", "ftruncate", "write")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Calls:
    """The calls so far; calling it announces the next one."""

    def __init__(self, folder: str, at: int = 0, do: str = "", lasting: bool = False, log: str = "", disk: Any = None):
        self.folder, self.at, self.do, self.lasting, self.disk = os.path.realpath(folder), at, do, lasting, disk
        self.number = 0
        self.log = io.FileIO(log, "a") if log else None
        self._lock = threading.RLock()
        self._busy = False

    def __call__(self, name: str, target: Any, changes: bool, half: Callable[[], Any] = lambda: None) -> None:
        """Count the call `name` of the file `target`, and make happen what is to happen."""
        with self._lock:
            path = _path(target)
            if self._busy or not (path == self.folder or path.startswith(self.folder + os.sep)):
                return
            self._busy = True  # what follows is not counted
            try:
                self.number += 1
                if self.log:
                    io.FileIO.write(self.log, f"{name} {os.path.relpath(path, self.folder)}\n".encode(errors="replace"))
                if self.disk:
                    self.disk.before(name, path)
                if (0 < self.at <= self.number and changes) if self.lasting else self.number == self.at:
                    self._happen(path, half)
            finally:
                self._busy = False

    def _happen(self, path: str, half: Callable[[], Any]) -> None:
        if self.do == "kill":
            half()
            if self.disk:
                self.disk.save()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.do == "delete":
            shutil.rmtree(self.folder)
        else:
            half()
            code = getattr(errno, self.do)
            raise OSError(code, os.strerror(code), path)


def install(calls: Calls) -> None:
    """Have the functions of `os`, `open` and the files that it opens announce every call."""
    for name in CALLS:
        setattr(os, name, _announced(calls, name, getattr(os, name)))

    class File(io.FileIO):
        """A file whose writes are announced, as those of `os.write` are."""

        def write(self, data: Any) -> int:
            calls("write", self.fileno(), True, lambda: super(File, self).write(bytes(data)[: len(data) // 2]))
            return super().write(data)

    original = io.open

    @functools.wraps(original)
    def opened(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **keywords: Any) -> Any:
        changes = bool(set("wax+") & set(mode))
        calls("open", file, changes)
        if not changes or isinstance(file, int) or not calls_of(file, calls.folder):
            return original(file, mode, buffering, *arguments, **keywords)
        raw = File(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *arguments, **keywords)

    io.open = opened
    builtins.open = opened


def calls_of(file: Any, folder: str) -> bool:
    """Whether a file is in a folder."""
    return _path(file).startswith(folder + os.sep)


def _announced(calls: Calls, name: str, original: Callable) -> Callable:
    @functools.wraps(original)
    def call(target: Any, *arguments: Any, **keywords: Any) -> Any:
        folder = keywords.get("dir_fd")
        where = target if folder is None else os.path.join(_path(folder), os.fspath(target))
        changes = name != "open" or bool(((*arguments, 0)[0] or keywords.get("flags", 0)) & WRITING)

        def half() -> None:
            if name == "write":
                original(target, bytes(arguments[0])[: len(arguments[0]) // 2])

        calls(name, where, changes, half)
        return original(target, *arguments, **keywords)

    return call


def _path(target: Any) -> str:
    """Return the absolute path of a name or of an open file."""
    if isinstance(target, int):
        try:
            return os.readlink(f"/proc/self/fd/{target}")
        except OSError:
            return ""
    path = Path(os.fsdecode(target))
    return os.path.join(os.path.realpath(path.parent), path.name)
