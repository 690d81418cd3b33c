"""Blocks of steps in turn: A B C, A B C, … so that whatever slows the machine for a while slows all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Timer = Callable[[int], float]  # does that many steps, returns the seconds that they took

_SLOW = 5  # blocks; a subject whose single step takes longer gets fewer rounds


class Block(NamedTuple):
    """One measured block.

    Attributes:
        round: from 0.
        subject: index of the timer.
        steps: how many it did.
        seconds: that they took.
    """

    round: int
    subject: int
    steps: int
    seconds: float


def interleave(timers: Sequence[Timer], rounds: int, seconds: float, slow_rounds: int) -> Iterator[Block]:
    """Warm every timer up, then measure a block of each in every round.

    Before a block there is a step that is not measured, but for the slow: memory that was freed must be got anew after
    a pause, which costs a virtual machine seconds a gigabyte, and caches filled. Training makes no pauses.

    Args:
        timers: the subjects.
        rounds: blocks of each.
        seconds: that a block should take; it has at least one step.
        slow_rounds: blocks of a subject whose one step takes more than five blocks' time.

    Yields:
        The blocks in the order measured; warm-up is not among them.
    """
    sizes, slow = [], []
    for timer in timers:
        steps, took = warm_up(timer, seconds)
        sizes.append(max(1, round(steps * seconds / took)) if took > 0 else steps)
        slow.append(took / steps > _SLOW * seconds)
    for number in range(rounds):
        for index, timer in enumerate(timers):
            if not slow[index]:
                timer(1)
            if not slow[index] or number < slow_rounds:
                yield Block(number, index, sizes[index], timer(sizes[index]))


def warm_up(timer: Timer, seconds: float) -> tuple[int, float]:
    """Run a timer until its speed can be told; returns the last run's steps and seconds.

    The first step allocates and loads, so it only counts where it is so slow that this cannot matter.
    """
    steps, took = 1, timer(1)
    if took > _SLOW * seconds:
        return steps, took
    took = timer(steps)
    while took < seconds / 4:
        steps *= 4
        took = timer(steps)
    return steps, took
