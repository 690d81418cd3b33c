import pytest

from capsnet_jax.bench import ratios
from capsnet_jax.bench.ratios import Spread, fastest, ratio, spread
from tests.bench import rows


def test_spread_is_median_and_range():
    assert spread([3.0, 1.0, 7.0, 2.0]) == Spread(2.5, 1.0, 7.0, 4)
    assert str(spread([4.0, 5.0, 4.5])) == "4.5 (4 to 5, n = 3)"
    assert str(spread([4.0])) == "4 (n = 1)"


def test_ratios_are_of_one_round():
    """A machine that is half as fast in round 1 slows both, so the ratio does not see it."""
    assert ratio({0: 10.0, 1: 5.0}, {0: 2.0, 1: 1.0}) == Spread(5.0, 5.0, 5.0, 2)


def test_rounds_that_one_lacks_are_left_out():
    assert ratio({0: 10.0, 1: 12.0, 2: 99.0}, {0: 2.0, 1: 2.0}) == Spread(5.5, 5.0, 6.0, 2)
    assert ratio({0: 1.0}, {}) is None
    assert ratio({}, {0: 1.0}) is None


def test_the_fastest_is_taken_round_by_round():
    assert fastest([{0: 1.0, 1: 5.0}, {0: 2.0, 1: 4.0, 2: 3.0}]) == {0: 2.0, 1: 5.0, 2: 3.0}


def test_all_comparisons():
    found = ratios.ratios(rows.comparison() + rows.curves() + rows.seeds(), "paper")
    wanted = {
        "training speed / faster of PyTorch": (240 / 51, 3),
        "inference speed / faster of PyTorch": (240 / 51, 3),
        "training speed / plain JAX": (240 / 4.1, 2),
        "inference speed / plain JAX": (240 / 4.1, 2),
        "training memory / PyTorch eager": (1140 / 948, 1),
        "inference memory / PyTorch eager": (740 / 548, 1),
        "step time r = 3 / r = 1": (245 / 235, 2),
        "step time r = 7 / r = 1": (245 / 215, 2),
        "training speed small / paper": (3000 / 240, 3),
        "5 seeds of small alone / in one program, time": ((61 / 30 + 62 / 31) / 2, 2),
        "compile time, cold [s]": (6.0, 2),
        "compile time, warm [s]": (0.4, 1),
    }
    assert {name: (value.median, value.n) for name, value in found.items()} == {
        name: (pytest.approx(median), n) for name, (median, n) in wanted.items()
    }


def test_what_was_not_measured_is_left_out():
    without = [row for row in rows.comparison() if not row.subject.startswith("pytorch")]
    found = ratios.ratios(without, "paper")
    assert not [name for name in found if "PyTorch" in name or "r = " in name or "seeds" in name]
    assert "training speed / plain JAX" in found


def test_cases_do_not_mix():
    slow = [
        row._replace(value=row.value / 2) for row in rows.comparison("paper model.types=8") if row.unit == "images/s"
    ]
    both = rows.comparison() + slow
    assert ratios.ratios(both, "paper") == ratios.ratios(rows.comparison(), "paper")
    text = ratios.summary(both)
    assert text.index("paper\n") < text.index("paper model.types=8\n")


def test_the_summary_tells_medians_and_ratios():
    text = ratios.summary(rows.comparison())
    words = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("plain_jax", "pytorch,"))}
    assert words["plain_jax,"][2:] == ["4.12", "16.48", "904.1", "504.1", "6", "0.4"]
    assert words["pytorch,"][2:] == ["48.48", "193.9", "948", "548"]
    assert "training speed / plain JAX" in text
    assert "58.5 (58.5 to 58.5, n = 2)" in text
