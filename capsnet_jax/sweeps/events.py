"""TensorBoard's event files of a run that is being trained."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tensorboardX import SummaryWriter


class EventWriter:
    """Write one run's metrics, epoch by epoch, into its folder."""

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]]):
        """Start the event file, and bring it to exactly `history` after an interruption."""
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._events = SummaryWriter(str(folder), write_to_disk=True)
        for row in history:
            self.epoch(row)

    def epoch(self, row: dict[str, Any]) -> None:
        """Append one epoch's metrics."""
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self._events.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
