"""Fits by two processes together: `python -m tests.training.two_hosts FILE PORT PROCESS`, or by one: `… FILE`."""

import sys

import jax
import numpy as np

from capsnet_jax.overrides import build
from capsnet_jax.training.cluster import Member
from capsnet_jax.training.environment import find_devices
from capsnet_jax.training.evaluation import read_test_set
from capsnet_jax.training.fit import fit
from capsnet_jax.training.hosts import ALONE
from capsnet_jax.training.join import join
from capsnet_jax.training.parallel import make_mesh

SMALL = {"train.batch_size": 8, "train.epochs": 1, "train.learning_rate": 1e-2, "train.optimizer": "sgd"}
NORM = build({"model.name": "resnet8"} | SMALL)


def final_state(config, runs, data, hosts):
    """The states after a fit, what the test set says, and the last epoch's metrics."""
    configs, seeds = [config] * runs, list(range(runs))
    mesh = make_mesh(runs, config.train.batch_size, find_devices())
    assert hosts is ALONE or mesh.size == 2
    *_, at = fit(configs, seeds, data, parallel="map", mesh=mesh, chunk_seconds=1e-9, hosts=hosts)
    tested, wrong = read_test_set(configs, *at.states.eval_params, data, parallel="map", mesh=mesh, hosts=hosts)
    metrics = {name: values for name, values in at.history[-1].items() if isinstance(values, list)}
    states = hosts.gather(at.states)
    return None if hosts.process else jax.tree.leaves(jax.device_get((states, tested, wrong, metrics)))


def work(path, hosts=ALONE):
    from tests.training.test_step import DATA, TINY  # which starts JAX

    cases = {"2 runs": (TINY, 2), "1 run": (TINY, 1), "batch norm": (NORM, 1)}
    results = {name: final_state(*case, DATA, hosts) for name, case in cases.items()}
    if hosts.process:
        hosts.agree()  # until the first one lets this process leave
    np.savez(path, **{f"{name}/{i}": leaf for name, leaves in results.items() for i, leaf in enumerate(leaves)})


if __name__ == "__main__":
    path, *rest = sys.argv[1:]
    if rest:
        with join(Member(f"localhost:{rest[0]}", 2, int(rest[1])), lambda _: (None, "")) as together:
            work(path, together)
    else:
        work(path)
