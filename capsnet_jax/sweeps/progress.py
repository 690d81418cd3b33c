"""What a person sees while runs train: one line that is renewed, with the time left."""

import sys
import time


class Progress:
    """Counts images against a total and prints lines.

    On a terminal, passing lines replace each other; elsewhere (a log file) they come at most twice a minute.
    """

    def __init__(self, total_images: int):
        """Start the clock; `total_images` are to be trained on by all runs together."""
        self._total = total_images
        self._done = 0
        self._started = time.perf_counter()
        self._last_line = 0.0
        self._terminal = sys.stdout.isatty()

    def say(self, text: str) -> None:
        """A line to keep."""
        print(f"\r\x1b[K{text}" if self._terminal else text, flush=True)

    def skip(self, images: int) -> None:
        """Images that need not be trained on after all: an earlier process did, or the runs ended early."""
        self._total -= images

    def advance(self, images: int, text: str, *, keep: bool) -> None:
        """Count images, and show where things stand with the time left; `keep` the line for good."""
        self._done += images
        elapsed = time.perf_counter() - self._started
        line = f"{text} · {duration((self._total - self._done) * elapsed / max(self._done, 1))} left"
        if keep:
            self.say(line)
        elif self._terminal:
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif elapsed - self._last_line >= 30:
            print(line, flush=True)
        else:
            return
        self._last_line = elapsed


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
