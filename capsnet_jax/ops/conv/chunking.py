"""Work through a batch in chunks that fit in the cache of a CPU.

Several chunks run in one turn of the loop. XLA gives a small operation one core only, but it runs independent
operations side by side.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

CHUNK_BYTES = 2**22  # of the patches or tiles of one chunk: best for 32 MB of cache
CHUNKS_PER_TURN = 4


def largest_divisor(n: int, limit: int) -> int:
    """Return the largest divisor of n that is at most `limit`, and at least 1.

    >>> largest_divisor(12, 5), largest_divisor(12, 0)
    (4, 1)
    """
    return max(d for d in range(1, max(1, min(n, limit)) + 1) if n % d == 0)


def chunked_map(chunk_fn: Callable[[Array], Array], chunks: Float[Array, "chunks ..."]) -> Float[Array, "chunks ..."]:
    """Apply a function to every chunk and stack the results.

    Args:
        chunk_fn: takes one chunk.
        chunks: its arguments, stacked.
    """
    per_turn = largest_divisor(len(chunks), CHUNKS_PER_TURN)
    turns = lax.map(
        lambda chunks: jnp.stack([chunk_fn(chunk) for chunk in chunks]),
        chunks.reshape(-1, per_turn, *chunks.shape[1:]),
    )
    return turns.reshape(-1, *turns.shape[2:])


def chunked_sum(chunk_fn: Callable[..., Array], *arguments: Float[Array, "chunks ..."]) -> Array:
    """Apply a function to every chunk and add up the results.

    Args:
        chunk_fn: takes one chunk of each argument.
        arguments: the chunks of each argument, stacked.
    """
    per_turn = largest_divisor(len(arguments[0]), CHUNKS_PER_TURN)
    result = jax.eval_shape(chunk_fn, *(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in arguments))

    def turn(total: Array, chunks: Sequence[Array]) -> tuple[Array, None]:
        return sum((chunk_fn(*chunk) for chunk in zip(*chunks, strict=True)), start=total), None

    turns = [a.reshape(-1, per_turn, *a.shape[1:]) for a in arguments]
    return lax.scan(turn, jnp.zeros(result.shape, result.dtype), turns)[0]
