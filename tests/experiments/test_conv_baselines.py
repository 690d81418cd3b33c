import csv
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from capsnet_jax import models, overrides
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.records import Record, Run
from experiments import conv_baselines, routing_iterations
from experiments.cli.asked import resolve_flags
from tests import tiny
from tests.figures.synthetic import fake_record


def configs(experiment=conv_baselines, *changes, dataset="mnist"):
    options = SimpleNamespace(preset="small", dataset=dataset, set=list(changes), sweep=[], baseline=[])
    return resolve_flags(experiment, options).configs


def record_of(config, seed=0, result=None, workdir=Path("nowhere")):
    metrics = {"epoch": np.array([1.0]), "train_error": np.array([3.0]), "validation_error": np.array([2.0])}
    name = Run(config, seed).name
    return Record(name, overrides.flatten(config), seed, metrics, {"diverged_step": -1} | (result or {}), workdir)


def fakes(**more):
    found = []
    for number, config in enumerate(configs()):
        for seed in range(2):
            record = fake_record(seed, 4, 0.5 + 0.1 * number)
            record.settings = overrides.flatten(config) | {path.replace("__", "."): v for path, v in more.items()}
            record.result |= {"parameters": 10**number, "flops": 2**number}
            found.append(record)
    return found


def test_its_capsnets_are_those_of_a_whole_routing_iterations():
    for changes in (["train.epochs=10"], ["data.max_shift=1", "train.epochs=12"]):
        three, one, *_ = configs(conv_baselines, *changes)
        assert {three, one} < set(configs(routing_iterations, *changes))


# At 28×28×1, 10 classes; the models' tests and README have the parameters.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "parameters", "computing"),
    [(2, 0.81, 1.03), (3, 0.85, 1.11), (4, 0.82, 0.96), (5, 0.07, 1.14), (6, 0.02, 1.0)],
)
def test_parameters_and_computing_relative_to_capsnets(arm, parameters, computing):
    config = configs()[arm]
    model = models.build(config, 10)
    params = jax.eval_shape(partial(models.init, model, jax.random.key(0), (28, 28, 1)))[0]
    assert round(models.count_parameters(params) / 1_112_208, 2) == parameters
    assert round(conv_baselines.count(record_of(config))["flops"] / 16_086_016, 2) == computing


def test_the_work_of_capsnet_by_hand():
    three, one, *_ = configs(conv_baselines, "data.label=label")
    convolutions = 2 * 20 * 20 * 81 * 32 + 2 * 6 * 6 * 81 * 32 * 64
    votes, iteration = 2 * 144 * 10 * 16 * 16, 2 * (2 * 144 * 10 * 16)
    decoder = 2 * (160 * 256 + 256 * 512 + 512 * 784)
    # The first iteration is a plain mean; what is observed between epochs is no part of the network.
    assert conv_baselines.count(record_of(one)) == {"flops": convolutions + votes + decoder}
    assert conv_baselines.count(record_of(three)) == {"flops": convolutions + votes + 2 * iteration + decoder}


def test_a_set_that_does_not_say_how_large_its_images_are_has_no_flops():
    assert conv_baselines.count(record_of(configs(dataset="oxford_flowers102")[2])) == {}


def test_a_run_of_another_version_has_no_flops_and_stands_in_the_table_all_the_same():
    record = record_of(configs()[2])
    record.settings["train.sharpness"] = 0.05
    assert conv_baselines.count(record) == {}
    record.settings["model.name"] = "gone"
    assert conv_baselines.count(record) == {}


def test_iterations_are_said_of_what_routes_and_rates_of_what_was_tried_at_several():
    drawn = conv_baselines.figures(fakes())
    assert list(drawn) == ["error_against_cost", "learning_curves"]
    names = [text.get_text() for text in drawn["error_against_cost"].legends[0].get_texts()]
    assert names == [
        "capsnet_small, r = 3",
        "capsnet_small, r = 1",
        "cnn_small",
        "resnet8_w56",
        "densenet22_k44",
        "resnet8",
        "densenet_bc22_k7",
    ]
    rates = [record for rate in (0.001, 0.01) for record in fakes(train__learning_rate=rate)[4:6]]
    names = conv_baselines.figures(rates)["error_against_cost"].legends[0].get_texts()
    assert [text.get_text() for text in names] == [
        "cnn_small, learning rate = 0.001",
        "cnn_small, learning rate = 0.01",
    ]


def test_the_table_has_what_is_counted(tmp_path, capsys):
    """From records of nothing but numbers: no network is trained, and no image looked at."""
    runs = [Run(config, seed) for config in configs()[:4] for seed in (0, 1)]
    records.note_experiment(
        tmp_path, "conv_baselines", runs, ["model.name", "routing.iterations", "train.learning_rate"]
    )
    finished = []
    for run in runs:
        result = {"test_error": 1.0 + run.seed, "parameters": 100_000 * len(run.config.model.name)}
        finished.append(record_of(run.config, run.seed, result | {"validation_error": 2.0, "images_per_second": 10.0}))
    records.append(finished, tmp_path)
    code, printed, error = tiny.call(capsys, "--experiment=conv_baselines", f"--workdir={tmp_path}", "--figures_only")
    assert (code, error) == (0, "")
    table = printed.split("\n\n")[0].strip().splitlines()
    assert {"parameters", "MFLOP/image"} <= set(table[0].split())
    megaflops = {"capsnet_small 3": "16.1", "capsnet_small 1": "15.9", "cnn_small": "16.5", "resnet8_w56": "17.9"}
    for words, (setting, wanted) in zip(map(str.split, table[2:6]), megaflops.items(), strict=True):
        assert " ".join(words).partition(setting)[1], words
        assert wanted in words
    assert "test error less that of model.name=capsnet_small routing.iterations=3" in printed
    with (tmp_path / "conv_baselines.csv").open() as file:
        counted = [float(row["flops"]) for row in csv.DictReader(file)]
    assert counted == pytest.approx(np.repeat([16_086_016, 15_901_696, 16_510_464, 17_851_456], 2), rel=1e-5)
    assert len(list((tmp_path / "figures").glob("conv_baselines-*.png"))) == 2


def test_some_of_the_nets_are_drawn_in_their_colours_and_the_missing_are_said():
    def looks(drawn):
        return {
            container.get_label(): (container.lines[0].get_color(), container.lines[0].get_marker())
            for container in drawn["error_against_cost"].axes[0].containers
        }

    every, some = conv_baselines.figures(fakes()), conv_baselines.figures(fakes()[4:8])
    assert looks(every).items() > looks(some).items()
    assert len(set(looks(every).values())) == 7
    for figure in some.values():
        assert "no run of" in figure.get_supxlabel()
    curves = {line.get_label(): line.get_color() for line in every["learning_curves"].axes[0].lines}
    assert curves == {f"{name} (n = 2)": colour for name, (colour, _) in looks(every).items()}
