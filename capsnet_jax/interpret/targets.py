"""What is explained of a net: a class, a unit, a channel, a capsule's length or dimension, or any function.

A target is a function of a net's outputs to scores[batch]. Methods also take a class, or one class an image, in its
place. Those made here say by an array of numbers which one is meant, so that many targets share a compiled program and
can be mapped over.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int, Num

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.examples import check_images, to_pixels
from capsnet_jax.interpret.program import Net, Outputs, check_layer
from capsnet_jax.ops.squash import length

CHUNK = 32  # images at a time, where their own classes are looked for
SCORES = ("logits", "lengths", "output")  # what tells the classes, the first that a net has


@partial(jax.tree_util.register_dataclass, data_fields=["index"], meta_fields=["score", "of"])
@dataclasses.dataclass(frozen=True)
class Target:
    """A function of a net's outputs to one score an image.

    Attributes:
        score: (outputs, of, index) → scores[batch].
        of: a layer's name, or what else `score` needs to know.
        index: int[numbers] or int[batch, numbers], which one is meant.
    """

    score: Callable[[Outputs, Any, Array], Array]
    of: Hashable
    index: Int[Array, "*batch numbers"]

    def __call__(self, outputs: Outputs) -> Float[Array, "batch"]:
        """Return the score of every image."""
        return self.score(outputs, self.of, self.index)

    def of_images(self, which: Int[Array, "chunk"]) -> "Target":
        """Return the target of some of the images, where the index has one for each image."""
        return dataclasses.replace(self, index=self.index[which])


Classes = int | Int[Array | np.ndarray, "..."] | Sequence[int]
AnyTarget = Target | Callable[[Outputs], Array] | Classes | None


def class_score(classes: Classes) -> Target:
    """Return the target that is a class's score, or one class's of each image: its logit or its capsule's length."""
    return _target(_class_score, "", classes)


def channel(layer: str, channels: Classes) -> Target:
    """Return the target that is the mean of a layer's channel over all positions."""
    return _target(_channel, layer, channels)


def unit(layer: str, units: Classes) -> Target:
    """Return the target that is one unit: of a layer with positions, the middle one of that channel."""
    return _target(_unit, layer, units)


def unit_at(layer: str, row: int, column: int, channel: int) -> Target:
    """Return the target that is one unit of a layer with positions."""
    return Target(_unit_at, layer, jnp.array([row, column, channel]))


def capsule_length(capsules: Classes, *, layer: str = "capsules") -> Target:
    """Return the target that is the length of a capsule, |v_k|: a class's, or another of a layer of capsules."""
    return _target(_capsule_length, layer, capsules)


def capsule_contrast(classes: Classes) -> Target:
    """Return the target that is how present a class capsule is, less the mean of all others.

    (K a_k − Σ_j a_j) / (K − 1), with a = |v| where a capsule's length says it: an image that makes all capsules long
    does not help.
    """
    return _target(_capsule_contrast, "", classes)


def capsule_dimension(capsules: Classes, dims: Classes, *, layer: str = "capsules") -> Target:
    """Return the target that is one dimension of a capsule, v_kd: a class's, or another of a layer of capsules."""
    pair = jnp.broadcast_arrays(jnp.asarray(capsules), jnp.asarray(dims))
    return Target(_capsule_dimension, layer, jnp.stack(pair, axis=-1))


def layer_energy(layer: str) -> Target:
    """Return the target that is the mean square of all of a layer's activations."""
    return Target(_energy, layer, jnp.zeros(0, int))


def prepare(
    net: Net, images: Num[Array | np.ndarray, "batch height width channels"], target: AnyTarget = None
) -> tuple[Partial | Any, Float[Array, "batch height width channels"], Target]:
    """Make what a method is given into what a jitted function takes, and check it.

    Args:
        net: a function of images to {name: array}, or to scores[batch]; or what has such a function as `forward`.
        images: pixels in [0, 1], or bytes.
        target: see this module; None: the class that the net itself chooses for each image.

    Returns:
        The net as an argument of jitted functions, images as floats, and the target with an index for every image.

    Raises:
        ConfigError: images have no batch axis, or there is no such layer, unit or class.
    """
    net = as_argument(net)
    images = to_pixels(images)
    check_images(images)
    outputs = jax.eval_shape(named_outputs, net, images)
    if target is None:
        target = _own(net, images, outputs)
    elif not callable(target):
        target = class_score(target)
    elif not isinstance(target, Target):
        target = Target(_custom, target, jnp.zeros(0, int))
    _check(target, outputs)
    if target.index.ndim > 1 and len(target.index) not in (1, len(images)):
        raise ConfigError(f"{len(target.index)} targets for {len(images)} images; give one, or one for each image")
    index = jnp.broadcast_to(target.index, (len(images), target.index.shape[-1]))
    return net, images, dataclasses.replace(target, index=index)


def as_argument(net: Net) -> Any:
    """Return a net as what a jitted function takes as an argument: its arrays are traced, the rest is its structure."""
    net = getattr(net, "forward", net)
    # A registered callable is its own pytree; a plain function is a leaf, which jit refuses.
    return Partial(net) if jax.tree.leaves(net) == [net] else net


