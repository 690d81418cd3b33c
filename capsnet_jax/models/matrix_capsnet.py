"""Matrix capsules: Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing" (ICLR), figure 1."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from capsnet_jax.config import Choice, pytree_dataclass, static, traced
from capsnet_jax.models.capsnet import router_parameters
from capsnet_jax.models.layers import PRECISIONS, Conv
from capsnet_jax.routing import ROUTERS, Routing
from capsnet_jax.routing.convolution import route_convolution
from capsnet_jax.routing.inverted_attention import concurrent_routing

SIDE = 4  # of a pose matrix
POSE = SIDE * SIDE
WINDOW = 3  # side of the windows of convolutional capsules, positions
COORDINATES = (3, 7)  # the elements of a class's votes that rows and columns are added to


@pytree_dataclass
class MatrixCapsNetSettings:
    """Sizes of a net of matrix capsules; the defaults are those of the paper's net of 68,000 parameters."""

    channels: int = static(64, low=1, doc="A: channels of the first convolution")
    kernel: int = static(5, low=1, doc="side of the first convolution's kernel, pixels")
    capsule_types: tuple[int, ...] = static(
        (8, 16, 16), low=1, doc="B, C, D: types of primary capsules, and of each convolutional layer of capsules"
    )
    pose: str = static("matrix", choices=("matrix", "vector"), doc="4×4 matrices times 4×4 matrices, or 16-vectors")
    coordinates: bool = static(True, doc="where a capsule is, is added to its votes for the classes")
    weight_scale: float = traced(
        0.1, low=0, doc="σ of the normal, cut at 2σ, that is added to the identity at the start of W"
    )
    precision: str = static(
        "float32", choices=PRECISIONS, doc="of products (float32 is TF32 on a GPU); routing stays float32"
    )


class MatrixCapsNet(nn.Module):
    """Images to class capsules by way of convolutional layers of capsules.

    Attributes:
        classes: number of class capsules.
        channels: channels of the first convolution.
        kernel: side of its kernel, pixels; it moves two pixels at a time.
        capsule_types: types of primary capsules, and of each layer of convolutional capsules. Their windows are 3×3,
          and those of the first such layer move two positions at a time.
        pose: "matrix", or "vector": what W multiplies.
        coordinates: whether the scaled centre of a capsule's receptive field is added to its votes for the classes.
        weight_scale: σ of the normal, cut at 2σ, that is added to the identity at the start of transformation matrices.
        routing: a key of ROUTERS with its settings: how capsules choose their parents, in every layer.
        precision: type of convolutions and votes; routing is float32.
    """

    classes: int = 10
    channels: int = 64
    kernel: int = 5
    capsule_types: tuple[int, ...] = (8, 16, 16)
    pose: str = "matrix"
    coordinates: bool = True
    weight_scale: float | Array = 0.1
    routing: Choice = Choice("em", ROUTERS["em"].settings)
    precision: str = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"]) -> dict[str, Any]:
        """Run the network.

        Args:
            images: pixels in [0, 1].

        Returns:
            "conv1" activations; of the primary capsules and of each layer "capsules1", "capsules2", … its "…_poses"
            [batch, capsules, 16] and "…_activations" [batch, height, width, types]; the class "capsules" [batch,
            classes, 16] and their activations as "lengths" [batch, classes]; and the last layer's "couplings" and
            "routing_logits" [batch, inputs, classes].
        """
        conv = partial(Conv, precision=self.precision)
        out = {"conv1": nn.relu(conv(self.channels, self.kernel, strides=2, name="conv1")(images))}
        primary, *types = self.capsule_types
        poses = conv(primary * POSE, 1, name="primary_poses")(out["conv1"])
        poses = poses.reshape(*poses.shape[:3], primary, POSE)
        activations = nn.sigmoid(conv(primary, 1, name="primary_activations")(out["conv1"]))
        out |= _looked_at("primary", poses, activations)

        layer = partial(
            CapsuleLayer,
            matrices=self.pose == "matrix",
            weight_scale=self.weight_scale,
            routing=self.routing,
            precision=self.precision,
        )
        layers = [layer(n, stride=1 if index else 2, name=f"capsules{index + 1}") for index, n in enumerate(types)]
        layers.append(layer(self.classes, everywhere=True, coordinates=self.coordinates, name="classes"))
        if getattr(self.routing.settings, "schedule", "sequential") == "concurrent":
            routings = concurrent_routing(
                [each.route_once for each in layers], poses, iterations=self.routing.settings.iterations
            )
        else:
            routings = []
            for each in layers:
                routings.append(each(poses, activations))
                poses, activations = routings[-1].capsules, routings[-1].activations
        for each, routed in zip(layers[:-1], routings[:-1], strict=True):
            out |= _looked_at(each.name, routed.capsules, routed.activations)
        routed = routings[-1]
        out |= {"capsules": routed.capsules[:, 0, 0], "lengths": routed.activations[:, 0, 0]}
        return out | {"couplings": routed.couplings[:, 0], "routing_logits": routed.logits[:, 0]}


