from types import SimpleNamespace

import numpy as np
import pytest

from capsnet_jax.overrides import build
from experiments import routing_diagnostics
from experiments.routing_diagnostics import couplings_over_image, through_training
from tests.figures.synthetic import fake_record, probed


def records(iterations=(1, 2, 3), datasets=("mnist",), seeds=3):
    return [
        probed(fake_record(seed, 6, routing__iterations=r, data__dataset=dataset))
        for dataset in datasets
        for r in iterations
        for seed in range(seeds)
    ]


def curves(axes):
    return {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in axes.lines}


def test_every_quantity_through_training():
    figure = through_training(records(), ["routing.iterations"])
    panels = np.array(figure.axes).reshape(3, 5)
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["r = 1", "r = 2", "r = 3"]
    entropy, agreement, flips, error, dead = panels[1]
    np.testing.assert_allclose(curves(dead)["all iterations"][1], 25.0)
    assert list(curves(entropy)) == list(curves(error)) == [f"iteration {t}" for t in (1, 2, 3, 4)]
    assert list(curves(agreement)) == [f"iteration {t}" for t in (1, 2, 3)]  # the last one's is not seen
    assert list(curves(flips)) == [f"iteration {t}" for t in (2, 3, 4)]
    np.testing.assert_allclose(curves(entropy)["iteration 3"][1], 1 - 0.2 * np.linspace(0.3, 1, 6))
    np.testing.assert_allclose(curves(flips)["iteration 2"][1], [5.5 * np.exp(-2 - e / 10) for e in range(6)])


def test_several_data_sets_are_several_figures():
    found = records(datasets=("mnist", "fashion_mnist"))
    with pytest.raises(ValueError, match="one figure shows one data set; these are of mnist, fashion_mnist"):
        through_training(found, ["routing.iterations"])


def pictures(axes):
    return [np.asarray(image.get_array()) for image in axes.images]


def test_lengths_and_names_must_fit():
    with pytest.raises(ValueError, match=r"need lengths \[2, 5\] and 5 names, got \(2, 4\) and 5"):
        couplings_over_image(
            *(np.zeros((9, 9, 1)), np.zeros((2, 3, 3, 5)), np.zeros((2, 4))),
            receptive=(2, 5),
            label_names=list("abcde"),
            true_class=0,
        )


def test_the_longest_classes_shares_lie_at_the_centres_of_their_receptive_fields():
    shares = np.random.default_rng(0).uniform(size=(2, 6, 6, 5))
    lengths = np.array([[0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.1, 0.9, 0.2, 0.7]])
    image = np.zeros((28, 28, 1))
    figure = couplings_over_image(
        image, shares, lengths, receptive=(2, 17), label_names=list("abcde"), true_class=4, note="MNIST"
    )
    *axes, bar = figure.axes
    panels = np.array(axes).reshape(2, 4)
    assert bar.get_ylabel() == "length of a position's\ncoupled votes, Σ |c û|"
    assert {axes.images[1].get_clim() for axes in panels[:, 1:].flat} == {(0, shares[..., [2, 4, 0]].max())}
    assert figure.get_supxlabel().startswith("MNIST; ")
    assert panels[0, 0].get_title() == "true class: e"
    assert [axes.title.get_fontweight() for axes in panels[1, 1:]] == ["normal", "bold", "normal"]
    assert [axes.get_title() for axes in panels[1, 1:]] == ["c: 0.90", "e: 0.70", "a: 0.50"]
    assert [axes.get_title() for axes in panels[0, 1:]] == ["c: 0.30", "e: 0.50", "a: 0.10"]
    for t in range(2):
        for axes, k in zip(panels[t, 1:], (2, 4, 0), strict=True):
            np.testing.assert_array_equal(pictures(axes)[1], shares[t, :, :, k])
            # Two 9×9 kernels, the second with stride 2: the first position sees pixels 0 to 16, its centre is 8.
            left, right, bottom, top = axes.images[1].get_extent()
            assert (left + 1, top + 1) == (8, 8)
            assert (right - 1, bottom - 1) == (18, 18)


def test_settings_that_were_not_recorded_are_named(monkeypatch):
    uniform = [fake_record(seed, 6, routing__name="uniform") for seed in range(2)]
    figure = through_training([*records((1,), seeds=2), *uniform], ["routing.name", "routing.iterations"])
    assert len(figure.axes) == 5
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "without a row, as nothing iterates or was recorded: uniform routing" in caption
    monkeypatch.setattr(routing_diagnostics, "load_observation", lambda record, name: None)
    assert routing_diagnostics.figures(uniform) == {}


def test_a_line_of_zeros_is_seen():
    found = records((1,))
    for record in found:
        record.metrics["validation_dead_capsules"] = np.zeros(6)
    *_, dead = through_training(found, ["routing.iterations"]).axes
    assert dead.get_ylim() == (-0.05, 1.0)


def test_what_it_requires():
    held_out, nothing = (SimpleNamespace(validation=SimpleNamespace(labels=range(n))) for n in (3, 0))
    requires, capsnet = routing_diagnostics.requires, build({})
    assert requires(capsnet, held_out) is None
    assert "raise data.validation_fraction" in requires(capsnet, nothing)
    assert "cnn_small does not route; use --set model.name=capsnet_small" in requires(
        build({"model.name": "cnn_small"}), held_out
    )
