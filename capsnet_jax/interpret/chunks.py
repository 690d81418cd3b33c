"""Many evaluations of a net for each image, so many at a time: what bounds the memory of every method."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from capsnet_jax.config import ConfigError

Evaluate = Callable[[Int[Array, "chunk"], Int[Array, "chunk"]], PyTree]  # (which images, which samples) → [chunk, …]


def map_chunks(evaluate: Evaluate, images: int, samples: int, chunk: int) -> PyTree:
    """Return what `evaluate` makes of every sample of every image: arrays [images, samples, …].

    Args:
        evaluate: (indices of images, indices of samples) → arrays with a leading axis `chunk`.
        images: how many.
        samples: of each image.
        chunk: pairs of image and sample at a time.
    """
    chunk, pieces = _layout(images * samples, chunk)
    pairs = jnp.minimum(jnp.arange(pieces * chunk), images * samples - 1).reshape(pieces, chunk)
    found = jax.lax.map(lambda pair: evaluate(pair // samples, pair % samples), pairs)
    return jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:])[: images * samples].reshape(images, samples, *x.shape[2:]), found
    )


def sum_chunks(evaluate: Evaluate, images: int, samples: int, chunk: int) -> Any:
    """Return the sum over all samples of what `evaluate` makes of every image: an array [images, …].

    Args:
        evaluate: (indices of images, indices of samples) → an array with a leading axis `chunk`.
        images: how many.
        samples: of each image.
        chunk: pairs of image and sample at a time.
    """
    chunk, pieces = _layout(images * samples, chunk)
    pairs = jnp.arange(pieces * chunk).reshape(pieces, chunk)
    evaluate = jax.jit(evaluate)  # so that it is traced once
    like = jax.eval_shape(evaluate, pairs[0], pairs[0])

    def add(total: Array, pair: Array) -> tuple[Array, None]:
        # The last chunk is filled up with pairs that go nowhere.
        image = jnp.where(pair < images * samples, pair // samples, images)
        return total.at[image].add(evaluate(jnp.minimum(image, images - 1), pair % samples), mode="drop"), None

    return jax.lax.scan(add, jnp.zeros((images, *like.shape[1:]), like.dtype), pairs)[0]


def check_count(name: str, count: int) -> int:
    """Return a count that a user gave.

    Raises:
        ConfigError: it is less than 1.
    """
    if count < 1:
        raise ConfigError(f"{name} is {count}; give 1 or more")
    return count


def _layout(count: int, chunk: int) -> tuple[int, int]:
    """Return the pairs of a chunk and the number of chunks, which are as even as can be."""
    pieces = -(-count // max(1, chunk))
    return -(-count // pieces), pieces
