import numpy as np
import pytest

from capsnet_jax.figures import throughput_by_subject, throughput_scaling
from tests.bench import rows
from tests.bench.rows import frame


def panels(figure):
    return {axes.get_xlabel().split("\n")[0]: axes for axes in figure.axes}


def lines(axes):
    """(x, y) of every line and every row of dots; the caps of error bars left out."""
    found = [line for line in axes.get_lines() if line.get_marker() not in ("_", "|")]
    return [(np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)) for line in found]


def test_every_subject_has_its_line_its_rounds_and_its_ratio():
    found = rows.comparison()
    drawn = panels(throughput_by_subject(frame(found)))
    training = drawn["training [images / s]"]
    names = [label.get_text() for label in training.get_yticklabels()]
    assert names == ["capsnet_jax", "PyTorch, compiled", "PyTorch, eager", "plain JAX"]
    for line, subject in enumerate(("capsnet_jax", "pytorch_compiled", "pytorch", "plain_jax")):
        own = [
            r["value"] for r in found if (r["subject"], r["quantity"], r["preset"]) == (subject, "training", "paper")
        ]
        at = [x for x, y in lines(training) if np.all(y == line)]
        assert any(x.tolist() == own for x in at)
        assert any(x.tolist() == [min(own), max(own)] for x in at)
        assert any(x.tolist() == [np.median(own)] for x in at)
    assert [text.get_text() for text in training.texts] == ["242", "51.5 (4.7×)", "48.5 (5×)", "4.12 (59×)"]
    assert set(drawn) == {
        "training [images / s]",
        "inference [images / s]",
        "peak memory [MB]",
        "compiling the training step [s]",
    }


def test_a_quantity_or_a_subject_that_was_not_measured_is_not_drawn():
    found = [
        row for row in rows.comparison() if row["quantity"] == "inference" and not row["subject"].startswith("pytorch")
    ]
    figure = throughput_by_subject(frame(found))
    assert list(panels(figure)) == ["inference [images / s]"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["capsnet_jax", "plain JAX"]


def test_curves_go_through_the_medians():
    drawn = panels(throughput_scaling(frame(rows.curves())))
    assert set(drawn) == {
        *("routing iterations r", "batch [images]", "classes", "image side [pixels]", "runs in one program"),
        "devices",
    }
    curves = [(x.tolist(), y.tolist()) for x, y in lines(drawn["routing iterations r"])]
    for speed in (250, 50):
        assert ([1, 2, 3, 5, 7], [speed - 5 * r for r in (1, 2, 3, 5, 7)]) in curves
    both = [(x.tolist(), y[0]) for x, y in lines(drawn["runs in one program"]) if len(x) == 4]
    assert both.count(([1, 2, 5, 10], 2500.0)) == 2  # a single run is where both ways begin
    shared = [2400 * n**0.5 for n in (1, 2, 4)]
    curves = [(x.tolist(), y.tolist()) for x, y in lines(drawn["devices"])]
    for speeds in ([2400, 4800, 9600], shared):  # a run on each device, and one run on all
        assert ([1, 2, 4], pytest.approx(speeds)) in curves
    assert drawn["batch [images]"].get_xscale() == "log"
    assert drawn["routing iterations r"].get_xscale() == "linear"


def test_bars_reach_from_least_to_greatest():
    found = [rows.row(value=value, group="batch", batch=16, round=k) for k, value in enumerate((10.0, 30.0, 40.0))]
    found += [rows.row(value=50.0, group="batch", batch=32, round=k) for k in range(3)]
    [axes] = throughput_scaling(frame(found)).axes
    [bars] = [c for c in axes.collections if hasattr(c, "get_segments")]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[10.0, 40.0], [50.0, 50.0]]


def test_captions_tell_the_rounds():
    by_subject, scaling = throughput_by_subject(frame(rows.comparison())), throughput_scaling(frame(rows.curves()))
    first, second = (figure.get_supxlabel().replace("\n", " ") for figure in (by_subject, scaling))
    assert first.startswith("paper, here: batch 128, r = 3; subjects in turns, median of n = 2 to 3 rounds")
    assert second.startswith(
        "paper, here: batch 128, r = 3 but where it is the axis; subjects in turns, median of n = 2 "
    )


def test_nothing_to_draw():
    for draw, found in ((throughput_by_subject, rows.curves()), (throughput_scaling, rows.comparison())):
        for given in (found, []):
            with pytest.raises(ValueError, match="no measurement"):
                draw(frame(given))
