"""Heat maps of what capsules couple: which parts of an image a class capsule is made of, iteration by iteration."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from capsnet_jax.config import Choice, Config, ConfigError, check_word
from capsnet_jax.interpret.capsule_dimensions import check_decodes
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.receptive_fields import ReceptiveField, over_image
from capsnet_jax.interpret.routing_diagnostics import iterates, with_iterations
from capsnet_jax.interpret.targets import Classes, prepare
from capsnet_jax.models import MODELS
from capsnet_jax.models.capsnet import CapsNet, decode, route_again, weights_of_inputs
from capsnet_jax.models.efficient_capsnet import EfficientCapsNet
from capsnet_jax.models.forward import Forward
from capsnet_jax.ops.squash import length
from capsnet_jax.routing import Trace

Images = Num[Array | np.ndarray, "batch height width channels"]

KINDS = ("couplings", "coupled_votes", "difference")
EACH = ("type", "position")


class Alone(NamedTuple):
    """Primary capsules, and what the decoder makes of each of them alone.

    Attributes:
        inputs: which primary capsules.
        reconstructions: pixels in (0, 1).
    """

    inputs: Int[Array, "batch shown"]
    reconstructions: Float[Array, "batch shown height width channels"]


def coupling_maps(
    net: Network,
    images: Images,
    classes: Classes | None = None,
    *,
    iterations: int = 3,
    kind: str = "couplings",
    chunk: int = 32,
) -> Float[Array, "batch iterations height width"]:
    """Return how much each part of an image is coupled to a class capsule, after every routing iteration.

    A position's value is the sum over its capsule types. It stands at the centre of the position's receptive field;
    between centres it is interpolated.

    Args:
        net: a CapsNet's network.
        images: pixels in [0, 1], or bytes.
        classes: a class, or one an image; None: the one with the longest capsule.
        iterations: of routing, whatever the network was trained with. A router that does not iterate has one.
        kind: "couplings", c_ik a_i, with the primary capsules' activations; "difference", the same of couplings less
            uniform ones; or "coupled_votes", c_ik û_ik·v_k, with a sign: how far a vote agrees with the capsule that it
            helps to make.
        chunk: images at a time.

    Raises:
        ConfigError: the network has no primary capsules at positions, or there is no such kind or class.
    """
    check_word("kind", kind, KINDS)
    if isinstance(net, Network) and (lack := lacks_positions(net.config)):
        raise ConfigError(f"there are no couplings to draw over an image: {lack}")
    grid, routing = primary_grid(net), _routing(net.config, iterations)
    forward, images, target = prepare(net.forward, images, classes)
    strengths = _strengths(forward, routing, images, target.index[:, 0], kind=kind, chunk=chunk)
    summed = strengths.reshape(*strengths.shape[:2], *grid).sum(axis=-1)
    return over_image(summed, net.data.image_shape[:2], primary_field(net))


def reconstruct_from_one(
    net: Network, images: Images, classes: Classes | None = None, *, each: str = "type", lengthen: bool = True
) -> Alone:
    """Reconstruct every image from one primary capsule alone: the most coupled one of each type, or of each position.

    All other primary capsules are 0, and so are their votes. What remains of the class capsule points where the one
    vote points.

    Args:
        net: a CapsNet's network with a decoder.
        images: pixels in [0, 1], or bytes.
        classes: a class, or one an image; None: the one with the longest capsule.
        each: "type" or "position".
        lengthen: whether the class capsule is made as long as with all votes. One vote alone makes it so short that
            the decoder hardly sees it.

    Returns:
        Which capsules, counted row by row, column by column, type by type, by the greatest c_ik a_i; and pixels.

    Raises:
        ConfigError: the network has no primary capsules or no decoder, or there is no such class.

    Source of the idea: github.com/ethanleet/CapsNet, which trains a decoder of primary capsules for it.
    """
    check_word("each", each, EACH)
    check_decodes(net)
    (rows, columns, types), routing = primary_grid(net), _routing(net.config)
    forward, images, target = prepare(net.forward, images, classes)
    of_class = target.index[:, 0]
    strengths = _strengths(forward, routing, images, of_class, kind="couplings", chunk=32)[:, -1]
    numbered = jnp.arange(rows * columns * types).reshape(-1, types)
    groups = numbered.T if each == "type" else numbered
    best = jnp.argmax(strengths[:, groups], axis=-1)
    inputs = jnp.take_along_axis(jnp.broadcast_to(groups, (len(images), *groups.shape)), best[..., None], -1)[..., 0]

    out = net.outputs(images)
    one = jax.nn.one_hot(inputs, numbered.size)
    alone, activations = one[..., None] * out["primary"][:, None], one * out["primary_activations"][:, None]
    capsules = route_again(
        net.model,
        net.params,
        alone.reshape(-1, *alone.shape[2:]),
        routing,
        activations=activations.reshape(-1, numbered.size),
    ).capsules
    if lengthen:
        whole = jnp.repeat(length(out["capsules"]), inputs.shape[1], axis=0)
        capsules *= (whole / jnp.maximum(length(capsules), 1e-12))[..., None]
    one_hot = jax.nn.one_hot(jnp.repeat(of_class, inputs.shape[1]), net.data.classes)
    pixels = decode(net.model, net.params, capsules, one_hot)
    return Alone(inputs, pixels.reshape(*inputs.shape, *net.data.image_shape))


def primary_grid(net: Any) -> tuple[int, int, int]:
    """Return (rows, columns, types) of a CapsNet's primary capsules, in the order in which they are counted.

    Raises:
        ConfigError: the network is no CapsNet.
    """
    model = getattr(net, "model", None)
    if isinstance(model, EfficientCapsNet):  # each of its capsules sees the whole image
        return 1, 1, model.capsule_types
    if not isinstance(model, CapsNet):
        name = net.name if isinstance(net, Network) else "this net"
        raise ConfigError(
            f"{name} has no primary capsules; take the network of a CapsNet, as interpret.restore returns it"
        )
    field = primary_field(net)
    spans = zip(net.data.image_shape[:2], field.size, field.stride, strict=True)
    rows, columns = ((pixels - size) // stride + 1 for pixels, size, stride in spans)
    return rows, columns, model.capsule_types


def primary_field(net: Network) -> ReceptiveField:
    """Return which pixels a position of a CapsNet's primary capsules sees."""
    side = 2 * net.model.kernel - 1
    return ReceptiveField((side, side), (2, 2), (0, 0))


