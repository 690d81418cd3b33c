"""Inverted dot-product attention: parents compete for each input, and are normalised instead of squashed."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.config import pytree_dataclass, static
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing.result import Routing, Softmax, Trace, bound_squash, softmax_over_parents


@pytree_dataclass
class InvertedAttention:
    """Settings of inverted dot-product attention."""

    iterations: int = static(2, low=1, high=100, doc="routing iterations r; the first is uniform")
    schedule: str = static(
        "sequential",
        choices=("sequential", "concurrent"),
        only_if=lambda routing: routing.iterations > 1,
        doc="each layer to its end before the next, or all at once; of one layer the same",
    )
    squash: str = static("layer_norm", choices=SQUASHES, doc="how parents are squashed")


def inverted_attention_parameters(
    key: PRNGKeyArray, inputs: int, outputs: int, dim: int, *, settings: InvertedAttention
) -> dict[str, Float[Array, "dim"]]:
    """Start the gain of layer normalisation at 1 and its bias at 0; {} with another squash."""
    del key, inputs, outputs
    return {"gain": jnp.ones(dim), "bias": jnp.zeros(dim)} if settings.squash == "layer_norm" else {}


def inverted_attention_routing(
    votes: Float[Array, "inputs outputs dim"],
    *,
    iterations: int = 2,
    schedule: str = "sequential",
    squash: str = "layer_norm",
    parents: Float[Array, "outputs dim"] | None = None,
    parameters: dict[str, Any] | None = None,
    softmax: Softmax = softmax_over_parents,
    trace: bool = False,
) -> Routing:
    """Let the parents of an input compete by how far their poses agree with its votes.

    Args:
        votes: v of one example, what each input capsule predicts for each parent.
        iterations: how often parents are made; in the first one all couplings are equal.
        schedule: how several layers take turns, see `concurrent_routing`; it makes no difference to a single one.
        squash: a key of SQUASHES; the paper's is "layer_norm".
        parents: as an earlier pass has left them; None: the first couplings are all equal.
        parameters: {"gain", "bias"} [dim] of layer normalisation, and what the squash learns.
        softmax: how logits become shares among the parents of an input.
        trace: whether to return every iteration.

    Source: Tsai, Srivastava, Goh and Salakhutdinov 2020 (arXiv:2002.04764), procedure 1. Layer normalisation has
    the gain and the bias of Ba, Kiros and Hinton 2016 (arXiv:1607.06450).
    """
    del schedule
    steps: list[Routing] = []
    for _ in range(iterations):
        before = steps[-1].capsules if steps else parents
        steps.append(attention_step(votes, before, squash=squash, parameters=parameters, softmax=softmax))
    stacked = Trace(*map(jnp.stack, zip(*(step[:4] for step in steps), strict=True))) if trace else None
    return steps[-1]._replace(trace=stacked)


def attention_step(
    votes: Float[Array, "inputs outputs dim"],
    parents: Float[Array, "outputs dim"] | None,
    *,
    squash: str = "layer_norm",
    parameters: dict[str, Any] | None = None,
    softmax: Softmax = softmax_over_parents,
) -> Routing:
    """Make parents anew from the votes, coupled by how far they agree with the parents that there were.

    Args:
        votes: v of one example.
        parents: p, as the step before has left them; None: there was none, and all couplings are equal.
        squash: a key of SQUASHES.
        parameters: as of `inverted_attention_routing`.
        softmax: how logits become shares among the parents of an input.
    """
    if parents is None:
        logits = jnp.zeros(votes.shape[:2], votes.dtype)
    else:
        logits = jnp.einsum("iod,od->io", votes, parents) / jnp.sqrt(votes.shape[-1])  # a_ij = p_j · v_ij / √d
    couplings = softmax(logits)  # r_ij = softmax_j(a_ij)
    normalize = bound_squash(squash, parameters)
    capsules = normalize(jnp.einsum("io,iod->od", couplings, votes))  # p_j = LayerNorm(Σ_i r_ij v_ij)
    if squash == "layer_norm" and parameters is not None:
        capsules = capsules * parameters["gain"][None] + parameters["bias"][None]
    return Routing(capsules, normalize.activation(capsules), couplings, logits)


def concurrent_routing(
    layers: Sequence[Callable[[Array, Array | None], Routing]], poses: Array, *, iterations: int
) -> list[Routing]:
    """Route several layers of capsules, all at once from the second iteration on.

    The first iteration goes from layer to layer, with equal couplings. In each of the others every layer looks at what
    the one below it, and it itself, were in the iteration before. With one layer this is sequential routing.

    Args:
        layers: from the lowest to the class capsules, each (capsules below, its own capsules or None) → `Routing`: one
          `attention_step` of the layer's votes.
        poses: the capsules below the lowest layer, which stay as they are.
        iterations: how often every layer is made.

    Returns:
        What each layer has become in the last iteration.

    Source: Tsai et al. 2020 (arXiv:2002.04764), procedure 2.
    """
    routings: list[Routing] = []
    for layer in layers:
        routings.append(layer(routings[-1].capsules if routings else poses, None))
    for _ in range(iterations - 1):
        before = [poses, *(routing.capsules for routing in routings)]  # one more than layers
        routings = [layer(before[index], before[index + 1]) for index, layer in enumerate(layers)]
    return routings
