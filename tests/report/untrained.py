"""Networks that nobody trained, as if they were finished runs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax import models, overrides
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.interpret.network import Network
from capsnet_jax.sweeps import checkpoint, records
from tests.report.finished import run

TINY = {"model__name": "capsnet_small", "model__channels": 4, "model__capsule_types": 2, "model__primary_dim": 4}
TINY |= {"model__kernel": 3, "model__class_dim": 3, "model__decoder": (8,)}


def network(shape=(12, 10, 1), classes=10, **settings) -> Network:
    """A CapsNet of parameters drawn at random, with images of noise, of which it classifies the last five wrong."""
    record = dataclasses.replace(run(**settings), wrong=np.arange(60) >= 55)
    images = np.random.default_rng(2).integers(0, 256, (60, *shape), np.uint8)
    examples = Examples(images, np.arange(60, dtype=np.int32) % classes)
    data = Dataset("mnist", tuple(str(k) for k in range(classes)), examples, examples, examples)
    config = overrides.build(record.settings)
    model = models.build(config, classes)
    return Network(config, model, _draw(model, shape), {}, data, record)


def save(workdir, **settings) -> str:
    """Save a run of digits, whose parameters are drawn at random, in a workdir; return its name."""
    record = run(**settings)
    model = models.build(overrides.build(record.settings), 10)
    checkpoint.save_params(records.params_path(workdir, record.name), _draw(model, (28, 28, 1)), {})
    records.append([record], workdir)
    return record.name


def _draw(model, shape):
    """Draw all parameters, also those that training starts at 0, so large that capsules are neither short nor full."""
    rng = np.random.default_rng(1)
    shapes, _ = jax.eval_shape(lambda: models.init(model, jax.random.key(0), shape))

    def draw(path, leaf):
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.3
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
