"""Compiling ahead of time, and once for all starts: compiled programs are cached on disk."""

import contextlib
import ctypes
import hashlib
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from capsnet_jax.data.cache import default_dir


def enable_compilation_cache() -> None:
    """Have JAX cache every program that it compiles; where JAX_COMPILATION_CACHE_DIR is set, that one is used.

    Programs for a CPU use the instructions that it has, so each kind of CPU gets a folder of its own: a home directory
    may be shared by different machines.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(default_dir() / "programs" / _machine()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def aot_compile(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> tuple[Callable, float]:
    """Compile a function for arguments of these shapes; return the program and the seconds that it took.

    Args:
        function: to be compiled.
        arguments: arrays, numbers and trees of them.
        donate: positions of the arguments whose memory the results may take.
    """
    clock = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    # The compiler's scratch memory, some 300 MB, is free by now, but glibc would keep it for the process.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    return program, time.perf_counter() - clock


def _machine() -> str:
    """Return a short name for the CPU's instruction set."""
    facts = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts += [line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))][:1]
    return f"{platform.machine()}-{hashlib.sha256(' '.join(facts).encode()).hexdigest()[:8]}"
