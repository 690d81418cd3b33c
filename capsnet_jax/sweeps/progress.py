"""What a person sees while runs train: how far they are, and the time left."""

import math
import statistics
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

    The time left has three parts. Images take what they took in about the last minute. Evaluations take what they took
    in this program or the one before. All else, mostly compiling and the test set, takes in a program what it took in
    the ones before. Nothing is told before the first steps are made.

    Use it as a context manager, or call `close`: it gives the terminal back.

    Attributes:
        programs_left: programs of the sweep that come after the current one.
    """

    def __init__(self, total_images: int):
        """Start the clock.

        Args:
            total_images: how many all runs of the sweep together are to be trained on.
        """
        self._sweep = _Count(total_images)
        self._program: _Count | None = None
        self._pace = _Pace()
        self._text = ""
        self._last_line = time.perf_counter()
        self._bars: Bars | None = None
        self.programs_left = 0
        if sys.stdout and sys.stdout.isatty() and not (console := Console(force_terminal=True)).is_dumb_terminal:
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

    def begin(self, images: int, epochs: int, text: str) -> None:
        """Begin the next program of the sweep.

        Args:
            images: of the sweep's images, those of this program.
            epochs: of each run; an evaluation comes after each.
            text: what is shown beside its bar until it advances.
        """
        self._program = _Count(images)
        self._pace.begin(images // epochs)
        self._text = text
        self._show()

    def skip(self, images: int) -> None:
        """Take off images that need not be trained on: another process did, or the runs ended early."""
        for count in filter(None, (self._sweep, self._program)):
            count.total = max(count.total - images, count.done)
        self._show()

    def advance(self, images: int, text: str, training: float, evaluating: float = 0.0, *, keep: bool = False) -> None:
        """Count images that were trained on since the last call, and show where things stand.

        Args:
            images: how many.
            text: what is shown with the time left.
            training: seconds that this program's steps took so far, in this process.
            evaluating: seconds that this program's evaluations took so far, in this process.
            keep: print the line for good.
        """
        now = time.perf_counter()
        self._pace.add(images, training, evaluating)
        for count in filter(None, (self._sweep, self._program)):
            count.done += images
        self._text = text
        if keep or (self._bars is None and now - self._last_line >= LOG_SECONDS):
            left = self._left(self._sweep, self.programs_left)
            self.say(f"{text} · {left}" if left else text)
            self._last_line = now
        self._show()

    def _left(self, count: "_Count", programs: int = 0) -> str:
        """Return the time left, such as `45 s left`; nothing as long as no speed is known."""
        seconds = self._pace.seconds(count.total - count.done, programs)
        return "" if seconds is None else f"{duration(seconds)} left"

    def _show(self) -> None:
        """Draw the bars."""
        if self._bars is None:
            return
        rows = [(self._sweep, "all runs" if self._program else self._text, self.programs_left)]
        if self._program:
            rows.append((self._program, self._text, 0))
        for row, (count, text, programs) in enumerate(rows):
            if len(self._bars.task_ids) <= row:
                self._bars.add_task("", left="")
            self._bars.update(
                self._bars.task_ids[row],
                total=max(count.total, 1),
                completed=count.done if count.total else 1,
                description=text,
                left=self._left(count, programs),
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


class _Pace:
    """What is known of how long a sweep's work takes."""

    def __init__(self) -> None:
        self._images = self._seconds = 0.0  # trained on; older ones count less and less
        self._evaluating_an_image = 0.0  # seconds of evaluation for each image that is trained on
        self._rests: list[float] = []  # of the programs that are done: seconds neither of steps nor of evaluations
        self._began: float | None = None
        self._epoch_images, self._evaluations, self._training, self._evaluating = 0, 0, 0.0, 0.0  # of this program

    def begin(self, epoch_images: int) -> None:
        """Begin a program whose runs together are trained on so many images in an epoch."""
        if self._began is not None:
            self._rests.append(self._rest())
        self._began = time.perf_counter()
        self._epoch_images, self._evaluations, self._training, self._evaluating = epoch_images, 0, 0.0, 0.0

    def add(self, images: int, training: float, evaluating: float) -> None:
        """Count images, and the seconds that the program's steps and evaluations took so far."""
        seconds = training - self._training
        weight = math.exp(-seconds / SMOOTHING_SECONDS)
        self._images = weight * self._images + images
        self._seconds = weight * self._seconds + seconds
        if evaluating > self._evaluating:
            self._evaluations += 1
            self._evaluating_an_image = evaluating / (self._evaluations * max(self._epoch_images, 1))
        self._training, self._evaluating = training, evaluating

    def seconds(self, images: int, programs: int) -> float | None:
        """Return how long it takes to train this program's images, or with those of more programs; None if unknown."""
        if not (self._images and self._seconds):
            return None if images or programs else 0.0
        rest = self._rest()
        whole = statistics.mean(self._rests or [rest])
        per_image = self._seconds / self._images + self._evaluating_an_image
        return images * per_image + max(whole - rest, 0.0) + programs * whole

    def _rest(self) -> float:
        """Return the seconds of this program so far that were neither of steps nor of evaluations."""
        if self._began is None:
            return 0.0
        return max(time.perf_counter() - self._began - self._training - self._evaluating, 0.0)


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
