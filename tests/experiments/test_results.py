"""What lies in experiments/results comes from its records: pages, tables, and the numbers in them."""

import csv
import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.report import pages
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.records import Run
from experiments import EXPERIMENTS

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


@pytest.mark.slow
def test_pages_and_tables_are_those_that_the_records_give(tmp_path):
    """Written anew into a copy, every page and every CSV file is the same to the byte, findings included."""
    workdir = tmp_path / "results"
    shutil.copytree(RESULTS, workdir)
    made = sorted([*RESULTS.glob("*.md"), *RESULTS.glob("*.csv")])
    modules = {name: importlib.import_module(module) for name, module in EXPERIMENTS.items()}
    for path in workdir.glob("*.csv"):
        path.unlink()
    pages.write(workdir, pages.compose(workdir, modules))
    for path in made:
        assert (workdir / path.name).read_bytes() == path.read_bytes(), f"{path.name}: run --report and --figures_only"


def test_every_record_is_of_settings_that_still_build_its_run():
    loaded = records.load_all(RESULTS)
    assert len(loaded) == 1_036
    for record in loaded.values():
        config = overrides.build(record.settings)
        flat = overrides.flatten(config)
        assert flat | record.settings == flat  # settings that came later are at their defaults
        assert Run(config, record.seed).name == record.name


@pytest.mark.parametrize(("hops", "mean"), [(1, 73.32), (2, 25.38), (3, 22.30)])
def test_published_means_of_memory_networks_are_those_of_the_table(hops, mean):
    with (RESULTS / "hops.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"dataset": "babi_2", "model.hops": str(hops), "model.questions": "one"}
    errors = [float(row["test_error"]) for row in rows if wanted.items() <= row.items()]
    assert len(errors) == 5
    assert np.mean(errors) == pytest.approx(mean, abs=0.005)


@pytest.mark.parametrize(("iterations", "mean"), [(1, 9.89), (3, 8.84), (7, 8.50)])
def test_a_published_mean_can_be_recomputed_from_the_table(iterations, mean):
    with (RESULTS / "routing_iterations.csv").open() as file:
        rows = list(csv.DictReader(file))
    wanted = {"dataset": "fashion_mnist", "preset": "small", "routing.iterations": str(iterations)}
    wanted |= {"loss.reconstruction": "True"}
    errors = [float(row["test_error"]) for row in rows if wanted.items() <= row.items()]
    assert len(errors) == 5
    assert np.mean(errors) == pytest.approx(mean, abs=0.005)
