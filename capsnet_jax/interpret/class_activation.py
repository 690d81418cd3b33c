"""Heat maps from the activations of a layer, weighted by what they do for a target: Grad-CAM and its relatives.

All take a network or any function of images to {name: array}, images in [0, 1] or bytes, the name of a layer, and a
target as in `attribution`. They return one channel of the images' size, 0 or positive.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.capsule_maps import primary_grid
from capsnet_jax.interpret.chunks import map_chunks
from capsnet_jax.interpret.program import Net, check_layer, continue_from
from capsnet_jax.interpret.receptive_fields import ReceptiveField, over_image, receptive_field
from capsnet_jax.interpret.targets import AnyTarget, Target, named_outputs, prepare

Images = Num[Array | np.ndarray, "batch height width channels"]
CAM = Float[Array, "batch height width 1"]
Grid = tuple[int, int] | None
Weigh = Callable[[Array, Array], Array]  # (activations, gradient) [batch, rows, columns, channels] → map [batch, …, 1]


def grad_cam(
    net: Net,
    images: Images,
    layer: str,
    target: AnyTarget = None,
    *,
    grid: Grid = None,
    placed: bool = False,
    chunk: int = 32,
) -> CAM:
    """Return Grad-CAM: ReLU(Σ_c w_c A_c), each channel weighted by its mean gradient over positions.

    Args:
        net: see this module, as for the other arguments.
        images: the same.
        layer: whose activations A are weighted.
        target: the same.
        grid: (rows, columns) of a layer [batch, inputs, dim] whose inputs are rows × columns × types, as primary
            capsules are; of a CapsNet of ours it is known.
        placed: whether a position's value stands at the centre of its receptive field. If not, the map is stretched
            over the image, as published, which shifts what a net without padding sees towards the border.
        chunk: images at a time.

    Raises:
        ConfigError: there is no such layer, or it has no positions.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391).
    """
    return _class_activation(net, images, layer, target, grid, placed, chunk, _grad_cam)


def grad_cam_plus_plus(
    net: Net,
    images: Images,
    layer: str,
    target: AnyTarget = None,
    *,
    grid: Grid = None,
    placed: bool = False,
    chunk: int = 32,
) -> CAM:
    """Return Grad-CAM++, in which every position of a channel has a weight of its own. Arguments as of `grad_cam`.

    It is made for layers after a ReLU. Where activations are negative, the weights may have any size and sign.

    Source: Chattopadhay et al. 2018 (arXiv:1710.11063), equation 19, the score being the exponential of the target.
    """
    return _class_activation(net, images, layer, target, grid, placed, chunk, _grad_cam_plus_plus)


def layer_cam(
    net: Net,
    images: Images,
    layer: str,
    target: AnyTarget = None,
    *,
    grid: Grid = None,
    placed: bool = False,
    chunk: int = 32,
) -> CAM:
    """Return LayerCAM: ReLU(Σ_c ReLU(∂y/∂A_c) A_c), each position by its own gradient. Arguments as of `grad_cam`.

    Source: Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization".
    """
    return _class_activation(net, images, layer, target, grid, placed, chunk, _layer_cam)


def _grad_cam(activations: Array, gradient: Array) -> Array:
    weights = gradient.mean(axis=(1, 2), keepdims=True)
    return jnp.sum(weights * activations, axis=-1, keepdims=True)


def _grad_cam_plus_plus(activations: Array, gradient: Array) -> Array:
    # w_c = Σ_hw α ReLU(g), α = g² / (2 g² + g³ Σ_hw A) at every position. Without g², of which a mean over positions
    # leaves next to nothing, α = 1 / (2 + g Σ_hw A).
    divisor = 2 + gradient * jnp.sum(activations, axis=(1, 2), keepdims=True)
    alpha = jnp.where(divisor == 0, 0, 1 / jnp.where(divisor == 0, 1, divisor))
    weights = jnp.sum(alpha * jax.nn.relu(gradient), axis=(1, 2), keepdims=True)
    return jnp.sum(weights * activations, axis=-1, keepdims=True)


def _layer_cam(activations: Array, gradient: Array) -> Array:
    return jnp.sum(jax.nn.relu(gradient) * activations, axis=-1, keepdims=True)


def _class_activation(
    net: Net, images: Images, layer: str, target: AnyTarget, grid: Grid, placed: bool, chunk: int, weigh: Weigh
) -> Array:
    argument, pixels, target = prepare(net, images, target)
    outputs = jax.eval_shape(named_outputs, argument, pixels)
    check_layer(layer, outputs)
    shape = outputs[layer].shape[1:]
    positions = _positions(net, layer, shape, grid)
    _, height, width, channels = pixels.shape
    field = receptive_field(argument, (height, width, channels), layer) if placed else None
    return _jitted(argument, pixels, target, layer=layer, positions=positions, field=field, chunk=chunk, weigh=weigh)


def _positions(net: Net, layer: str, shape: tuple[int, ...], grid: Grid) -> tuple[int, int]:
    """Return rows and columns of a layer's positions.

    Raises:
        ConfigError: it has none.
    """
    if len(shape) == 3:
        return shape[0], shape[1]
    if len(shape) == 2 and grid is None and layer == "primary" and hasattr(net, "config"):
        rows, columns, _ = primary_grid(net)
        if rows * columns > 1:
            return rows, columns
    if len(shape) == 2 and grid is not None and shape[0] % (grid[0] * grid[1]) == 0:
        return grid[0], grid[1]
    remedy = f"give a grid that divides its {shape[0]} inputs" if len(shape) == 2 else "name another"
    raise ConfigError(f"{layer} has no positions for a heat map: each image's is {'×'.join(map(str, shape))}; {remedy}")


@partial(jax.jit, static_argnames=("layer", "positions", "field", "chunk", "weigh"))
def _jitted(
    net: Any,
    images: Array,
    target: Target,
    *,
    layer: str,
    positions: tuple[int, int],
    field: ReceptiveField | None,
    chunk: int,
    weigh: Weigh,
) -> Array:
    continued = continue_from(lambda pixels: named_outputs(net, pixels), layer)

    def evaluate(image: Array, _: Array) -> Array:
        pixels, chosen = images[image], target.of_images(image)
        activations = named_outputs(net, pixels)[layer]
        gradient = jax.grad(lambda a: chosen(continued(pixels, a)).sum())(activations)
        at_positions = (x.reshape(len(pixels), *positions, -1) for x in (activations, gradient))
        return _enlarge(jax.nn.relu(weigh(*at_positions)), pixels.shape, field)

    return map_chunks(evaluate, len(images), 1, chunk)[:, 0]


def _enlarge(heat: Array, shape: tuple[int, ...], field: ReceptiveField | None) -> CAM:
    """Return maps in the images' size; a layer that sees the whole image from everywhere is stretched."""
    batch, height, width, _ = shape
    if field is None or 0 in field.stride:
        return jax.image.resize(heat, (batch, height, width, 1), "bilinear")  # half-pixel centres
    return over_image(heat[..., 0], (height, width), field)[..., None]
