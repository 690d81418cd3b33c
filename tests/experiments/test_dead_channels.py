from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from capsnet_jax.config import Eval
from capsnet_jax.report.tables import write_csv
from experiments import dead_channels
from experiments.cli.asked import resolve_flags
from tests.figures.synthetic import fake_record

NETS = [
    {"model__name": "capsnet_small", "routing__iterations": r, "routing__squash": squash, "model__squash": squash}
    for r, squash in ((1, "sabour"), (3, "sabour"), (3, "exponential"))
]
CNN = {"model__name": "cnn_small"}
PARTS = {"capsnet_small": ("channels_conv1", "primary_capsules", "class_capsules"), "cnn_small": ("channels_conv1",)}


def observed(seed, rate, dead, **settings):
    """A run whose dead percentages grow to `dead`; half as many are nearly dead or starve."""
    record = fake_record(seed, 4, train__learning_rate=rate, **settings)
    for part in PARTS[settings["model__name"]]:
        for word, share in (("dead", 1.0), ("near_dead" if "channels" in part else "starved", 0.5)):
            value = 0.0 if part == "class_capsules" else share * dead
            record.metrics[f"validation_{word}_{part}"] = value * np.arange(1, 5) / 4
            record.result[f"test_{word}_{part}"] = value
    record.result["diverged_step"] = -1
    return record


def records(rates=(0.001, 0.01), nets=(*NETS, CNN)):
    return [observed(seed, rate, 1000 * rate + seed, **net) for net in nets for rate in rates for seed in range(3)]


def test_both_squashes_are_swept_together_and_dead_is_observed():
    options = SimpleNamespace(preset="small", dataset="mnist", set=[], sweep=[], baseline=[])
    asked = resolve_flags(dead_channels, options)
    assert asked.observed == Eval(dead=True)
    nets = [config for config in asked.configs if config.model.name == "capsnet_small"]
    assert (len(nets), len(asked.configs)) == (9, 12)
    assert {(net.routing.settings.iterations, net.routing.settings.squash) for net in nets} == {
        (1, "sabour"),
        (3, "sabour"),
        (3, "exponential"),
    }
    assert all(net.model.settings.squash == net.routing.settings.squash for net in nets)


@cache
def drawn():
    return dead_channels.figures(records(nets=NETS))


def test_a_row_a_setting_a_column_a_part_a_line_a_rate():
    assert list(drawn()) == ["through_training-mnist-capsnet_small", "against_rate-mnist-capsnet_small"]
    panels = np.array(drawn()["through_training-mnist-capsnet_small"].axes).reshape(3, 4)
    titles = [axes.get_title().replace("\n", " ") for axes in panels[0]]
    assert titles == ["conv1 [%]", "primary capsules [%]", "class capsules [%]", "validation error [%]"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == [
        "r = 1, squash sabour",
        "r = 3, squash sabour",
        "r = 3, squash exponential",
    ]
    solid, dotted = ([line for line in panels[1, 1].lines if line.get_linestyle() == dash] for dash in ("-", ":"))
    np.testing.assert_allclose(solid[1].get_ydata(), 11 * np.arange(1, 5) / 4)  # mean of 10, 11 and 12
    np.testing.assert_allclose(dotted[1].get_ydata(), 5.5 * np.arange(1, 5) / 4)
    assert solid[1].get_label() == "learning rate 0.01"
    assert panels[0, 2].get_ylim()[0] < 0  # a line of zeros is seen


def test_what_is_nowhere_has_no_panel_against_the_rate_and_is_said():
    figure = drawn()["against_rate-mnist-capsnet_small"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "dead: conv1 [%]",
        "dead: primary capsules [%]",
        "nearly dead: conv1 [%]",
        "starved: primary capsules [%]",
        "test error [%]",
    ]
    caption = figure.get_supxlabel().replace("\n", " ")
    assert "0 % in every run: dead: class capsules; starved: class capsules" in caption
    means = [container.lines[0].get_ydata()[0] for container in figure.axes[0].containers]
    assert means == pytest.approx([2, 11] * 3)


def test_the_table_and_the_csv_file(tmp_path):
    found = records(nets=[NETS[0], CNN])
    broken = observed(3, 0.01, 50, **NETS[0])
    broken.result = dict.fromkeys(broken.result, np.nan) | {"diverged_step": 7}
    found.append(broken)
    rows = dead_channels.observed_rows(found)
    assert len(rows) == 7 * 3 + 6
    capsnet, cnn = dead_channels.observed_tables(rows)
    row = dict(zip(capsnet.header, capsnet.rows[1], strict=True))
    assert row["learning rate"] == "0.01"
    assert row["dead: conv1 %"] == "11.0 ± 2.5"  # t of 2 degrees of freedom, 4.30, times 1/√3
    assert row["starved: primary capsules %"] == "5.5 ± 1.2"
    assert row["dead: class capsules %"] == "0.0 ± 0.0"
    assert row["n"] == "3 of 4"
    assert [line[0] for line in cnn.rows] == ["cnn_small"] * 2
    write_csv(tmp_path / "it.csv", found, ["train.learning_rate"])
    header = (tmp_path / "it.csv").read_text().split("\n")[0].split(",")
    assert {"test_dead_channels_conv1", "test_starved_primary_capsules"} <= set(header)


def test_runs_that_were_not_observed_draw_nothing():
    assert dead_channels.figures([fake_record(0, 4, train__learning_rate=0.1, **CNN)]) == {}


def test_a_data_set_without_validation_images_is_told():
    data = SimpleNamespace(validation=SimpleNamespace(labels=np.zeros(0)))
    assert "raise data.validation_fraction" in dead_channels.requires(None, data)
