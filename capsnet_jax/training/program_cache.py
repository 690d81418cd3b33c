"""Compiled programs on disk, once for all starts: only where nobody else may write, and only as they were written."""

import contextlib
import hashlib
import os
import platform
import stat
import sys
from pathlib import Path

import jax
from jax._src import compilation_cache, lru_cache

from capsnet_jax.data.cache import default_dir

DIGEST = 32  # bytes


def enable_compilation_cache() -> None:
    """Have JAX cache every program that it compiles, below JAX_COMPILATION_CACHE_DIR where that is set.

    Programs for a CPU use the instructions that it has, so each kind of CPU gets a folder of its own: a home directory
    may be shared by different machines. A cached program is code that the next start runs, so the folder is for its
    owner alone. Where it cannot be had, one line says so, and nothing is cached.
    """
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    if "://" in chosen:  # a bucket has no owner and mode to look at; whoever names one vouches for it
        return
    try:
        folder = (Path(chosen).expanduser() if chosen else default_dir() / "programs") / _machine()
        _make_private(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        _warn(error)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    # JAX has no public place for it; a JAX that no longer asks for `get_file_cache` fails the tests of this file.
    compilation_cache.reset_cache()
    size = jax.config.jax_compilation_cache_max_size  # type: ignore[attr-defined]
    compilation_cache.get_file_cache = lambda path: (CheckedCache(path, max_size=size), path)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if not chosen:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


class CheckedCache(lru_cache.LRUCache):
    """JAX's cache in a folder, each entry behind its digest. An entry that is not what was written is removed.

    A damaged program can crash the process that unpacks or runs it, and JAX would neither notice nor replace it.
    """

    _warned = False

    def get(self, key: str) -> bytes | None:
        """Return an entry, or None if there is none as it was written."""
        try:
            entry = super().get(key)
            if entry is None or entry[:DIGEST] == _digest(entry[DIGEST:]):
                return entry and entry[DIGEST:]
            self._remove(key)
        except OSError as error:
            self._warn(error)
        return None

    def put(self, key: str, value: bytes) -> None:
        """Write an entry; where that fails, go on without it."""
        try:
            super().put(key, _digest(value) + value)
        except OSError as error:
            self._warn(error)
            with contextlib.suppress(OSError):
                self._remove(key)

    def _remove(self, key: str) -> None:
        os.unlink(os.path.join(self.path, f"{key}-cache"))

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            _warn(error)
        self._warned = True


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner may use.

    Raises:
        OSError: that cannot be, or it is another user's, or others may write there and so may have done.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not hasattr(os, "getuid"):
        return
    if any(status.st_uid != os.getuid() for status in (folder.lstat(), folder.stat())):
        raise PermissionError(f"{folder} is another user's, whose programs would run here")
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write to {folder}, and what they put there would run here; remove it")
    folder.chmod(0o700)


def _warn(error: Exception) -> None:
    print(f"warning: compiled programs are not cached, set CAPSNET_JAX_CACHE: {error}", file=sys.stderr)


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=DIGEST).digest()


def _machine() -> str:
    """Return a short name for the CPU's instruction set."""
    facts = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts += [line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))][:1]
    return f"{platform.machine()}-{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]}"
