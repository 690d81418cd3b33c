"""Workloads and efforts that take a moment."""

import dataclasses
import sys

import jax
import numpy as np

from capsnet_jax import models, overrides
from capsnet_jax.bench.workload import Workload
from capsnet_jax.config import Config
from experiments.throughput import Effort
from tests import tiny

SIZES = {path: value for path, value in tiny.SETTINGS.items() if path.startswith(("model.", "train.batch"))}
EFFORT = Effort(1, 0.01, 1, 0.01, 1, (), (1, 2), (), (), (), (), 0, 1, 1)

# Runs launch.py with a smaller effort, fewer peers and only some groups, given as the first three arguments.
LAUNCH = """
import sys
from absl import app
import launch
from experiments import throughput

effort, peers, names = (eval(sys.argv.pop(1)) for _ in range(3))
throughput.EFFORT, throughput.PEERS = throughput.Effort(*effort), peers
whole = throughput.groups
throughput.groups = lambda *given: [group for group in whole(*given) if group.name in names]
app.run(launch.main, flags_parser=launch.parse)
"""


def settings(**changes) -> Config:
    """The small preset, smaller still; changes as `routing__iterations=2`."""
    base = overrides.from_preset("small", SIZES)
    return overrides.override(base, {path.replace("__", "."): value for path, value in changes.items()})


def workload(subject="capsnet_jax", phase="training", changes=None, **fields) -> Workload:
    return Workload(subject, phase, overrides.flatten(settings(**(changes or {}))), **fields)


def random_weights(given: Workload) -> dict:
    """Of the model's shapes, without the seconds that compiling its initialisation takes.

    Votes are larger than at the start of training, so that couplings are not all but uniform.
    """
    model = models.build(overrides.build(given.settings), given.classes)
    shapes, _ = jax.eval_shape(lambda: models.init(model, jax.random.key(0), (given.side, given.side, 1)))
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), shapes)
    weights["class_capsules"]["W"] *= 3
    return weights


def command_line(*arguments: object, effort: Effort, groups: tuple[str, ...]) -> list[str]:
    own = [repr(dataclasses.astuple(effort)), repr(("plain_jax",)), repr(groups)]
    return [sys.executable, "-c", LAUNCH, *own, "--experiment=throughput", *tiny.SIZES[1:], *map(str, arguments)]
