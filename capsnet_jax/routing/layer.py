"""From primary capsules to routed capsules, for a batch, without the votes of the whole batch in memory.

Votes are the largest array of a CapsNet (for the paper's net 94 MB a batch of 128), and every iteration reads them all.
So they are made for a few images at a time, and routed while they lie in the cache. The backward pass makes them again,
so memory does not grow with the iterations. Couplings that do not look at the votes need none. The sum over inputs is
then one matrix product of primary capsules with coupled weights.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax.config import Choice
from capsnet_jax.ops.squash import Squash, length
from capsnet_jax.routing import ROUTERS
from capsnet_jax.routing.result import Couplings, Routing, bound_squash

# Bytes of votes that are in memory at a time on a CPU. With their gradient they fit a server's last cache. With more,
# every pass waits for main memory. With less, starting the operations takes longer than the operations.
CACHED_VOTES = 12_000_000


def route_batch(
    primary: Float[Array, "batch inputs primary_dim"],
    weights: Float[Array, "inputs outputs primary_dim dim"],
    choice: Choice,
    parameters: dict[str, Any] | None = None,
    *,
    activations: Float[Array, "batch inputs"] | None = None,
    precision: str = "float32",
    trace: bool = False,
) -> Routing:
    """Route a batch: the same as the chosen router, mapped over each image's votes û_io = W_io u_i.

    Args:
        primary: u, the input capsules of each image.
        weights: W, the transformation matrices.
        choice: a key of ROUTERS, with that router's settings.
        parameters: the router's own, where it has any.
        activations: of the input capsules; None: their lengths.
        precision: type of the products with W; routing itself is as precise as `primary`.
        trace: whether every iteration is returned, where the router can.

    Returns:
        `Routing`, every field with a leading axis `batch`.
    """
    router = ROUTERS[choice.name]
    inputs, outputs = weights.shape[:2]
    fixed = router.fixed_couplings(inputs, outputs, choice.settings, parameters)
    if fixed is not None and not (trace and router.traces):
        squash = bound_squash(choice.settings.squash, parameters)
        return _route_fixed(primary, weights, fixed, squash, precision)
    if router.takes("activations") and activations is None:
        activations = length(primary)
    options = {"parameters": parameters, "trace": trace and router.traces} | vars(choice.settings)

    def route_example(votes: Array, poses: Array, activations: Array | None) -> Routing:
        return router(votes, poses=poses, activations=activations, **options)

    arrays = (primary, activations if router.takes("activations") else None)
    count, outputs, primary_dim, dim = weights.shape
    flat = weights.transpose(0, 2, 1, 3).reshape(count, primary_dim, outputs * dim).astype(precision)
    route_votes = partial(_route_votes, route_example=route_example, outputs=outputs)
    return in_bounded_memory(route_votes, arrays, flat, votes=count * outputs * dim * weights.dtype.itemsize)


def in_bounded_memory(
    route: Callable[[Any, Array], Routing], arrays: Any, weights: Float[Array, "..."], *, votes: int
) -> Routing:
    """Route a batch a few images at a time on a CPU, so that their votes fit `CACHED_VOTES`; elsewhere all at once.

    The backward pass makes the votes of each chunk again.

    Args:
        route: (arrays, weights) → `Routing`, each field with a leading axis of images.
        arrays: a tree of arrays with a leading axis of images.
        weights: the same for all images.
        votes: bytes of one image's votes.
    """
    batch = len(jax.tree.leaves(arrays)[0])
    cached = max(1, CACHED_VOTES // votes)
    return jax.lax.platform_dependent(
        arrays, weights, cpu=partial(_in_chunks, route, cached), default=partial(_in_chunks, route, batch)
    )


def _in_chunks(route: Callable[[Any, Array], Routing], images: int, arrays: Any, weights: Array) -> Routing:
    """Route at most so many images at a time, in chunks of equal size; the last one is filled up with zeros."""
    batch, route_chunk = len(jax.tree.leaves(arrays)[0]), jax.checkpoint(lambda chunk: route(chunk, weights))
    if images >= batch:
        return route_chunk(arrays)
    chunks = -(-batch // images)
    images = -(-batch // chunks)

    def in_chunks(x: Array) -> Array:
        padding = [(0, chunks * images - batch)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(chunks, images, *x.shape[1:])

    routed = jax.lax.map(route_chunk, jax.tree.map(in_chunks, arrays))
    return jax.tree.map(lambda x: x.reshape(chunks * images, *x.shape[2:])[:batch], routed)


def _route_fixed(primary: Array, weights: Array, fixed: Couplings, squash: Squash, precision: str) -> Routing:
    """Use one set of couplings for all images: parents squash(Σ_ik u_ik c_io W_iokd), a matrix product."""
    batch, (_, outputs, _, dim) = len(primary), weights.shape
    coupled = (fixed.couplings[:, :, None, None] * weights).transpose(0, 2, 1, 3)
    parents = primary.reshape(batch, -1).astype(precision) @ coupled.reshape(-1, outputs * dim).astype(precision)
    capsules = squash(parents.astype(primary.dtype).reshape(batch, outputs, dim))
    couplings, logits = (jnp.broadcast_to(x, (batch, *x.shape)) for x in fixed)
    return Routing(capsules, squash.activation(capsules), couplings, logits)


def _route_votes(
    arrays: tuple[Array, Array | None],
    weights: Float[Array, "inputs primary_dim votes"],
    *,
    route_example: Callable[[Array, Array, Array | None], Routing],
    outputs: int,
) -> Routing:
    """Make and route the votes of some images."""
    primary, activations = arrays
    # A product for every input, then laid out parent by parent with the inputs last: a router's sums over inputs and
    # over dimensions are matrix products then, where a CPU is at its best.
    votes = jnp.einsum("ibk,ikx->ibx", primary.transpose(1, 0, 2).astype(weights.dtype), weights).transpose(1, 2, 0)
    votes = votes.astype(primary.dtype).reshape(len(primary), outputs, -1, len(weights))
    return jax.vmap(route_example)(votes.transpose(0, 3, 1, 2), primary, activations)