class CapsuleLayer(nn.Module):
    """Votes V_io = M_i W_io of the capsules in a window, and the routing that couples them.

    W is float[inputs, types, 4, 4], or [inputs, types, 16, 16] of vectors, the same at all positions, without a bias.
    What a router learns is its parameter `routing`.

    Attributes:
        types: types of parents.
        stride: positions that the window moves.
        everywhere: whether the only window is all of the layer below, where W is the same for a type at each position.
        coordinates: whether the place of each capsule in the window is added to its votes.
        matrices: whether poses are 4×4 matrices.
        weight_scale: σ of the normal, cut at 2σ, that is added to the identity at the start of W.
        routing: a key of ROUTERS with its settings.
        precision: type of the products with W.
    """

    types: int
    stride: int = 1
    everywhere: bool = False
    coordinates: bool = False
    matrices: bool = True
    weight_scale: float | Array = 0.1
    routing: Choice = Choice("em", ROUTERS["em"].settings)
    precision: str = "float32"

    def route_once(
        self,
        poses: Float[Array, "batch height width types primary"],
        parents: Float[Array, "batch out_height out_width outputs pose"] | None,
    ) -> Routing:
        """Make the parents anew, by one iteration from what they were."""
        once = dataclasses.replace(self.routing.settings, iterations=1)
        return self(poses, None, parents=parents, routing=Choice(self.routing.name, once))

    @nn.compact
    def __call__(
        self,
        poses: Float[Array, "batch height width types primary"],
        activations: Float[Array, "batch height width types"] | None,
        *,
        parents: Float[Array, "batch out_height out_width outputs pose"] | None = None,
        routing: Choice | None = None,
    ) -> Routing:
        """Route the capsules of a batch; `routing` in place of the layer's own."""
        _, *grid, below, pose = poses.shape
        kernel = (grid[0], grid[1]) if self.everywhere else (WINDOW, WINDOW)
        window, side = math.prod(kernel), SIDE if self.matrices else pose
        shape = (below if self.everywhere else window * below, self.types, side, side)

        def start_weights(key: Array) -> Array:
            # From the identity, votes do not cancel in a mean, and no parent has a head start. W around 0 learns too,
            # in more steps, if σ is near 1.
            return jnp.eye(side)[None, None] + self.weight_scale * jax.random.truncated_normal(key, -2, 2, shape)

        weights = self.param("W", start_weights)
        weights = jnp.tile(weights, (window, 1, 1, 1)) if self.everywhere else weights
        return route_convolution(
            poses,
            activations,
            weights,
            routing or self.routing,
            router_parameters(self, self.routing, window * below, self.types, pose, pose),
            kernel=kernel,
            stride=self.stride,
            offsets=_coordinates(kernel, below, pose) if self.coordinates else None,
            parents=parents,
            precision=self.precision,
        )


def _coordinates(kernel: tuple[int, int], types: int, pose: int) -> Float[Array, "inputs pose"]:
    """Return the centre of each input's receptive field, rows and columns in (−½, ½), in the elements they belong to.

    From 0 to 1 would lead to the same net with EM routing. Routers that add votes up would have parents of one length.
    """
    centres = [(jnp.arange(size) + 0.5) / size - 0.5 for size in kernel]
    grid = jnp.stack(jnp.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2)
    offsets = jnp.zeros((len(grid), pose)).at[:, jnp.array(COORDINATES)].set(grid)
    return jnp.repeat(offsets, types, axis=0)


def _looked_at(
    name: str, poses: Float[Array, "batch height width types pose"], activations: Float[Array, "..."]
) -> dict[str, Array]:
    """Return a layer's outputs: poses one by one, activations at positions."""
    return {f"{name}_poses": poses.reshape(len(poses), -1, poses.shape[-1]), f"{name}_activations": activations}
