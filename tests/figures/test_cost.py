import numpy as np
import pytest

from capsnet_jax.figures import error_by_cost
from capsnet_jax.statistics import mean_interval
from tests.figures.synthetic import fake_record

# Model → parameters, FLOPs, errors of its seeds.
NETS = {
    "capsnet_small": (1_100_000, 16_000_000, [0.5, 0.6, 0.55]),
    "twin": (1_100_000, 16_100_000, [0.7, 0.8, 0.7]),
    "resnet8": (75_000, 18_000_000, [0.9, 1.0, 0.8]),
    "resnet56": (850_000, 192_000_000, [0.4, 0.45, 0.5]),
}


def records(nets=NETS, **settings):
    found = []
    for name, (parameters, flops, errors) in nets.items():
        for seed, error in enumerate(errors):
            found.append(fake_record(seed, model__name=name, test_error=error, **settings))
            found[-1].result |= {"parameters": parameters, "flops": flops}
    return found


def marks(axes):
    """{name: (where its mark is, its bar's ends)}."""
    drawn = {}
    for container in axes.containers:
        [point] = container.lines[0].get_xydata()
        ends = [segment[:, 1].tolist() for line in container.lines[2] for segment in line.get_segments()]
        drawn[container.get_label()] = point.tolist(), *ends
    return drawn


def test_means_and_intervals_stand_over_millions_of_parameters_and_of_flops():
    figure = error_by_cost(records(), ["model.name"], level=0.9)
    panels = figure.axes
    assert [axes.get_xlabel() for axes in panels] == ["parameters [millions]", "computing for one image [MFLOP]"]
    assert [axes.get_xscale() for axes in panels] == ["log", "log"]
    assert panels[0].get_ylabel() == "test error [%]"
    for axes, index in zip(panels, (0, 1), strict=True):
        drawn = marks(axes)
        assert list(drawn) == list(NETS)
        for name, (point, ends) in drawn.items():
            expected = mean_interval(NETS[name][2], 0.9)
            assert point == pytest.approx([NETS[name][index] / 1e6, expected.mean])
            assert ends == pytest.approx([expected.mean - expected.half_width, expected.mean + expected.half_width])


def test_every_mark_stands_at_its_cost_and_none_hides_another():
    figure = error_by_cost(records(), ["model.name"])
    for axes, index in zip(figure.axes, (0, 1), strict=True):
        for name, container in zip(NETS, axes.containers, strict=True):
            [mark], *_ = container.lines[0].get_xydata(), container
            at = container.lines[0].get_transform().transform(mark)
            true = axes.transData.transform((NETS[name][index] / 1e6, np.mean(NETS[name][2])))
            np.testing.assert_allclose(at, true)
            assert container.lines[0].get_markerfacecolor() == "none"
        caps = [container.lines[1][0].get_markersize() for container in axes.containers]
        assert len(set(caps)) == len(NETS)
    low, high = figure.axes[0].get_ylim()
    assert low < min(min(ends) for _, ends in marks(figure.axes[0]).values())
    assert high > max(max(ends) for _, ends in marks(figure.axes[0]).values())
    assert "moved" not in figure.get_supxlabel()


def test_every_network_has_its_mark_and_colour_in_every_panel():
    both = records() + records(dict(list(NETS.items())[1:]), data__dataset="fashion_mnist")
    figure = error_by_cost(both, ["model.name"])
    assert [axes.get_title() for axes in figure.axes] == ["MNIST", "MNIST", "Fashion-MNIST", "Fashion-MNIST"]
    looks: dict[str, set] = {}
    for axes in figure.axes:
        for container in axes.containers:
            line = container.lines[0]
            looks.setdefault(container.get_label(), set()).add((line.get_color(), line.get_marker()))
    assert list(looks) == list(NETS)
    assert all(len(look) == 1 for look in looks.values())
    assert len(set.union(*looks.values())) == 4
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(NETS)


def test_what_a_reader_of_the_marks_must_know():
    found = records()
    found[0].result["test_error"] = np.nan
    text = error_by_cost(found, ["model.name"]).get_supxlabel().replace("\n", " ")
    assert "mean of n = 2 to 3 seeds" in text
    assert "95% Student t interval" in text
    assert "1 of 12 runs left out: no finite value" in text
    alone = error_by_cost(found[1:2], ["model.name"])
    assert "one seed has no interval, so no bar" in alone.get_supxlabel()


def test_a_network_without_a_cost_has_no_mark_there():
    found = records()
    del found[0].result["flops"]
    parameters, computing = error_by_cost(found, ["model.name"]).axes
    assert (len(parameters.containers), len(computing.containers)) == (4, 3)
    parameters, computing = error_by_cost(found[:1], ["model.name"]).axes
    assert [text.get_text() for text in computing.texts] == ["no run has both an error and this cost"]
    assert not parameters.texts
    with pytest.raises(ValueError, match="no record has the result 'top5'"):
        error_by_cost(found, ["model.name"], quantity="top5")
    with pytest.raises(ValueError, match="no records to draw"):
        error_by_cost([], ["model.name"])


@pytest.mark.parametrize("spread", [1.0, 1.001, 1.1, 2, 30])
def test_an_axis_of_costs_has_labels_however_near_they_are(spread):
    nets = {name: (1e6 * spread**i, 1e6, [0.5]) for i, name in enumerate(("a", "b"))}
    figure = error_by_cost(records(nets), ["model.name"])
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert low < min(point[0] for point, *_ in marks(axes).values())
        assert high > max(point[0] for point, *_ in marks(axes).values())
        assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 2
