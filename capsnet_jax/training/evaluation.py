"""How good a network is: means of its metrics over a split, and whatever else is to be observed there."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import batch_of, to_float, to_targets
from capsnet_jax.losses import METRICS, PARTS, total_loss
from capsnet_jax.training.hosts import ALONE, Hosts
from capsnet_jax.training.parallel import place, split_batch, stack
from capsnet_jax.training.program import Program

EVALUATION_BATCH = 250
OBSERVED = 1000  # validation images that are observed after an epoch; at the end all test images are

# (config, params, stats, examples, classes) → {name: mean over the examples}
ObserveFn = Callable[[Config, PyTree, PyTree, Examples, int], dict[str, Float[Array, ""]]]


def evaluate(
    config: Config, params: PyTree, examples: Examples, *, classes: int, stats: PyTree = None
) -> dict[str, Float[Array, ""]]:
    """Return the mean of every metric over all examples; errors in percent.

    Images are not augmented, and no label is handed to a decoder. The means are NaN where there are no examples. A
    model with batch norms needs its running statistics, `stats`.
    """
    return _evaluate(config, params, stats or {}, examples, classes)[0]


def read_test_set(
    configs: list[Config],
    params: PyTree,
    stats: PyTree,
    data: Dataset,
    *,
    parallel: str,
    mesh: Mesh | None = None,
    observe_fn: ObserveFn | None = None,
    hosts: Hosts = ALONE,
) -> tuple[dict[str, list[float]], Bool[np.ndarray, "runs images"]]:
    """Read the test set: the metrics of finished runs, and which images each of them gets wrong.

    Args:
        configs: of the runs, all of one structure.
        params: the runs' parameters, stacked.
        stats: their batch norms' running statistics, stacked.
        data: its test set is read.
        parallel: "vmap" or "map".
        mesh: of devices; None: one device.
        observe_fn: what to observe beside the metrics.
        hosts: the processes whose devices these are; all call this, and wait for each other.

    Returns:
        {"test_error" in percent and so on: one value a run}, and the wrong images.
    """
    examples, evaluate = place(data.test, mesh), make_evaluator(data.classes, parallel, mesh, observe_fn)
    metrics, wrong = hosts.everywhere(evaluate(stack(configs), params, stats, examples, examples, np.float32(1)))
    return {f"test_{name}": to_floats(values) for name, values in metrics.items()}, np.asarray(wrong)


def make_evaluator(
    classes: int, parallel: str, mesh: Mesh | None = None, observe_fn: ObserveFn | None = None
) -> Program:
    """Make (configs, params, stats, examples, observed, progress) → (metrics, which examples are classified wrong).

    The progress, the part of training's steps that are done, is handed to models that change as they learn.

    Args:
        classes: number of classes.
        parallel: "vmap" or "map".
        mesh: of devices; None: one device.
        observe_fn: (config, params, stats, observed, classes) → {name: mean}, of one run; it joins the metrics.
    """

    def evaluate_and_observe(
        config: Config, params: PyTree, stats: PyTree, examples: Examples, observed: Examples, progress: Array
    ) -> tuple[dict[str, Array], Array]:
        metrics, wrong = _evaluate(config, params, stats, examples, classes, progress)
        return metrics | (observe_fn(config, params, stats, observed, classes) if observe_fn else {}), wrong

    return Program(evaluate_and_observe, (0, 0, 0, None, None, None), parallel=parallel, mesh=mesh)


def observed_subset(examples: Examples) -> Examples:
    """Return those of the validation examples that are observed, evenly spread."""
    return jax.tree.map(lambda leaf: leaf[:: max(1, len(leaf) // OBSERVED)], examples)


def mean_metrics(sums: dict[str, Array], count: int) -> dict[str, Array]:
    """Turn sums over so many examples into means, errors in percent."""
    means = {name: value / jnp.float32(count) for name, value in sums.items()}
    return means | {name: 100 * means[name] for name in means if name in METRICS and METRICS[name].percent}


def to_floats(values: Array) -> list[float]:
    """Return the shortest decimals that round to these float32s."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _evaluate(
    config: Config, params: PyTree, stats: PyTree, examples: Examples, classes: int, progress: Array | float = 1.0
) -> tuple[dict[str, Array], Bool[Array, "images"]]:
    """Return the metrics of `evaluate`, and which examples are classified wrong."""
    model = models.build(config, classes)
    count = examples.labels.shape[0]
    names = (*PARTS, *(name for name, metric in METRICS.items() if classes >= metric.min_classes))
    sums = {name: jnp.zeros(()) for name in names}
    if not count:
        return mean_metrics(sums, count), jnp.zeros(0, bool)

    def body(sums: dict[str, Array], index: Array) -> tuple[dict[str, Array], Array]:
        batch, counts = batch_of(examples, index, EVALUATION_BATCH)
        batch = split_batch(batch)
        images = to_float(batch.images)
        out = models.apply(model, params, stats, images, progress=progress)
        _, parts = total_loss(out, images, to_targets(batch.labels, classes), config)
        return {n: sums[n] + jnp.sum(jnp.where(counts, parts[n], 0)) for n in names}, parts["error"] > 0

    sums, wrong = jax.lax.scan(body, sums, jnp.arange(-(-count // EVALUATION_BATCH)))
    return mean_metrics(sums, count), wrong.reshape(-1)[:count]
