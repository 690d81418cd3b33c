import contextlib
import itertools
import math
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from capsnet_jax.sweeps import progress
from capsnet_jax.sweeps.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets: `clock.now`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7810, "2 h 10 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def terminal(monkeypatch):
    """Standard output as a terminal of 100 columns without colours."""
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "20", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)


CONTROL = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|\r")


def lines(text: str) -> list[str]:
    """All lines that were ever drawn, without their bars, with single spaces."""
    return [re.sub("[━╸╺ ]+", " ", line).strip() for line in CONTROL.sub("\n", text).split("\n") if line.strip()]


def test_time_left_is_what_is_left_at_a_steady_speed(clock, capsys):
    display = Progress(1000)
    for seconds, text in zip((10, 20, 30, 40), "abcd", strict=True):
        display.advance(100, text, seconds, keep=True)
    assert capsys.readouterr().out == (
        "a · 1 min 30 s left\nb · 1 min 20 s left\nc · 1 min 10 s left\nd · 1 min 00 s left\n"
    )


def seconds_left(line: str) -> float:
    hours, minutes, seconds = re.search(r"(?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)? left", line).groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + int(seconds or 0)


def test_time_left_follows_the_speed_of_the_last_minute_smoothly(clock, capsys):
    display = Progress(10**6)
    for second in range(1, 1001):  # 100 images a second, from second 600 on 200
        display.advance(100 if second <= 600 else 200, f"{second}", second, keep=True)
    left = [seconds_left(line) for line in capsys.readouterr().out.splitlines()]
    assert left[599] == pytest.approx((10**6 - 60_000) / 100, rel=0.01)
    assert left[600] > 0.9 * left[599]  # one fast chunk says little yet
    assert left[659] == pytest.approx((10**6 - 72_000) / (200 - 100 / math.e), rel=0.02)
    assert left[999] == pytest.approx((10**6 - 140_000) / 200, rel=0.01)
    assert all(after <= before for before, after in itertools.pairwise(left[599:]))


def test_noise_of_single_chunks_is_smoothed(clock, capsys):
    display = Progress(10**6)
    for step in range(200):  # chunks of 100 images take 0.5 and 1.5 s in turn
        display.advance(100, f"{step}", step + 0.5 + step % 2 / 2, keep=True)
    left = [seconds_left(line) for line in capsys.readouterr().out.splitlines()]
    assert left[-1] == pytest.approx(10**4, rel=0.03)
    assert left[-2] == pytest.approx(10**4, rel=0.03)


def told(capsys) -> list[float]:
    return [seconds_left(line) for line in capsys.readouterr().out.splitlines()]


def test_nothing_is_told_before_the_first_steps(clock, capsys):
    display = Progress(1000)
    display.programs_left = 3
    clock.now += 500  # reading data
    display.begin(1000, 1, "compiling")
    clock.now += 50
    display.advance(0, "a", 0, keep=True)
    assert capsys.readouterr().out == "a\n"


def sweep(display: Progress, clock, programs: int, step: float = 10.0, evaluation: float = 7.0) -> list[float]:
    """Trains programs of two epochs of 100 images, each read in two chunks; returns the seconds left after each."""
    left = []
    for program in range(programs):
        display.programs_left = programs - program - 1
        display.begin(200, 2, "compiling")
        clock.now += 40
        training = evaluating = 0.0
        for chunk in range(4):
            training += step
            evaluating += evaluation * (chunk % 2)
            clock.now += step + evaluation * (chunk % 2)
            display.advance(50, "a", training, evaluating, keep=True)
            left.append(clock.now)
        clock.now += 30  # the test set
    return [clock.now - at for at in left]


def test_time_left_counts_evaluation_and_what_other_programs_take(clock, capsys):
    truth = sweep(Progress(600), clock, 3)
    left = told(capsys)
    assert len(left) == len(truth) == 12
    # Of the first program, compiling, steps and evaluations are known, but not the time at its end.
    at_first_epoch = 100 * (0.2 + 0.07) + 400 * (0.2 + 0.07) + 2 * 40
    assert left[1] == pytest.approx(at_first_epoch, abs=1)
    assert left[4:] == pytest.approx(truth[4:], abs=1 + 7 / 2)  # half an evaluation, in mid-epoch
    assert left[5::2] == pytest.approx(truth[5::2], abs=1)


def test_compiling_once_is_not_counted_again_and_again(clock, capsys):
    display = Progress(200)
    display.begin(200, 2, "compiling")
    clock.now += 620
    display.advance(50, "a", 10, keep=True)
    display.advance(50, "b", 20, keep=True)
    assert told(capsys) == [30, 20]


def test_a_run_that_goes_on_in_mid_epoch_knows_what_an_evaluation_takes(clock, capsys):
    display = Progress(1000)
    display.begin(1000, 10, "compiling")
    display.skip(90)
    display.advance(10, "a", 1, 5, keep=True)
    assert told(capsys) == [pytest.approx(900 / 10 * 1 + 9 * 5)]


