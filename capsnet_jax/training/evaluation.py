"""How good a network is: means of its metrics over a split, and what routing does inside."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import batch_of, to_float
from capsnet_jax.interpret.routing_diagnostics import probe
from capsnet_jax.losses import FEW, total_loss
from capsnet_jax.training.parallel import over_runs, stack

EVALUATION_BATCH = 250
PROBED = 1000  # validation images that `probe` looks at after an epoch; at the end it looks at all test images
METRICS = ("loss", "classification_loss", "reconstruction_mse", "error")
PERCENT = ("error", "top5_error")  # means of these are given in percent


def evaluate(
    config: Config, params: PyTree, examples: Examples, *, classes: int, stats: PyTree = None
) -> dict[str, Float[Array, ""]]:
    """Mean of every metric over all examples; errors in percent. Images are neither augmented nor label-masked.

    With more than ten classes there is "top5_error" too, which training has no use for and its state no place.
    NaN where there are no examples. A model with batch norms needs its running statistics, `stats`.
    """
    model = models.build(config, classes)
    count = examples.labels.shape[0]
    batches = -(-count // EVALUATION_BATCH)
    names = (*METRICS, "top5_error") if classes > FEW else METRICS

    def body(sums: dict[str, Array], batch: Array) -> tuple[dict[str, Array], None]:
        held, counts = batch_of(examples, batch, EVALUATION_BATCH)
        images = to_float(held.images)
        _, parts = total_loss(models.apply(model, params, stats or {}, images), images, held.labels, config.loss)
        return {n: sums[n] + jnp.sum(jnp.where(counts, parts[n], 0)) for n in names}, None

    zeros = {name: jnp.zeros(()) for name in names}
    sums = jax.lax.scan(body, zeros, jnp.arange(batches))[0] if count else zeros
    return means(sums, count)


def test(configs: list[Config], params: PyTree, stats: PyTree, data: Dataset, *, across: str) -> dict[str, list[float]]:
    """The test set's metrics of finished runs, one value a run: "test_error" in percent and so on.

    Args:
        configs: of the runs, all of one structure.
        params: the runs' parameters, stacked.
        stats: their batch norms' running statistics, stacked.
        data: its test set is read.
        across: "vmap" or "map".
    """
    examples = jax.device_put(data.test)
    metrics = judge(data.classes, across)(stack(configs), params, stats, examples, examples)
    return {f"test_{name}": plain(values) for name, values in metrics.items()}


def judge(classes: int, across: str) -> Callable[..., dict[str, Array]]:
    """(configs, params, stats, examples, probed) → metrics of `evaluate` on the examples, of `probe` on the probed."""

    def look(config: Config, params: PyTree, stats: PyTree, examples: Examples, probed: Examples) -> dict[str, Array]:
        metrics = evaluate(config, params, examples, classes=classes, stats=stats)
        return metrics | probe(config, params, probed, classes=classes)

    return jax.jit(over_runs(look, (0, 0, 0, None, None), across=across))


def probed(examples: Examples) -> Examples:
    """Those of the validation examples that `probe` looks at, evenly spread."""
    return jax.tree.map(lambda leaf: leaf[:: max(1, len(leaf) // PROBED)], examples)


def means(sums: dict[str, Array], count: int) -> dict[str, Array]:
    """Sums over so many examples as means, errors in percent."""
    found = {name: value / jnp.float32(count) for name, value in sums.items()}
    return found | {name: 100 * found[name] for name in PERCENT if name in found}


def plain(values: Array) -> list[float]:
    """The shortest decimals that round to these float32s."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]
