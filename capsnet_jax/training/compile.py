"""Compiling ahead of time."""

import contextlib
import ctypes
import time
from collections.abc import Callable
from typing import Any

import jax

from capsnet_jax.training.limits import check_program


def aot_compile(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> tuple[jax.stages.Compiled, float]:
    """Compile a function for arguments of these shapes; return the program and the seconds that it took.

    Args:
        function: to be compiled.
        arguments: arrays, numbers and trees of them.
        donate: positions of the arguments whose memory the results may take.

    Raises:
        OutOfMemoryError: the program needs more memory than is free.
    """
    clock = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    # The compiler's scratch memory, some 300 MB, is free by now, but glibc would keep it for the process.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    check_program(program)
    return program, time.perf_counter() - clock
