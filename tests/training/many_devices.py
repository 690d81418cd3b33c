"""Fits on several simulated devices: `python -m tests.training.many_devices FILE` saves their final states."""

import os
import sys

os.environ["JAX_NUM_CPU_DEVICES"] = "8"

import jax
import numpy as np

from capsnet_jax.overrides import build
from capsnet_jax.training.evaluation import read_test_set
from capsnet_jax.training.fit import fit
from capsnet_jax.training.parallel import make_mesh
from tests.training.test_step import DATA, TINY

SMALL = {"train.batch_size": 8, "train.epochs": 1, "train.learning_rate": 1e-2, "train.optimizer": "sgd"}
NORM = build({"model.name": "resnet8"} | SMALL)
# Name: config, runs, devices.
CASES = {
    "4 runs, 1 device": (TINY, 4, 1),
    "4 runs, 4 devices": (TINY, 4, 4),
    "2 runs, 1 device": (TINY, 2, 1),
    "2 runs, 8 devices": (TINY, 2, 8),  # four for each run's batches of four
    "batch norm, 1 device": (NORM, 1, 1),
    "batch norm, 8 devices": (NORM, 1, 8),  # an image for each
}


def final_state(config, runs, devices, *, cut=False):
    """The states after a fit and what the test set says; `cut` at a checkpoint, and continued on one device."""
    configs, seeds = [config] * runs, list(range(runs))
    mesh = make_mesh(runs, config.train.batch_size, jax.devices()[:devices])
    start = None
    for at in fit(configs, seeds, DATA, parallel="map", mesh=mesh, chunk_seconds=1e-9):
        if cut and at.history:
            start, mesh = (at.step, jax.device_get(at.states), at.history), None
            break
    if start:
        *_, at = fit(configs, seeds, DATA, parallel="map", start=start)
    tested, wrong = read_test_set(configs, *at.states.eval_params, DATA, parallel="map", mesh=mesh)
    metrics = {name: values for name, values in at.history[-1].items() if isinstance(values, list)}
    return jax.tree.leaves(jax.device_get((at.states, tested, wrong, metrics)))


if __name__ == "__main__":
    results = {name: final_state(*case) for name, case in CASES.items()}
    results["4 runs, continued on 1 device"] = final_state(TINY, 4, 4, cut=True)
    np.savez(sys.argv[1], **{f"{name}/{i}": leaf for name, found in results.items() for i, leaf in enumerate(found)})
