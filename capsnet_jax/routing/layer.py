"""From primary capsules to routed capsules, for a batch, without ever holding the votes of all of it.

Votes are the largest array of a CapsNet (for the paper's net 94 MB a batch of 128), and every iteration reads them all.
So they are made for a few images at a time, routed while they lie in the cache, dropped, and made anew in the backward
pass: memory does not grow with the iterations. Couplings that do not look at the votes need none: the sum over inputs
is then one matrix product of primary capsules with coupled weights.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from capsnet_jax import config
from capsnet_jax.ops.squash import squash
from capsnet_jax.routing import ROUTERS, settings_of
from capsnet_jax.routing.result import Routing

# Votes that are held at a time on a CPU, bytes: with their gradient they fit a server's last cache. More, and every
# pass waits for main memory; less, and starting the operations takes longer than the operations.
CACHED_VOTES = 12_000_000


def route(
    primary: Float[Array, "batch inputs primary_dim"],
    weights: Float[Array, "inputs outputs primary_dim dim"],
    settings: config.Routing,
    prior: Float[Array, "inputs outputs"] | None = None,
    *,
    precision: str = "float32",
) -> Routing:
    """Route a batch: the same as the chosen router, mapped over each image's votes û_io = W_io u_i.

    Args:
        primary: u, the input capsules of each image.
        weights: W, the transformation matrices.
        settings: the router and what it takes.
        prior: static logits, for the routers that keep them as a parameter.
        precision: type of the factors in the products with W; routing itself is as precise as `primary`.

    Returns:
        `Routing`, every field with a leading axis `batch`.
    """
    if settings.name == "uniform" or (settings.name == "dynamic" and settings.iterations == 1):
        shape = weights.shape[:2]
        sharers = shape[0] if settings.name == "dynamic" and settings.softmax_over == "inputs" else shape[1]
        return _route_fixed(primary, weights, jnp.full(shape, 1 / sharers), jnp.zeros(shape), precision)
    if settings.name in ("learned", "random") and prior is not None:
        logits = jax.lax.stop_gradient(prior) if settings.name == "random" else prior
        return _route_fixed(primary, weights, jax.nn.softmax(logits, axis=-1), logits, precision)
    router = partial(ROUTERS[settings.name], **settings_of(settings))
    if prior is not None:
        router = partial(router, prior=prior)
    return jax.lax.platform_dependent(
        primary,
        weights,
        cpu=partial(_route_votes, router=router, precision=precision, images=_cached_images(weights)),
        default=partial(_route_votes, router=router, precision=precision, images=len(primary)),
    )


def _route_fixed(primary: Array, weights: Array, couplings: Array, logits: Array, precision: str) -> Routing:
    """One set of couplings for all images: parents squash(Σ_ik u_ik c_io W_iokd), a matrix product."""
    batch, (_, outputs, _, dim) = len(primary), weights.shape
    coupled = (couplings[:, :, None, None] * weights).transpose(0, 2, 1, 3)
    parents = primary.reshape(batch, -1).astype(precision) @ coupled.reshape(-1, outputs * dim).astype(precision)
    capsules = squash(parents.astype(primary.dtype).reshape(batch, outputs, dim))
    return Routing(capsules, *(jnp.broadcast_to(x, (batch, *x.shape)) for x in (couplings, logits)))


def _route_votes(
    primary: Array, weights: Array, *, router: Callable[..., Routing], precision: str, images: int
) -> Routing:
    """Votes of so many images at a time; the last lot is filled up with zeros, which route to zeros."""
    (batch, inputs, primary_dim), (_, outputs, _, dim) = primary.shape, weights.shape
    flat = weights.transpose(0, 2, 1, 3).reshape(inputs, primary_dim, outputs * dim).astype(precision)

    @jax.checkpoint
    def route_some(capsules: Array) -> Routing:
        # A product for every input, then laid out parent by parent with the inputs last: a router's sums over inputs
        # and over dimensions are matrix products then, where a CPU is at its best.
        votes = jnp.einsum("ibk,ikx->ibx", capsules.transpose(1, 0, 2).astype(precision), flat).transpose(1, 2, 0)
        votes = votes.astype(capsules.dtype).reshape(-1, outputs, dim, inputs)
        return jax.vmap(router)(votes.transpose(0, 3, 1, 2))

    if images >= batch:
        return route_some(primary)
    lots = -(-batch // images)
    filled = jnp.pad(primary, ((0, lots * images - batch), (0, 0), (0, 0)))
    routed = jax.lax.map(route_some, filled.reshape(lots, images, inputs, primary_dim))
    return jax.tree.map(lambda x: x.reshape(lots * images, *x.shape[2:])[:batch], routed)


def _cached_images(weights: Array) -> int:
    """How many images' votes fit `CACHED_VOTES`; at least one."""
    inputs, outputs, _, dim = weights.shape
    return max(1, CACHED_VOTES // (inputs * outputs * dim * weights.dtype.itemsize))