def scores_of(outputs: Outputs) -> Float[Array, "batch classes"]:
    """Return what tells a net's classes.

    Raises:
        ConfigError: its outputs name none of what is looked for.
    """
    return outputs[scores_layer(outputs)]


def scores_layer(outputs: Mapping[str, Any]) -> str:
    """Return the name of what tells a net's classes, as `scores_of`."""
    for name in SCORES:
        if name in outputs:
            return name
    raise ConfigError(f"the net's outputs name no {', '.join(SCORES)}; give a target that is a function of them")


def score(net: Net, target: Target, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch"]:
    """Return the target's score of every image."""
    return target(named_outputs(net, images))


def named_outputs(net: Net, images: Array) -> Outputs:
    """Return a net's outputs by name; those of a net that returns scores alone are its "output"."""
    outputs = net(images)
    return outputs if hasattr(outputs, "keys") else {"output": outputs}


def _own(net: Net, images: Array, outputs: Outputs) -> Target:
    if "output" in outputs and outputs["output"].ndim == 1:  # scores already
        return Target(_custom, _output, jnp.zeros(0, int))
    return class_score(_chosen(net, images))


@jax.jit
def _chosen(net: Net, images: Array) -> Int[Array, "batch"]:
    """Return the class that a net chooses for each image."""

    def choose(which: Array, _: Array) -> Array:
        return jnp.argmax(scores_of(named_outputs(net, images[which])), axis=-1)

    return map_chunks(choose, len(images), 1, CHUNK)[:, 0]


def _output(outputs: Outputs) -> Array:
    return outputs["output"]


def _target(score: Callable[..., Array], of: str, index: Classes) -> Target:
    return Target(score, of, jnp.asarray(index, jnp.int32)[..., None])


def _check(target: Target, outputs: Outputs) -> None:
    """Raise a ConfigError if a net has no such layer, unit or class."""
    if target.score is _custom:
        return
    layer = str(target.of) or scores_layer(outputs)
    check_layer(layer, outputs)
    shape, axes = outputs[layer].shape, _AXES.get(target.score, {-1: "units" if target.of else "classes"})
    if len(axes) > 1 and len(shape) != 1 + max(axes):
        raise ConfigError(
            f"{layer} is {'×'.join(map(str, shape[1:]))} and has no {' and '.join(axes.values())} to name"
        )
    for (axis, what), used in zip(axes.items(), np.moveaxis(np.asarray(target.index), -1, 0), strict=False):
        if bad := [int(k) for k in np.ravel(used) if not 0 <= k < shape[axis]]:
            has = f"{target.of} has" if target.of else "the net has"
            raise ConfigError(f"{has} {shape[axis]} {what}, counted from 0, and no {bad[0]}; name one of these")


def _pick(values: Array, index: Array) -> Array:
    """Return values[batch, index]: one index, or one for each image."""
    index = jnp.broadcast_to(index, values.shape[:1])
    return jnp.take_along_axis(values, index.reshape(-1, *[1] * (values.ndim - 1)), axis=1)[:, 0]


def _class_score(outputs: Outputs, _: Any, index: Array) -> Array:
    return _pick(scores_of(outputs), index[..., 0])


def _channel(outputs: Outputs, layer: str, index: Array) -> Array:
    means = outputs[layer].mean(axis=tuple(range(1, outputs[layer].ndim - 1)))
    return _pick(means, index[..., 0])


def _unit(outputs: Outputs, layer: str, index: Array) -> Array:
    array = outputs[layer]
    middle = array[(slice(None), *(size // 2 for size in array.shape[1:-1]))]
    return _pick(middle, index[..., 0])


def _unit_at(outputs: Outputs, layer: str, index: Array) -> Array:
    return _pick(_pick(_pick(outputs[layer], index[..., 0]), index[..., 1]), index[..., 2])


def _capsule_length(outputs: Outputs, of: str, index: Array) -> Array:
    return _pick(length(outputs[of]), index[..., 0])


def _capsule_contrast(outputs: Outputs, _: Any, index: Array) -> Array:
    present = scores_of(outputs)
    classes = present.shape[1]
    return (classes * _pick(present, index[..., 0]) - present.sum(axis=1)) / (classes - 1)


def _capsule_dimension(outputs: Outputs, of: str, index: Array) -> Array:
    return _pick(_pick(outputs[of], index[..., 0]), index[..., 1])


def _energy(outputs: Outputs, layer: str, _: Array) -> Array:
    return jnp.mean(outputs[layer] ** 2, axis=tuple(range(1, outputs[layer].ndim)))


def _custom(outputs: Outputs, function: Callable[[Outputs], Array], _: Array) -> Array:
    return function(outputs)


# What the numbers of a target count: {axis: name}. Of all others, the units of the last axis.
_AXES: dict[Callable[..., Array], dict[int, str]] = {
    _unit_at: {1: "rows", 2: "columns", 3: "channels"},
    _capsule_length: {1: "capsules"},
    _capsule_dimension: {1: "capsules", 2: "dimensions"},
}
