"""What each routing iteration does to a trained or half-trained network."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Examples
from capsnet_jax.data.augment import batch_of, to_float
from capsnet_jax.models.capsnet import reroute
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import settings_of
from capsnet_jax.routing.result import Routing

BATCH = 250
DEAD = 0.1  # a capsule that never gets this long sends next to no vote


def probe(config: Config, params: PyTree, examples: Examples, *, classes: int) -> dict[str, Float[Array, ""]]:
    """Route every image with 1, 2, … iterations, whatever the network was trained with, and compare.

    Args:
        config: of the run; `routing.probe` is the greatest number of iterations.
        params: a CapsNet's.
        examples: images uint8[count, height, width, channels] and labels int32[count].
        classes: number of classes.

    Returns:
        Means over images, "…_at_2" standing for two iterations: "error_at_t" (percent), "entropy_at_t" (of an input's
        couplings, 1 when uniform), "agreement_at_t" (mean over inputs of û·v of the longest parent v, less the mean
        over all parents; t < the greatest). And of what changes from t − 1 to t ≥ 2: "flips_at_t" (percent of images
        whose class does), "logit_change_at_t" (mean |b_t − b_{t−1}|), "logit_drift_at_t" (mean b_t − b_{t−1}, with its
        sign), "coupling_change_at_t" (mean |c_t − c_{t−1}|), "capsule_change_at_t" (mean length of v_t − v_{t−1}).
        And "dead_capsules", the percentage of primary capsules never longer than 0.1 in any image. Nothing where
        `routing.probe` is 0, there are no examples, or nothing iterates.

    Source: mean change of the logits, Sabour et al. 2017, figure A.1; flips, Paik et al. 2019 (arXiv:1907.13327).
    """
    count = examples.labels.shape[0]
    if not config.routing.probe or not count or not _iterates(config, params):
        return {}
    model = models.build(config, classes)
    batches = -(-count // BATCH)

    def body(longest: Array, batch: Array) -> tuple[Array, dict[str, Array]]:
        held, counts = batch_of(examples, batch, BATCH)
        primary = model.apply({"params": params}, to_float(held.images))["primary"]
        seen = _iterations(partial(_route, config, params, primary), config.routing.probe, held.labels)
        lengths = jnp.where(counts[:, None], length(primary), 0)
        sums = {name: jnp.sum(jnp.where(counts, values, 0)) for name, values in seen.items()}
        return jnp.maximum(longest, jnp.max(lengths, axis=0)), sums

    inputs = params["digit"]["W"].shape[0]
    longest, sums = jax.lax.scan(body, jnp.zeros(inputs), jnp.arange(batches))
    means = {name: jnp.sum(values) / count for name, values in sums.items()}
    return means | {"dead_capsules": 100 * jnp.mean(longest < DEAD)}


def _iterates(config: Config, params: PyTree) -> bool:
    return "digit" in params and "iterations" in settings_of(config.routing)


def _route(config: Config, params: PyTree, primary: Array, iterations: int) -> Routing:
    return reroute(params, primary, dataclasses.replace(config.routing, iterations=iterations))


def _iterations(
    route: Callable[[int], Routing], greatest: int, labels: Int[Array, "batch"]
) -> dict[str, Float[Array, "batch"]]:
    """The quantities of `probe` for every image."""
    seen: dict[str, Array] = {}
    before: Routing | None = None
    for t in range(1, greatest + 1):
        now = route(t)
        guess = _guess(now)
        seen[f"error_at_{t}"] = 100.0 * (guess != labels)
        shares = jnp.sum(jax.scipy.special.entr(now.couplings), axis=-1) / jnp.log(now.couplings.shape[-1])
        seen[f"entropy_at_{t}"] = jnp.mean(shares, axis=-1)
        if before is not None:
            change = now.logits - before.logits  # the votes' agreement with the parents of t − 1
            seen[f"logit_change_at_{t}"] = jnp.mean(jnp.abs(change), axis=(1, 2))
            seen[f"logit_drift_at_{t}"] = jnp.mean(change, axis=(1, 2))
            seen[f"coupling_change_at_{t}"] = jnp.mean(jnp.abs(now.couplings - before.couplings), axis=(1, 2))
            seen[f"capsule_change_at_{t}"] = jnp.mean(length(now.capsules - before.capsules), axis=1)
            seen[f"flips_at_{t}"] = 100.0 * (guess != _guess(before))
            mine = jnp.take_along_axis(change, _guess(before)[:, None, None], axis=2)[..., 0]
            seen[f"agreement_at_{t - 1}"] = jnp.mean(mine - jnp.mean(change, axis=2), axis=1)
        before = now
    return seen


def _guess(routed: Routing) -> Int[Array, "batch"]:
    return jnp.argmax(length(routed.capsules), axis=-1)