def trace_routing(net: Network, images: Images, iterations: int) -> Trace:
    """Route images once, and return every iteration, whatever the network was trained with.

    Args:
        net: a CapsNet.
        images: pixels in [0, 1], or bytes.
        iterations: of routing. A router that does not iterate has one.

    Returns:
        Every field with leading axes `batch` and `iterations`.

    Raises:
        ConfigError: the network does not route.
    """
    routing = _routing(net.config, iterations)
    return _trace(net.forward, net.outputs(images), routing)


def lacks_routing(config: Config) -> str | None:
    """Say why a config's network has no couplings, and the remedy; None if it has."""
    return None if config.routing else f"{config.model.name} does not route; use --set model.name=capsnet_small"


def lacks_positions(config: Config) -> str | None:
    """Say why a config's network has no couplings that can be drawn over an image, and the remedy; None if it has."""
    if config.routing is None or MODELS[config.model.name].module is CapsNet:
        return lacks_routing(config)
    return f"{config.model.name} has no single layer of capsules at positions; use --set model.name=capsnet_small"


def _routing(config: Config, iterations: int | None = None) -> Choice:
    """Return a network's router, with another number of iterations where it iterates."""
    if config.routing is None:
        raise ConfigError(f"there are no couplings to trace: {lacks_routing(config)}")
    if iterations is None or not iterates(config.routing):
        return config.routing
    return with_iterations(config.routing, iterations)


def _trace(forward: Forward, out: dict[str, Array], routing: Choice) -> Trace:
    net, params = forward.module, forward.variables["params"]
    routed = route_again(net, params, out["primary"], routing, activations=out["primary_activations"], trace=True)
    if routed.trace is not None:
        return routed.trace
    fields = routed.capsules, routed.activations, routed.couplings, routed.logits
    return Trace(*(field[:, None] for field in fields))


@partial(jax.jit, static_argnames=("kind", "chunk"))
def _strengths(
    forward: Forward, routing: Choice, images: Array, classes: Array, *, kind: str, chunk: int
) -> Float[Array, "batch iterations inputs"]:
    """Return each primary capsule's share in the class capsule of its image."""

    def evaluate(image: Array, _: Array) -> Array:
        of_class = classes[image]
        out = forward(images[image])
        primary, trace = out["primary"], _trace(forward, out, routing)
        couplings = jnp.take_along_axis(trace.couplings, of_class[:, None, None, None], axis=-1)[..., 0]
        if kind == "coupled_votes":
            weights = weights_of_inputs(forward.variables["params"]["class_capsules"]["W"], primary.shape[1])
            weights = weights[:, of_class]  # [inputs, chunk, primary_dim, dim]
            capsules = jnp.take_along_axis(trace.capsules, of_class[:, None, None, None], axis=2)[:, :, 0]
            return couplings * jnp.einsum("bik,ibkd,btd->bti", primary, weights, capsules)
        if kind == "difference":
            # Of a softmax their mean is one over a whole number; rounded, as a map of nothing but rounding errors has
            # an order too. Max-min couplings have any mean.
            mean = trace.couplings.mean(axis=(-2, -1))[..., None]
            uniform = 1 / jnp.round(1 / mean)
            couplings -= jnp.where(jnp.abs(mean - uniform) < 1e-3 * uniform, uniform, mean)
        return couplings * out["primary_activations"][:, None]

    return map_chunks(evaluate, len(images), 1, chunk)[:, 0]
