"""Runs that are made up, and a table's columns."""

from pathlib import Path

import numpy as np

from capsnet_jax import overrides
from capsnet_jax.report.render import Table
from capsnet_jax.sweeps.records import Record, Run

ITERATIONS = ["routing.iterations"]


def run(seed=0, test_error=1.0, validation_error=2.0, wrong=None, revision="0123456789", **changes) -> Record:
    """A finished run; settings are given as `routing__iterations=3`."""
    config = overrides.build({name.replace("__", "."): value for name, value in changes.items()})
    result = {"test_error": test_error, "validation_error": validation_error, "images_per_second": 1000.0 + seed}
    return Record(
        Run(config, seed).name,
        overrides.flatten(config),
        seed,
        metrics={},
        result=result | {"diverged_step": -1},
        workdir=Path("nowhere"),
        environment={"git_revision": revision, "device": "cpu", "cores": 2, "packages": {"jax": "0.10.2"}},
        wrong=None if wrong is None else np.array(wrong, bool),
    )


def runs(errors, **changes) -> list[Record]:
    """A run for each of the test errors, with seeds 0, 1, …"""
    return [run(seed, error, **changes) for seed, error in enumerate(errors)]


def column(table: Table, heading: str) -> list[str]:
    return [row[table.header.index(heading)] for row in table.rows]
