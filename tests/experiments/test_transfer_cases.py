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
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], ["no runs"], ["no runs"], []]


def test_what_is_missing_or_not_finite_is_left_out():
    found = [r for r in records(2) if r.settings[TRANSFORM] == "none" and r.settings[SIZE] == 100]
    found[0].result["test_error"] = math.nan
    figure = transfer_grid(found[:4], transfer_cases.STRATEGIES, {})
    [axes] = figure.axes
    np.testing.assert_allclose([c.lines[0].get_xdata()[0] for c in axes.containers], [5.0, 1.95])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["from scratch", "fine-tune all"]
    with pytest.raises(ValueError, match="no records to draw"):
        transfer_grid([], transfer_cases.STRATEGIES, {})
    found[1].result["test_error"] = math.nan
    [axes] = transfer_grid(found[:2], transfer_cases.STRATEGIES, {}).axes
    assert [text.get_text() for text in axes.texts] == ["no finite result"]


def swept(changes):
    """One seed of every arm with other settings in it, each arm once."""
    arms = [arm | changes for arm in SWEEP]
    for arm in arms:
        if arm["finetune.source"] == "none":
            arm.pop("finetune.lr_multiplier", None)
    arms = [arm for number, arm in enumerate(arms) if arm not in arms[:number]]
    return [fake_record(0, 2, 1.0, 3.0, **{p.replace(".", "__"): v for p, v in arm.items()}) for arm in arms]


def test_settings_that_are_no_strategy_have_rows_of_their_own():
    """As with --set train.frozen=conv1+conv3."""
    [figure] = transfer_cases.figures(swept({"train.frozen": "conv1+conv3"})).values()
    rows = [tick.get_text().replace("\n", " ") for tick in figure.axes[0].get_yticklabels()]
    assert rows == [
        "frozen conv1+conv3",
        *(f"source mnist, frozen conv1+conv3, lr multiplier = {m}" for m in (0.1, 1.0)),
    ]
    assert [len(axes.containers) for axes in figure.axes] == [3] * 9
    assert "ring" not in figure.get_supxlabel()


def test_what_else_was_varied_is_a_figure_for_each_value():
    drawn = transfer_cases.figures([*swept({"model.name": "cnn_small"}), *swept({"model.name": "resnet8"})])
    assert list(drawn) == ["transfer_grid-cnn_small", "transfer_grid-resnet8"]
    assert [figure.get_supxlabel().split(";")[0] for figure in drawn.values()] == ["cnn_small", "resnet8"]
    assert [len(axes.containers) for figure in drawn.values() for axes in figure.axes] == [4] * 18
    # From scratch nothing starts anew, so its runs lack the setting and stand beside every value of it.
    anew = [r for r in swept({"finetune.reinitialize": "none"}) if r.settings["finetune.source"] != "none"]
    named = [r for r in swept({"finetune.reinitialize": "head"}) if r.settings["finetune.source"] != "none"]
    scratch = [r for r in swept({}) if r.settings["finetune.source"] == "none"]
    drawn = transfer_cases.figures([*scratch, *anew, *named])
    assert list(drawn) == ["transfer_grid-reinitializenone", "transfer_grid-reinitializehead"]
    assert [len(axes.containers) for figure in drawn.values() for axes in figure.axes] == [4] * 18


def test_with_one_size_nothing_is_advised_and_all_images_are_the_most():
    [figure] = transfer_cases.figures(swept({SIZE: 100, "train.epochs": 1})).values()
    assert "ring" not in figure.get_supxlabel()
    [figure] = transfer_cases.figures(
        [*swept({SIZE: 0, "train.epochs": 1}), *swept({SIZE: 100, "train.epochs": 1})]
    ).values()
    assert [axes.get_title().split("\n")[1] for axes in figure.axes[:2]] == ["100 images", "all images"]
