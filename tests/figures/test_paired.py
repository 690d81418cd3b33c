import math

import numpy as np
import pytest

from capsnet_jax.figures import compare_arms
from tests.figures.synthetic import fake_record


def arm(r, errors, dataset="mnist"):
    return [fake_record(seed, 2, 1.0, e, routing__iterations=r, data__dataset=dataset) for seed, e in errors.items()]


def test_differences_are_of_the_same_seed():
    first, third, fifth = {0: 1.0, 1: 2.0, 2: 4.0}, {2: 3.5, 1: 1.0}, {9: 1.0}
    figure = compare_arms([*arm(1, first), *arm(3, third), *arm(5, fifth)], ["routing.iterations"])
    [axes] = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["r = 3"]  # no seed of the other is the first's
    dots = axes.lines[0]
    np.testing.assert_allclose(sorted(dots.get_xdata()), [-1.0, -0.5])
    # Differences -1 and -0.5: mean -0.75, t(0.975; 1) = 12.7062, so ± 3.18.
    assert axes.texts[0].get_text() == "−0.75 ± 3.18\n(p = 0.2, n = 2)"
    assert axes.get_xlabel() == "test error [%], less that of: r = 1"
    assert "1 runs without a partner of the same seed" in figure.get_supxlabel().replace("\n", " ")


def test_a_panel_for_each_data_set():
    records = arm(1, {0: 1.0}) + arm(3, {0: 2.0}) + arm(1, {0: 9.0}, "kmnist") + arm(3, {0: 8.5}, "kmnist")
    figure = compare_arms(records, ["routing.iterations"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST", "KMNIST"]
    assert "one seed has no interval" in figure.get_supxlabel()
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["+1.00 (n = 1)", "−0.50 (n = 1)"]


def test_every_panel_is_against_the_same_arm_and_what_is_not_finite_is_left_out():
    records = arm(1, {0: 1.0, 1: 2.0}) + arm(3, {0: 2.0, 1: math.nan}) + arm(3, {0: 9.0}, "kmnist")
    records += arm(5, {0: 8.5}, "kmnist")
    figure = compare_arms(records, ["routing.iterations"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST"]  # the other has no r = 1
    assert figure.axes[0].texts[0].get_text() == "+1.00 (n = 1)"
    assert "3 runs without a partner" in figure.get_supxlabel().replace("\n", " ")


def test_the_arm_to_compare_with_can_be_named():
    records = arm(1, {0: 1.0}) + arm(3, {0: 3.0}) + arm(5, {0: 4.0})
    [axes] = compare_arms(records, ["routing.iterations"], reference={"routing.iterations": 3, "other": 0}).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["r = 1", "r = 5"]
    assert [text.get_text() for text in axes.texts] == ["−2.00 (n = 1)", "+1.00 (n = 1)"]
    assert axes.get_xlabel() == "test error [%], less that of: r = 3"
    [axes] = compare_arms(records, ["routing.iterations"], reference={"routing.iterations": 9}).axes
    assert axes.get_xlabel() == "test error [%], less that of: r = 1"


def test_no_seed_is_shared():
    with pytest.raises(ValueError, match="no arm shares a seed with r = 1"):
        compare_arms(arm(1, {0: 1.0}) + arm(3, {1: 1.0}), ["routing.iterations"])
