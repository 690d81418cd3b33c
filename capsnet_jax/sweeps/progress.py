"""What a person sees while runs train: one line that is renewed, with the time left."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

SMOOTHING_SECONDS = 60.0  # speed is that of about the last minute
LINE_SECONDS = 30.0  # between passing lines in a log file


class Progress:
    """Count images against a total and print lines.

    On a terminal a bar is renewed; elsewhere (a log file) passing lines come at most twice a minute. The time left
    comes from the speed of the last minute; compiling does not slow it.
    """

    def __init__(self, total_images: int, console: Console | None = None):
        """Start the clock; `total_images` are to be trained on by all runs together."""
        self._total, self._done = total_images, 0
        self._seconds_per_image = 0.0
        self._clock = self._last_line = time.perf_counter()
        self._console = console or Console(highlight=False, soft_wrap=True)
        columns = [BarColumn(bar_width=20), TextColumn("{task.percentage:>3.0f} %"), _Left(self)]
        self._bar = Bar(*columns, TextColumn("{task.description}", markup=False), console=self._console, transient=True)
        self._task = self._bar.add_task("", total=max(total_images, 1))

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line to keep; what is printed before the next `advance` is no training time."""
        self._console.print(text, markup=False)
        self._clock = time.perf_counter()

    def skip(self, images: int) -> None:
        """Take off images that need not be trained on after all: an earlier process did, or the runs ended early."""
        self._total -= images
        self._bar.update(self._task, total=max(self._total, 1))

    def advance(self, images: int, text: str, *, keep: bool) -> None:
        """Count images, and show where things stand with the time left; `keep` the line for good."""
        now = time.perf_counter()
        self._count(images, now - self._clock)
        self._clock = now
        self._bar.update(self._task, completed=self._done, description=text)
        line = f"{text} · {duration(self.seconds_left())} left"
        if keep or (not self._console.is_terminal and now - self._last_line >= LINE_SECONDS):
            self._console.print(line, markup=False)
        else:
            return
        self._last_line = now

    def seconds_left(self) -> float:
        """Return the seconds that the images left take at the speed of late."""
        return (self._total - self._done) * self._seconds_per_image

    def _count(self, images: int, seconds: float) -> None:
        """Take a chunk's speed into the smoothed one, by the share of a minute that it took."""
        self._done += images
        if images > 0:
            weight = 1.0 if self._seconds_per_image == 0 else min(1.0, seconds / SMOOTHING_SECONDS)
            self._seconds_per_image += weight * (seconds / images - self._seconds_per_image)


class _Left(ProgressColumn):
    """The time left, as text."""

    def __init__(self, progress: Progress):
        super().__init__()
        self._progress = progress

    def render(self, task: Task) -> Text:
        """Return the text; the task is the progress's only one."""
        del task
        return Text(f"{duration(self._progress.seconds_left())} left")


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 45 s, 3 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
