"""What of the process's environment may reach a training: where it runs, and nothing that changes its numbers."""

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whoever drops settings of JAX's has not imported it yet
    import jax

# Where programs run, where they are cached, and what JAX tells of them.
KEPT = r"JAX_(PLATFORM\w*|\w*VISIBLE_DEVICES|\w*CACHE\w*|\w*LOG\w*|TRACEBACK\w*|DUMP\w*|NUM_CPU_DEVICES)"


def drop_jax_settings() -> list[str]:
    """Take settings of JAX that change numbers, as JAX_ENABLE_X64, out of the environment; before JAX is imported.

    A run's config says everything that determines it. Programs that are started from here inherit the environment.

    Returns:
        Their names.
    """
    dropped = [name for name in os.environ if name.startswith("JAX_") and not re.fullmatch(KEPT, name)]
    for name in dropped:
        del os.environ[name]
    return dropped


def mistake() -> str | None:
    """Say what is wrong with a setting of JAX's that is kept, at which JAX would fail; None if nothing is."""
    number = os.environ.get("JAX_NUM_CPU_DEVICES", "1")
    if number == "-1" or (number.isdecimal() and int(number) > 0):  # -1 is as many as JAX wants
        return None
    return f"JAX_NUM_CPU_DEVICES={number} is no number from 1; change it, or unset it"


def find_devices(most: int | None = None) -> "tuple[jax.Device, ...]":
    """Start JAX on the platform that it is to use, and return the devices, of each process at most so many.

    Raises:
        ConfigError: there is no such device, or there are fewer.
    """
    import jax

    from capsnet_jax.config import ConfigError

    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:
        asked, reason = os.environ.get("JAX_PLATFORMS", ""), str(error).partition("\n")[0].partition(" (set ")[0]
        reason = f" ({reason})" if reason else ""
        raise ConfigError(f"JAX finds no device for JAX_PLATFORMS={asked!r}{reason}; unset it, or say cpu") from error
    if most is not None and most > len(devices):
        more = "; JAX_NUM_CPU_DEVICES=N makes N of a CPU" if devices[0].platform == "cpu" else ""
        raise ConfigError(f"--devices={most}: JAX finds only {len(devices)} ({devices[0].device_kind}){more}")
    processes: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        processes.setdefault(device.process_index, []).append(device)
    return tuple(device for process in sorted(processes) for device in processes[process][:most])