def test_skipped_images_count_neither_as_done_nor_as_left(clock, capsys):
    display = Progress(1000)
    display.skip(500)
    display.advance(100, "a", 10, keep=True)
    display.skip(400)
    display.advance(0, "b", 20, keep=True)
    assert capsys.readouterr().out == "a · 40 s left\nb · 0 s left\n"


def test_a_log_gets_kept_lines_and_otherwise_two_a_minute(clock, capsys):
    display = Progress(10_000)
    display.begin(10_000, 1, "compiling")
    for second in range(1, 101):
        clock.now += 1
        display.advance(100, f"at {second}", second, keep=second == 35)
    display.close()
    text = capsys.readouterr().out
    assert [line.split(" · ")[0] for line in text.splitlines()] == ["at 30", "at 35", "at 65", "at 95"]
    assert "\x1b" not in text


def test_a_dumb_terminal_is_a_log(clock, capsys, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Progress(100) as display:
        display.begin(100, 1, "compiling")
        clock.now += 1
        display.advance(50, "a", 1)
        display.say("[b] say")
    assert capsys.readouterr().out == "[b] say\n"


def test_on_a_terminal_bars_are_renewed_and_lines_kept(clock, capsys, terminal):
    with Progress(400) as display:
        display.say("1 of 3 runs are finished already")
        display.begin(200, 2, "[1/2] r=1: compiling")
        assert lines(capsys.readouterr().out) == [
            "1 of 3 runs are finished already",
            "0 % all runs",
            "0 % [1/2] r=1: compiling",
        ]
        clock.now += 10
        display.advance(100, "[1/2] r=1 · epoch 1/2", 10)
        assert lines(capsys.readouterr().out) == ["25 % 30 s left all runs", "50 % 10 s left [1/2] r=1 · epoch 1/2"]
        clock.now += 10
        display.advance(100, "[1/2] r=1 · epoch 2/2", 20, keep=True)
        renewed = lines(capsys.readouterr().out)
        assert renewed[0] == "[1/2] r=1 · epoch 2/2 · 20 s left"
        assert renewed[-2:] == ["50 % 20 s left all runs", "100 % 0 s left [1/2] r=1 · epoch 2/2"]
        display.begin(200, 2, "[2/2] r=2: compiling")
        assert lines(capsys.readouterr().out)[-1] == "0 % 20 s left [2/2] r=2: compiling"
        display.skip(200)
        assert lines(capsys.readouterr().out)[-2] == "100 % 0 s left all runs"
    display.say("end")
    end = capsys.readouterr().out
    assert end.endswith("\x1b[1A\x1b[2Kend\n")  # the bars are gone


def test_long_lines_are_cut_in_the_bar_and_whole_when_kept(clock, capsys, terminal):
    text = "[1/1] " + "long " * 40
    with Progress(100) as display:
        clock.now += 1
        display.advance(50, text, 1)
        drawn = CONTROL.sub("", capsys.readouterr().out)
        assert len(drawn) <= 100
        assert drawn.rstrip().endswith("…")
        clock.now += 1
        display.advance(50, text, 2, keep=True)
        assert f"{text} · 0 s left" in CONTROL.sub("\n", capsys.readouterr().out).split("\n")


def test_nothing_is_wider_than_a_narrow_terminal(clock, capsys, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    with Progress(1000) as display:
        display.begin(500, 2, "[1/2] routing.iterations=1 × 2 runs: compiling")
        display.advance(100, "[1/2] routing.iterations=1 × 2 runs · epoch 0.5/2", 30)
        drawn = [line for line in CONTROL.sub("\n", capsys.readouterr().out).split("\n") if line.strip()]
    assert len(drawn) == 4
    assert max(map(len, drawn)) <= 20


def test_the_terminal_is_given_back_whatever_happens(clock, capsys, terminal):
    output, error = sys.stdout, sys.stderr
    threads = threading.active_count()
    with contextlib.suppress(ZeroDivisionError), Progress(100) as display:
        display.begin(100, 1, "compiling")
        assert threading.active_count() == threads
        shows, hides = (capsys.readouterr().out.rfind(f"\x1b[?25{letter}") for letter in "hl")
        assert shows > hides  # the cursor, also when the process is killed
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == (output, error)
    with Progress(100) as second:  # two after each other
        second.begin(100, 1, "compiling")
    second.close()


def test_nothing_done_yet_is_no_error(clock, capsys):
    display = Progress(100)
    clock.now += 1
    display.advance(0, "a", 0, keep=True)
    with Progress(0) as empty:
        empty.advance(0, "b", 0, keep=True)
    assert capsys.readouterr().out == "a\nb · 0 s left\n"


def test_nothing_to_do_is_no_error_on_a_terminal(clock, capsys, terminal):
    with Progress(0) as display:
        display.begin(0, 1, "nothing")
    assert "100 % 0 s left all runs" in lines(capsys.readouterr().out)
