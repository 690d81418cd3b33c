"""What each routing iteration does to a trained or half-trained network."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from capsnet_jax import models
from capsnet_jax.config import Choice, Config
from capsnet_jax.data import Examples
from capsnet_jax.data.augment import map_batches, to_float, to_targets
from capsnet_jax.losses import error
from capsnet_jax.models.capsnet import route_again
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import ROUTERS, Trace
from capsnet_jax.routing.dynamic import Agreement
from capsnet_jax.training.evaluation import ObserveFn

BATCH = 250
DEAD = 0.1  # a capsule that is never more present than this sends next to no vote


def observe_routing(max_iterations: int) -> ObserveFn | None:
    """Make the observation of 1 … `max_iterations` routing iterations; None where that is 0."""
    return partial(routing_diagnostics, max_iterations=max_iterations) if max_iterations else None


def routing_diagnostics(
    config: Config, params: PyTree, stats: PyTree, examples: Examples, classes: int, *, max_iterations: int
) -> dict[str, Float[Array, ""]]:
    """Route every image once, with a trace, whatever the network was trained with, and compare the iterations.

    Args:
        config: of the run.
        params: a CapsNet's.
        stats: running statistics; a CapsNet has none.
        examples: images uint8[count, height, width, channels] and their labels.
        classes: number of classes.
        max_iterations: the greatest number of iterations.

    Returns:
        Means over images, "…_at_2" standing for two iterations: "error_at_t" (percent), "entropy_at_t" (of an input's
        couplings, 1 when uniform) and, of routers by agreement, "agreement_at_t" (mean over inputs of û·v of the most
        present parent v, less the mean over all parents; t < the greatest). And of what changes from t − 1 to t ≥ 2:
        "flips_at_t" (percent of images whose class does), "logit_change_at_t" (mean |b_t − b_{t−1}|),
        "logit_drift_at_t" (mean b_t − b_{t−1}, with its sign), "coupling_change_at_t" (mean |c_t − c_{t−1}|),
        "capsule_change_at_t" (mean length of v_t − v_{t−1}). And "dead_capsules", the percentage of primary capsules
        whose activation is never above 0.1. Nothing where there are no examples, the router does not iterate, or the
        network is no CapsNet.

    Source: mean change of the logits, Sabour et al. 2017, figure A.1; flips, Paik et al. 2019 (arXiv:1907.13327).
    """
    count = examples.labels.shape[0]
    if not count or config.routing is None or not iterates(config.routing) or "class_capsules" not in params:
        return {}
    model = models.build(config, classes)
    choice = with_iterations(config.routing, max_iterations)

    def body(batch: Examples, counts: Array) -> tuple[Array, dict[str, Array]]:
        out = models.apply(model, params, stats, to_float(batch.images))
        primary, activations = out["primary"], out["primary_activations"]
        trace = route_again(model, params, primary, choice, activations=activations, trace=True).trace
        assert trace is not None, "a router that traces returns its trace"
        quantities = _compare(trace, to_targets(batch.labels, classes))
        if not isinstance(choice.settings, Agreement):  # whose logits are sums of û·v
            quantities = {name: values for name, values in quantities.items() if not name.startswith("agreement")}
        present = jnp.where(counts[:, None], activations, 0)
        sums = {name: jnp.sum(jnp.where(counts, values, 0)) for name, values in quantities.items()}
        return jnp.max(present, axis=0), sums

    greatest, sums = map_batches(body, examples, BATCH)
    means = {name: jnp.sum(values) / count for name, values in sums.items()}
    return means | {"dead_capsules": 100 * jnp.mean(jnp.max(greatest, axis=0) <= DEAD)}


def entropy_of(couplings: Float[Array, "*batch outputs"]) -> Float[Array, "*batch"]:
    """Return the entropy of each input's couplings over its greatest value; they are scaled to sum to 1 first.

    An input that is coupled to no parent has entropy 0.
    """
    total = jnp.sum(couplings, axis=-1, keepdims=True)
    shares = couplings / jnp.where(total > 0, total, 1)
    return jnp.sum(jax.scipy.special.entr(shares), axis=-1) / jnp.log(couplings.shape[-1])


def iterates(routing: Choice | None) -> bool:
    """Whether a network's router iterates, and can return every iteration."""
    return routing is not None and ROUTERS[routing.name].traces and hasattr(routing.settings, "iterations")


def iterations_of(routing: Choice | None) -> int:
    """Return how often a network's router iterates; 1 if it does not, or cannot return every iteration."""
    return routing.settings.iterations if routing and iterates(routing) else 1


def with_iterations(routing: Choice, iterations: int) -> Choice:
    """Return the same router with another number of iterations."""
    return dataclasses.replace(routing, settings=dataclasses.replace(routing.settings, iterations=iterations))


def _compare(trace: Trace, targets: Float[Array, "batch classes"]) -> dict[str, Float[Array, "batch"]]:
    """Compute the quantities of `routing_diagnostics` for every image; the trace has a leading axis `batch`."""
    guesses = jnp.argmax(trace.activations, axis=-1)
    wrong = jax.vmap(jax.vmap(error, (0, None)))(trace.activations, targets)
    now, before = (jax.tree.map(lambda x, part=part: x[:, part], trace) for part in (slice(1, None), slice(-1)))
    change = now.logits - before.logits  # the votes' agreement with the parents of the iteration before
    to_chosen = jnp.take_along_axis(change, guesses[:, :-1, None, None], axis=3)[..., 0]
    of_iterations = {
        "error": 100 * wrong,
        "entropy": jnp.mean(entropy_of(trace.couplings), axis=-1),
        "agreement": jnp.mean(to_chosen - jnp.mean(change, axis=3), axis=2),
    }
    of_changes = {
        "logit_change": jnp.mean(jnp.abs(change), axis=(2, 3)),
        "logit_drift": jnp.mean(change, axis=(2, 3)),
        "coupling_change": jnp.mean(jnp.abs(now.couplings - before.couplings), axis=(2, 3)),
        "capsule_change": jnp.mean(length(now.capsules - before.capsules), axis=2),
        "flips": 100.0 * (guesses[:, 1:] != guesses[:, :-1]),
    }
    return {
        f"{name}_at_{t}": values[:, column]
        for first, quantities in ((1, of_iterations), (2, of_changes))
        for name, values in quantities.items()
        for column, t in enumerate(range(first, first + values.shape[1]))
    }
