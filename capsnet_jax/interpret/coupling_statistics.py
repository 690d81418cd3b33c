"""How sharp the couplings of a network are, and whether they depend on the image: for routers of every kind."""

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Examples
from capsnet_jax.data.augment import map_batches, to_float
from capsnet_jax.interpret.routing_diagnostics import BATCH, entropy_of


def count_couplings(
    config: Config, params: PyTree, stats: PyTree, examples: Examples, classes: int
) -> dict[str, Float[Array, ""]]:
    """Measure the couplings of the last routed layer.

    Args:
        config: of the run.
        params: its parameters.
        stats: running statistics.
        examples: images uint8[count, height, width, channels] and their labels.
        classes: number of classes.

    Returns:
        "coupling_entropy": mean over images and inputs of the entropy of an input's couplings, scaled to sum to 1, over
        its greatest value: 1 when all parents get as much, 0 when one gets all. "coupling_variation": the standard
        deviation of a coupling over the images, mean over couplings, over the mean coupling: 0 of couplings that are
        the same for all images. Of negative couplings, as self-attention may have, shares and mean are those of their
        sizes. Nothing where there are no examples or no couplings.
    """
    count, model = examples.labels.shape[0], models.build(config, classes)

    def couplings_of(images: Array) -> Array | None:
        return models.apply(model, params, stats, to_float(images)).get("couplings")

    if not count or (first := couplings_of(examples.images[:1])) is None:
        return {}

    def sum_batch(batch: Examples, counts: Array) -> tuple[Array, Array, Array, Array]:
        couplings = couplings_of(batch.images)
        assert couplings is not None, "the first image had couplings"
        weights = counts.astype(couplings.dtype)
        differences = couplings - first  # from the first image's, so that what never changes is exactly 0
        total, squares = (jnp.einsum("b,bio->io", weights, differences**power) for power in (1, 2))
        sizes = jnp.abs(couplings)
        entropy, size = (jnp.mean(x.reshape(len(x), -1), axis=1) for x in (entropy_of(sizes), sizes))
        return jnp.vdot(weights, entropy), jnp.vdot(weights, size), total, squares

    entropies, sizes, sums, squares = map_batches(sum_batch, examples, BATCH)
    mean, square = (jnp.sum(parts, axis=0) / count for parts in (sums, squares))
    deviation = jnp.sqrt(jnp.maximum(square - mean**2, 0))
    typical = jnp.maximum(jnp.sum(sizes) / count, 1e-9)
    return {"coupling_entropy": jnp.sum(entropies) / count, "coupling_variation": jnp.mean(deviation) / typical}
