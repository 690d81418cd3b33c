"""The most memory that this process has held."""

import re
import resource
import sys
from pathlib import Path


def process_peak() -> int:
    """Peak resident memory in bytes, from the start of this program on.

    Linux's VmHWM begins anew with a program; `ru_maxrss` may hold what its parent had when it forked, and is the
    second choice.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)):
        return 1024 * int(found[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def jax_peak() -> int:
    """Peak memory of the device that JAX computes on, in bytes; on a CPU the process's."""
    import jax

    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else process_peak()
