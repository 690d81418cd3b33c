"""A trained CapsNet, its data set and some test images as JSON, for a page whose script runs it."""

import base64
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int, Num

from capsnet_jax.config import ConfigError
from capsnet_jax.data import frame_of
from capsnet_jax.figures.labels import dataset_label
from capsnet_jax.interpret.network import Network

SHOWN = 20  # test images, as equally of all classes as can be
HARD = 16  # more test images, which the network classifies wrong


def pack_dataset(net: Network) -> dict[str, Any]:
    """Return what a page has to know of a network's images."""
    settings = net.config.data
    frame = frame_of(settings.dataset)
    return {
        "dataset": dataset_label(settings.dataset),
        "classes": list(net.data.label_names),
        "shape": list(net.data.image_shape),
        "frame": frame and frame._asdict(),
        "transform": settings.transform,
    }


def pack_images(net: Network) -> dict[str, Any]:
    """Return some images of every class, and some that the net's run classifies wrong."""
    examples = net.data.test
    labels = np.asarray(examples.labels)
    present = labels if labels.ndim == 2 else labels[:, None] == np.arange(net.data.classes)
    wrong = net.record.wrong if net.record is not None else None
    if wrong is None or len(wrong) != len(labels):  # not known, or of another version of the data set
        wrong = np.zeros(len(labels), bool)
    index = choose(present.astype(bool), wrong)
    return {
        "pixels": _base64(np.asarray(examples.images)[index]),
        "labels": [np.flatnonzero(present[i]).tolist() for i in index],
        "index": index.tolist(),
        "wrong": wrong[index].tolist(),
    }


def choose(present: Bool[np.ndarray, "images classes"], wrong: Bool[np.ndarray, "images"]) -> Int[np.ndarray, "shown"]:
    """Choose test images: the first of every class, the second of every class, …; then the first that are hard.

    Args:
        present: which classes each image shows.
        wrong: which images are classified wrong.
    """
    ranks = np.where(present & ~wrong[:, None], np.cumsum(present & ~wrong[:, None], axis=0), len(present) + 1)
    easy = np.lexsort((ranks.argmin(axis=1), ranks.min(axis=1)))[: min(SHOWN, int((~wrong).sum()))]
    return np.concatenate([easy, np.flatnonzero(wrong)[:HARD]])


def pack_model(net: Network, label: str) -> dict[str, Any]:
    """Return what a page's script needs to run a CapsNet of a finished run.

    Raises:
        ConfigError: a parameter is too large for float16.
    """
    model, routing, record = net.model, net.config.routing, net.record
    assert routing is not None, "a CapsNet routes"
    assert record is not None, "a finished run has a record"
    leaves = jax.tree_util.tree_leaves_with_path(net.params)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    with np.errstate(over="ignore"):
        halves = [array.astype("<f2") for array in arrays.values()]
    if not all(np.isfinite(half).all() for half in halves):
        raise ConfigError(
            f"{net.name} has parameters beyond ±65504, which float16 lacks; train with train.weight_decay"
        )
    test_error = float(record.result.get("test_error", np.nan))
    return {
        "label": label,
        "run": net.name,
        "error": test_error if np.isfinite(test_error) else None,
        "parameters": sum(array.size for array in arrays.values()),
        "shape": list(net.data.image_shape),
        "classes": model.classes,
        "kernel": model.kernel,
        "types": model.capsule_types,
        "primary_dim": model.primary_dim,
        "class_dim": model.class_dim,
        "divide_primary": model.divide_primary,
        "squash": model.squash,
        "decodes": model.reconstruction,
        "shown": model.shown,
        "routing": {"name": routing.name, **vars(routing.settings)},
        "arrays": [[name, list(array.shape)] for name, array in arrays.items()],
        "weights": _base64(np.concatenate([half.ravel() for half in halves])),
    }


def _base64(array: Num[np.ndarray, "..."]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
