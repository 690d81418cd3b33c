import math

import pytest

from capsnet_jax.bench.measure import interleave, warm_up


class Fake:
    """A timer of known speed; notes its calls in `log`."""

    def __init__(self, name, step, log, first=0.0, fails_at=math.inf):
        self.name, self.step, self.log, self.first, self.fails_at = name, step, log, first, fails_at

    def __call__(self, steps):
        self.log.append((self.name, steps))
        if len(self.log) >= self.fails_at:
            return math.inf
        extra, self.first = self.first, 0.0
        return extra + steps * self.step


def run(timers, rounds=3, seconds=1.0):
    return list(interleave(timers, rounds, seconds))


def test_blocks_take_turns_after_all_are_warm():
    log = []
    blocks = run([Fake("A", 0.25, log), Fake("B", 0.5, log)])
    warm, measured = log[:-12], log[-12:]
    assert [name for name, _ in warm] == sorted(name for name, _ in warm)
    assert measured == [("A", 1), ("A", 4), ("B", 1), ("B", 2)] * 3  # the first step after a pause does not count
    assert blocks == [(i, k, n, 1.0) for k in range(3) for i, n in ((0, 4), (1, 2))]


@pytest.mark.parametrize(("step", "steps"), [(0.001, 1000), (0.3, 3), (0.9, 1), (4.0, 1)])
def test_a_block_takes_about_its_time_and_at_least_a_step(step, steps):
    assert {block[2] for block in run([Fake("A", step, [])])} == {steps}


def test_a_slow_first_step_does_not_count():
    assert {block[2] for block in run([Fake("A", 0.1, [], first=3.0)])} == {10}


def test_a_slow_subject_has_two_rounds_and_one_step_of_warm_up():
    log = []
    blocks = run([Fake("A", 0.5, log), Fake("slow", 30.0, log)])
    assert [block[0] for block in blocks] == [0, 1, 0, 1, 0]
    assert [steps for name, steps in log if name == "slow"] == [1, 1, 1]


@pytest.mark.parametrize("fails_at", [1, 2, 5, 8])
def test_a_subject_that_fails_has_no_more_blocks_and_the_others_go_on(fails_at):
    log = []
    blocks = run([Fake("dead", 0.5, log, fails_at=fails_at), Fake("B", 0.5, [])])
    assert [block[1] for block in blocks if block[0] == 1] == [0, 1, 2]
    assert all(seconds < math.inf for *_, seconds in blocks)
    assert len([block for block in blocks if block[0] == 0]) < 3


def test_warm_up_goes_on_until_a_speed_can_be_told():
    log = []
    assert warm_up(Fake("A", 0.001, log), 1.0) == pytest.approx(1000)
    assert [n for _, n in log] == [1, 1, 4, 16, 64, 256]
