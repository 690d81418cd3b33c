import pytest

from capsnet_jax.bench.interleave import Block, interleave, warm_up


class Fake:
    """A timer of known speed; notes its calls in `log`."""

    def __init__(self, name, step, log, first=0.0):
        self.name, self.step, self.log, self.first = name, step, log, first

    def __call__(self, steps):
        self.log.append((self.name, steps))
        extra, self.first = self.first, 0.0
        return extra + steps * self.step


def run(timers, rounds=3, seconds=1.0, slow_rounds=2):
    return list(interleave(timers, rounds, seconds, slow_rounds))


def test_blocks_take_turns_after_all_are_warm():
    log = []
    blocks = run([Fake("A", 0.25, log), Fake("B", 0.5, log)])
    warm, measured = log[:-12], log[-12:]
    assert [name for name, _ in warm] == sorted(name for name, _ in warm)
    assert measured == [("A", 1), ("A", 4), ("B", 1), ("B", 2)] * 3  # the first step after a pause does not count
    assert blocks == [Block(k, i, n, 1.0) for k in range(3) for i, n in ((0, 4), (1, 2))]


@pytest.mark.parametrize(("step", "steps"), [(0.001, 1000), (0.3, 3), (0.9, 1), (4.0, 1)])
def test_a_block_takes_about_its_time_and_at_least_a_step(step, steps):
    assert {block.steps for block in run([Fake("A", step, [])])} == {steps}


def test_a_slow_first_step_does_not_count():
    assert {block.steps for block in run([Fake("A", 0.1, [], first=3.0)])} == {10}


def test_a_slow_subject_has_fewer_rounds_and_one_step_of_warm_up():
    log = []
    blocks = run([Fake("A", 0.5, log), Fake("slow", 30.0, log)])
    assert [block.subject for block in blocks] == [0, 1, 0, 1, 0]
    assert [steps for name, steps in log if name == "slow"] == [1, 1, 1]


def test_warm_up_goes_on_until_a_speed_can_be_told():
    log = []
    steps, seconds = warm_up(Fake("A", 0.001, log), 1.0)
    assert [n for _, n in log] == [1, 1, 4, 16, 64, 256]
    assert (steps, seconds) == (256, 0.256)
