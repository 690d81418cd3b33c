"""What a person sees while runs train: how far they are, and the time left."""

import math
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

SMOOTHING_SECONDS = 60.0
LOG_SECONDS = 30.0


class Progress:
    """Counts images against a total and shows how far a sweep is.

    On a terminal, bars for the sweep and for its current program stay at the bottom, under the lines that remain.
    Elsewhere, as in a log file, there are lines only: all that are to remain, others at most twice a minute.

    The time left is what is left at the speed of about the last minute. Compilation does not count as training.

    Use it as a context manager, or call `close`: it gives the terminal back.
    """

    def __init__(self, total_images: int):
        """Start the clock.

        Args:
            total_images: how many all runs of the sweep together are to be trained on.
        """
        self._sweep = _Count(total_images)
        self._program: _Count | None = None
        self._speed = _Speed()
        self._text = ""
        self._clock = self._last_line = time.perf_counter()
        self._bars: Bars | None = None
        if sys.stdout.isatty() and not (console := Console(force_terminal=True)).is_dumb_terminal:
            self._bars = _bars(console)

    def __enter__(self) -> "Progress":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Remove the bars; lines that are said later are printed as they are."""
        if self._bars:
            self._bars.stop()
            self._bars = None

    def say(self, text: str) -> None:
        """Print a line that remains."""
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def begin(self, images: int, text: str) -> None:
        """Begin the next program of the sweep; the time since the last call does not count as training.

        Args:
            images: of the sweep's images, those of this program.
            text: what is shown beside its bar until it advances.
        """
        self._program = _Count(images)
        self._clock = time.perf_counter()
        self._text = text
        self._show()

    def skip(self, images: int) -> None:
        """Take off images that need not be trained on: another process did, or the runs ended early."""
        for count in filter(None, (self._sweep, self._program)):
            count.total = max(count.total - images, count.done)
        self._show()

    def advance(self, images: int, text: str, *, keep: bool = False, compiling: float = 0.0) -> None:
        """Count images that were trained on since the last call, and show where things stand.

        Args:
            images: how many.
            text: what is shown with the time left.
            keep: print the line for good.
            compiling: seconds since the last call that compilation took; they tell nothing of the speed.
        """
        now = time.perf_counter()
        self._speed.add(images, max(now - self._clock - compiling, 0.0))
        self._clock = now
        for count in filter(None, (self._sweep, self._program)):
            count.done += images
        self._text = text
        if keep or (self._bars is None and now - self._last_line >= LOG_SECONDS):
            left = self._left(self._sweep)
            self.say(f"{text} · {left}" if left else text)
            self._last_line = now
        self._show()

    def _left(self, count: "_Count") -> str:
        """Return the time left, such as `45 s left`; nothing as long as no speed is known."""
        seconds = self._speed.seconds(count.total - count.done)
        return "" if seconds is None else f"{duration(seconds)} left"

    def _show(self) -> None:
        """Draw the bars."""
        if self._bars is None:
            return
        rows = [(self._sweep, "all runs" if self._program else self._text)]
        if self._program:
            rows.append((self._program, self._text))
        for row, (count, text) in enumerate(rows):
            if len(self._bars.task_ids) <= row:
                self._bars.add_task("", left="")
            self._bars.update(
                self._bars.task_ids[row],
                total=max(count.total, 1),
                completed=count.done if count.total else 1,
                description=text,
                left=self._left(count),
            )
        if self._bars.live.is_started:
            self._bars.refresh()
        else:
            self._bars.start()
            self._bars.console.show_cursor(True)  # a second signal ends the process without putting it back


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 45 s, 3 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


class _Count:
    """Images to do, and done."""

    def __init__(self, total: int):
        self.total = total
        self.done = 0


class _Speed:
    """Images a second, as an average in which older seconds count less and less."""

    def __init__(self) -> None:
        self._images = self._seconds = 0.0

    def add(self, images: int, seconds: float) -> None:
        """Count images that took so many seconds."""
        weight = math.exp(-seconds / SMOOTHING_SECONDS)
        self._images = weight * self._images + images
        self._seconds = weight * self._seconds + seconds

    def seconds(self, images: int) -> float | None:
        """Return how long so many images take; None as long as that is not known."""
        if images == 0:
            return 0.0
        return images * self._seconds / self._images if self._images and self._seconds else None


def _bars(console: Console) -> Bars:
    """Return bars that are drawn on request only; a thread that redraws them would take time from training."""
    text = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    return Bars(
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False, table_column=text),
        console=console,
        auto_refresh=False,
        transient=True,
        expand=True,
    )
