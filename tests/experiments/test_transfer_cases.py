import math

import numpy as np
import pytest

from experiments import transfer_cases
from experiments.transfer_cases import SIZE, SWEEP, TRANSFORM, transfer_grid
from tests.figures.synthetic import fake_record

ERRORS = {"from scratch": 5.0, "fine-tune all": 2.0, "freeze the first two": 3.0, "output layer alone": 9.0}


def records(seeds=3):
    """For every target and size the same errors, spread by seed, so that fine-tuning everything is the best."""
    found = []
    for number, settings in enumerate(SWEEP):
        name = list(transfer_cases.STRATEGIES)[number % 4]
        named = {path.replace(".", "__"): value for path, value in settings.items()}
        found += [fake_record(seed, 2, 1.0, ERRORS[name] + 0.1 * (seed - 1), **named) for seed in range(seeds)]
    return found


def test_every_target_and_size_has_a_panel_and_every_strategy_a_row():
    [figure] = transfer_cases.figures(records()).values()
    assert len(figure.axes) == 9
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[0] == "MNIST, rotated\n100 images"
    assert titles[-1] == "Fashion-MNIST\n10,000 images"
    for axes in figure.axes:
        assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(ERRORS)
        for row, (error, container) in enumerate(zip(ERRORS.values(), axes.containers, strict=True)):
            np.testing.assert_allclose(container.lines[0].get_xydata(), [[error, row]])
            # -0.1, 0, 0.1: standard deviation 0.1, t(0.975; 2) = 4.30265
            [bar] = container.lines[2][0].get_segments()
            np.testing.assert_allclose(bar[:, 0], [error - 0.248414, error + 0.248414], atol=1e-5)
        [least] = axes.patches
        assert (least.get_y(), least.get_height()) == (0.5, 1.0)
    assert "n = 3 seeds" in figure.get_supxlabel()


def test_the_advice_of_the_slides_is_ringed_at_the_least_and_the_greatest_size():
    [figure] = transfer_cases.figures(records(1)).values()
    rings = [[int(line.get_ydata()[0]) for line in axes.lines if line.get_mfc() == "none"] for axes in figure.axes]
    alike, unlike = [[3], [], [1]], [[2], [], [0]]
    assert rings == alike + alike + unlike
    assert "one seed has no interval" in figure.get_supxlabel()


def test_where_nothing_has_run_yet_the_panel_is_empty():
    *found, last = records(1)[:5]  # one target's four strategies with the fewest images, and one with more
    last.settings[TRANSFORM] = "inverted"
    figure = transfer_grid([*found, last], transfer_cases.STRATEGIES, {})
    assert [len(axes.containers) for axes in figure.axes] == [4, 0, 0, 1]


def test_what_is_missing_or_not_finite_is_left_out():
    found = [r for r in records(2) if r.settings[TRANSFORM] == "none" and r.settings[SIZE] == 100]
    found[0].result["test_error"] = math.nan
    figure = transfer_grid(found[:4], transfer_cases.STRATEGIES, {})
    [axes] = figure.axes
    np.testing.assert_allclose([c.lines[0].get_xdata()[0] for c in axes.containers], [5.0, 1.95])
    with pytest.raises(ValueError, match="no records to draw"):
        transfer_grid([], transfer_cases.STRATEGIES, {})
