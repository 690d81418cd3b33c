"""What tells a conv net's classes from its last feature map: pooling, a fully connected layer, or routed capsules."""

from collections import ChainMap
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.config import Choice, pytree_dataclass, static
from capsnet_jax.models.capsnet import ClassCapsules, route_primary
from capsnet_jax.models.layers import Conv, ConvNetSettings
from capsnet_jax.ops.pooling import global_average, global_max
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.routing import ROUTERS

# From the map to what a linear layer sees, with its name.
PLAIN: dict[str, Callable[[Array], tuple[str, Array]]] = {
    "avg": lambda x: ("average", global_average(x)),
    "max": lambda x: ("maximum", global_max(x)),
    "fc": lambda x: ("flat", x.reshape(len(x), -1)),
}
HEADS: ChainMap[str, Any] = ChainMap(ROUTERS, PLAIN)
HEAD_LAYERS = ("classes", "class_capsules")  # a net has the one or the other


def has_capsules(settings: Any) -> bool:
    """Whether a net of these settings ends with capsules."""
    return settings.head in ROUTERS


@pytree_dataclass
class HeadSettings(ConvNetSettings):
    """Settings of a conv net whose head is chosen; those of capsules are of use where a router is its head."""

    head: str = static("avg", choices=HEADS, doc="what tells the classes: avg, max, fc, or capsules routed by a router")
    capsule_types: int = static(4, low=1, only_if=has_capsules, doc="types of primary capsules")
    primary_dim: int = static(16, low=1, only_if=has_capsules, doc="dimensions of a primary capsule")
    class_dim: int = static(16, low=1, only_if=has_capsules, doc="dimensions of a class capsule")
    share_weights: bool = static(True, only_if=has_capsules, doc="whether all positions share the matrices of votes")


def apply_head(
    x: Float[Array, "batch height width channels"],
    classes: int,
    head: str,
    *,
    capsule_types: int,
    primary_dim: int,
    class_dim: int,
    share_weights: bool,
    precision: str,
) -> dict[str, Array]:
    """Tell the classes from the last feature map. Call it in a compact module.

    With a router as head, a 1×1 convolution makes `capsule_types` capsules at every position, squashed as CapsNet's,
    and the router, with its default settings, couples them to class capsules. With 4 types of 16 dimensions there are
    64 numbers a position, as many as a ResNet for CIFAR has channels. All positions share one W of the votes, so that
    a head has 14,400 parameters there beside what its router learns, and one of self-routing, whose routing weights no
    positions share, 57,920. The fully connected layer has 40,970 (8×8 positions, ten classes).

    The activations of self-routing do not depend on votes: without a decoder, W gets no gradient there.

    Args:
        x: the map.
        classes: how many.
        head: "avg", "max", "fc", or a key of ROUTERS.
        capsule_types: primary capsules at a position.
        primary_dim: dimensions of each.
        class_dim: dimensions of a class capsule.
        share_weights: whether all positions share W.
        precision: type of the convolution and of votes.

    Returns:
        The "average" or "maximum" over positions, or all of them "flat", and the classes' "logits"; or
        "primary_capsules" [batch, inputs, primary_dim], counted position by position, "capsules" of the classes and
        their activations as "lengths".

    Source: Hahn, Pyeon and Kim 2019, "Self-Routing Capsule Networks" (NeurIPS), who compare such heads on a ResNet-20.
    """
    if head not in ROUTERS:
        name, features = PLAIN[head](x)
        return {name: features, "logits": nn.Dense(classes, name="classes")(features)}
    primary = Conv(capsule_types * primary_dim, 1, precision=precision, name="primary")(x)
    positions = x.shape[1] * x.shape[2] if share_weights else 1
    routing = Choice(head, ROUTERS[head].settings)
    layer = ClassCapsules(classes, class_dim, 0.1, routing, precision, positions, name="class_capsules")
    routed = route_primary(layer, primary.reshape(len(x), -1, primary_dim), SQUASHES["sabour"])
    return {"primary_capsules": routed["primary"], "capsules": routed["capsules"], "lengths": routed["lengths"]}
