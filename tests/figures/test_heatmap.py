import numpy as np
import pytest

from capsnet_jax.figures import setting_heatmap, train_test_grid
from tests.figures.synthetic import fake_record, probed


def cells(axes):
    """{(row, column): text}."""
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}


def panels(figure):
    """The maps without their colour bars."""
    return [axes for axes in figure.axes if not hasattr(axes, "_colorbar")]


def colour_bars(figure):
    return [axes for axes in figure.axes if hasattr(axes, "_colorbar")]


def outlined(axes):
    return {(round(box.get_y() + 0.45), round(box.get_x() + 0.47)) for box in axes.patches}


def test_a_cell_is_the_mean_over_seeds_and_the_least_is_outlined():
    errors = {(0.1, 2.0): (1.0, 3.0), (0.1, 4.0): (5.0, 6.0), (0.2, 2.0): (1.5, 1.7)}
    records = [
        fake_record(seed, 2, 1.0, error, train__learning_rate=rate, routing__temperature=temperature)
        for (rate, temperature), seeds in errors.items()
        for seed, error in enumerate(seeds)
    ]
    figure = setting_heatmap(records, "routing.temperature", "train.learning_rate", quantity="test_error")
    [axes] = panels(figure)
    # Two seeds: the half width is 12.706 standard errors, which are half of their difference.
    assert cells(axes) == {
        (0, 0): "2.00\n[0.00, 14.71]",
        (0, 1): "5.50\n[0.00, 11.85]",
        (1, 0): "1.60\n±1.27",
        (1, 1): "–",
    }
    assert outlined(axes) == {(1, 0)}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "4"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0.1", "0.2"]
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "n = 2 seeds" in caption
    assert "intervals are cut at 0 and 100 %" in caption
    assert "–: no value" in caption
    # Colours are the values themselves, whose unit the colour bar tells.
    np.testing.assert_allclose(axes.images[0].get_array(), [[2.0, 5.5], [1.6, np.nan]])
    assert axes.images[0].get_clim() == (1.6, 5.5)
    [bar] = colour_bars(figure)
    assert bar.get_ylabel() == "test error [%]"


def test_trained_with_r_and_tested_with_other_iterations():
    records = [
        probed(fake_record(seed, 2, 1.0, r + seed, routing__iterations=r, data__dataset=dataset))
        for dataset in ("mnist", "fashion_mnist")
        for r in (1, 3, 7)
        for seed in (0, 1)
    ]
    figure = train_test_grid(records)
    assert [axes.get_title() for axes in panels(figure)] == ["MNIST", "Fashion-MNIST"]
    assert [bar.get_ylabel() for bar in colour_bars(figure)] == ["test error [%]"] * 2
    for axes in panels(figure):
        texts = cells(axes)
        for row, r in enumerate((1, 3, 7)):
            for t in (1, 2, 3, 4):
                worse = 1 + 0.1 * abs(t - r)
                mean, half = (r + 0.5) * worse, 12.7062 * 0.5 * worse
                interval = f"±{half:.2f}" if half < mean else f"[0.00, {mean + half:.2f}]"
                assert texts[row, t - 1] == f"{mean:.2f}\n{interval}"
        assert outlined(axes) == {(0, 0), (1, 2)}  # nobody was tested with seven


def test_nothing_was_observed():
    with pytest.raises(ValueError, match=r"eval\.max_routing_iterations=7"):
        train_test_grid([fake_record(routing__iterations=3)])


def test_what_is_not_finite_is_a_dash():
    records = [fake_record(0, 2, 1.0, error, train__a=a, train__b=1.0) for a, error in ((1.0, np.nan), (2.0, 3.0))]
    figure = setting_heatmap(records, "train.a", "train.b", quantity="test_error")
    assert cells(figure.axes[0]) == {(0, 0): "–", (0, 1): "3.00"}
    assert "n = 1 seed" in figure.get_supxlabel()
    assert "1 values left out" in figure.get_supxlabel().replace("\n", " ")


def test_runs_without_the_quantity_or_without_iterations_are_dashes_or_left_out():
    found = [probed(fake_record(0, 2, 1.0, 2.0, routing__iterations=r)) for r in (1, 3)]
    del found[0].result["test_error_at_2"]
    uniform = fake_record(0, 2, 1.0, 9.0, routing__name="uniform")
    figure = train_test_grid([*found, uniform])
    [axes] = panels(figure)
    assert cells(axes)[0, 1] == "–"
    assert cells(axes)[1, 2] == "2.00"
    assert len(axes.get_yticks()) == 2
    nothing = [fake_record(0, 2, 1.0, np.nan, train__a=a, train__b=1.0) for a in (1.0, 2.0)]
    figure = setting_heatmap(nothing, "train.a", "train.b", quantity="test_error")
    assert set(cells(figure.axes[0]).values()) == {"–"}
    assert not colour_bars(figure)
    with pytest.raises(ValueError, match="no record has the result 'validation_error'"):
        setting_heatmap(nothing, "train.a", "train.b")


def test_cells_too_narrow_for_a_text_have_their_colour_alone():
    found = [fake_record(0, 2, 1.0, 1.0, train__a=float(a), train__b=1.0) for a in range(13)]
    [axes] = panels(setting_heatmap(found, "train.a", "train.b", quantity="test_error"))
    assert not cells(axes)
    assert len(axes.get_xticks()) == 13
