import csv

import numpy as np
import pytest
from scipy import stats

from capsnet_jax.report import pages
from capsnet_jax.report.render import to_markdown
from experiments import map_faithfulness
from tests.figures.synthetic import fake_record

METHODS = ["gradient", "grad-cam conv1", "grad-cam primary", "couplings 3", "couplings 3 − uniform", "edges", "random"]
LEVELS = {"capsnet_small": (10, 14, 12, 20, 22, 18, 30), "cnn_small": (15, 20, 16, 0, 0, 17, 40)}


def observation(record, name="map_faithfulness"):
    """One run: the first method's area is the least, and seeds differ by a few tenths."""
    model = record.settings["model.name"]
    kept = [i for i, level in enumerate(LEVELS[model]) if level]
    noise = np.random.default_rng([record.seed, len(model)]).normal(0, 0.3, (2, 7))[:, kept]
    level = np.array(LEVELS[model], float)[kept]
    points = np.linspace(1, 0, 17)
    absolute = np.array([[0.5, 0.4], [0.2, 0.1], [0.2, 0.1], [0.1, 0], [0.1, 0], [1, 1], [np.nan, np.nan]])[kept]
    return {
        "methods": np.array(METHODS)[kept],
        "fractions": 1 - points,
        "deletion": np.outer(level, points),
        "insertion": np.outer(60 - level, 1 - points),
        "deletion_area": level + noise[0],
        "insertion_area": 60 - level + noise[1],
        "layers": np.array(["class_capsules", "conv1"]),
        "absolute": absolute,
        "signed": absolute / 2,
        "maps": np.random.default_rng(0).integers(-127, 128, (len(kept), 28, 28)).astype(np.int8),
        "image": np.zeros((28, 28, 1), np.uint8),
        "class": np.array("7"),
    }


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setattr(map_faithfulness, "load_observation", observation)
    return [fake_record(seed=seed, model__name=name) for name in LEVELS for seed in range(3)]


def test_every_run_and_method_is_a_row(found, tmp_path):
    tables = pages.observed_tables(tmp_path, "map_faithfulness", map_faithfulness, found)
    with (tmp_path / "map_faithfulness-observed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (7 + 5)
    assert list(rows[0])[:4] == ["dataset", "preset", "seed", "epochs"]
    values = {(r["network"], r["method"], r["seed"]): r for r in rows}
    of_run, run = observation(found[1]), values["capsnet_small", "couplings 3", "1"]
    assert float(run["deletion_area"]) == pytest.approx(of_run["deletion_area"][3], rel=1e-5)
    difference = of_run["insertion_area"][3] - of_run["insertion_area"][6]
    assert float(run["insertion_area_less_random"]) == pytest.approx(difference, rel=1e-4)
    assert (run["similarity_last"], run["similarity_all"], run["signed_similarity_last"]) == ("0.1", "0", "0.05")
    assert values["capsnet_small", "random", "0"]["similarity_last"] == ""
    assert float(run["test_error"]) == pytest.approx(found[1].result["test_error"], rel=1e-5)

    # Means, and the tests against random, from the rows alone.
    table = tables[0]
    assert table.title == "MNIST, capsnet_small"
    assert [row[0] for row in table.rows] == [METHODS[i] for i in np.argsort(LEVELS["capsnet_small"])]
    row = next(row for row in table.rows if row[0] == "couplings 3")
    areas = {m: [float(values["capsnet_small", m, str(s)]["deletion_area"]) for s in range(3)] for m in METHODS}
    assert row[1].split(" ")[0] == f"{np.mean(areas['couplings 3']):.1f}"
    p_value = stats.ttest_rel(areas["couplings 3"], areas["random"]).pvalue
    assert p_value <= float(row[3]) <= 12 * p_value * 1.05  # twelve comparisons, by Holm
    assert table.rows[-1] == ["random", table.rows[-1][1], "", "", table.rows[-1][4], "", "", "", ""]
    assert "Similarity: rank correlation" in to_markdown(tables[-1])


def test_areas_curves_cascades_and_an_example_are_drawn(found):
    drawn = map_faithfulness.figures(found)
    assert list(drawn) == [
        "areas-mnist-capsnet_small",
        "areas-mnist-cnn_small",
        "curves-mnist",
        "cascade-mnist",
        "examples-mnist-capsnet_small",
        "examples-mnist-cnn_small",
    ]
    deletion, _, similarity = drawn["areas-mnist-capsnet_small"].axes
    names = [text.get_text() for text in deletion.get_yticklabels()]
    assert names == [METHODS[i] for i in np.argsort(LEVELS["capsnet_small"])]
    assert deletion.lines[-1].get_xdata()[0] == pytest.approx(
        np.mean([observation(r)["deletion_area"][6] for r in found[:3]])
    )
    assert similarity.lines[-1].get_xdata()[0] == 0

    panels = np.array(drawn["curves-mnist"].axes).reshape(2, 2)
    lines = {line.get_label(): line for line in panels[0, 0].lines}
    assert list(lines) == ["random", "edges", "gradient", "grad-cam", "couplings 3"]
    np.testing.assert_allclose(lines["grad-cam"].get_ydata()[0], 12)  # of the last layer
    np.testing.assert_allclose(lines["couplings 3"].get_ydata()[0], 20)
    assert lines["random"].get_xdata()[-1] == 100
    assert "couplings 3" not in {line.get_label() for line in panels[1, 0].lines}

    capsules, _ = drawn["cascade-mnist"].axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in capsules.lines}
    assert lines["gradient"] == pytest.approx([1, 0.5, 0.4])
    assert "random" not in lines
    assert [text.get_text() for text in capsules.get_xticklabels()] == ["trained", "+ class_capsules", "+ conv1"]
    assert "maps of the class 7" in drawn["examples-mnist-cnn_small"].get_supxlabel()


def test_what_was_not_observed_is_left_out(monkeypatch):
    monkeypatch.setattr(map_faithfulness, "load_observation", lambda record, name: None)
    records = [fake_record(model__name="cnn_small")]
    assert map_faithfulness.observed_rows(records) == []
    assert map_faithfulness.figures(records) == {}
