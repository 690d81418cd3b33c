import sys
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


def test_time_left_is_what_is_left_at_the_speed_so_far(clock, capsys):
    shown = Progress(1000)
    clock.now += 10
    shown.advance(100, "a", keep=True)  # 100 in 10 s, 900 left
    clock.now += 10
    shown.advance(300, "b", keep=True)  # 400 in 20 s, 600 left
    clock.now += 30
    shown.advance(600, "c", keep=True)
    assert capsys.readouterr().out == "a · 1 min 30 s left\nb · 30 s left\nc · 0 s left\n"


def test_skipped_images_count_neither_as_done_nor_as_left(clock, capsys):
    shown = Progress(1000)
    shown.skip(500)
    clock.now += 10
    shown.advance(100, "a", keep=True)
    assert capsys.readouterr().out == "a · 40 s left\n"


def test_a_log_gets_kept_lines_and_otherwise_two_a_minute(clock, capsys):
    shown = Progress(10_000)
    for second in range(1, 101):
        clock.now += 1
        shown.advance(100, f"at {second}", keep=second == 35)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["at 30", "at 35", "at 65", "at 95"]
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_passing_lines_replace_each_other(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = Progress(300)
    for text, keep in (("a", False), ("b", False), ("c", True)):
        clock.now += 10
        shown.advance(100, text, keep=keep)
    shown.say("end")
    clear = "\r\x1b[K"
    assert capsys.readouterr().out == (f"{clear}a · 20 s left{clear}b · 10 s left{clear}c · 0 s left\n{clear}end\n")


def test_nothing_done_yet_is_no_error(clock, capsys):
    shown = Progress(100)
    clock.now += 1
    shown.advance(0, "a", keep=True)
    assert capsys.readouterr().out.startswith("a · ")
