"""Which pixels a position of a layer sees, read from the program that a net is traced to; and maps placed by it."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array, Float

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.program import CALLS, Net, check_layer
from capsnet_jax.interpret.receptive_rules import ELEMENTWISE, RULES, Axis, Seen
from capsnet_jax.interpret.targets import as_argument, named_outputs

_Fields = tuple[Axis, ...] | None  # along rows and columns of the image; None: nothing of it is seen


class ReceptiveField(NamedTuple):
    """What a layer's positions see, each number for (rows, columns).

    Position o sees the pixels start + stride · o … start + stride · o + size − 1; outside of the image is padding. A
    position that sees the whole image, or a layer without positions, has the image's size and stride 0.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]


def receptive_field(net: Net, image_shape: tuple[int, int, int], layer: str) -> ReceptiveField:
    """Return which pixels a position of a layer sees.

    Intervals of pixels go through convolutions, poolings, padding, slices and what is done to each element alone.
    Whatever else mixes positions, as a matrix product of them or a loop, sees the whole image. Padding counts, as
    in published sizes.

    Args:
        net: a network, or any function of images to {name: array}. A `Forward` may have shapes in place of variables.
        image_shape: (height, width, channels).
        layer: one of the names. Of capsules [batch, rows · columns · types, dim] the positions are rows and columns.

    Raises:
        ConfigError: there is no such layer, or the net does not compute it from the images.
    """
    net = as_argument(net)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    check_layer(layer, jax.eval_shape(named_outputs, net, image))
    program = jax.make_jaxpr(lambda net, image: named_outputs(net, image)[layer])(net, image)
    *variables, _ = program.jaxpr.invars
    pixels = tuple(Seen(axis, 1, image.shape[axis], 1, 0, 0) for axis in (1, 2))
    [fields] = _walk(program, [*(None for _ in variables), pixels])
    if fields is None:
        raise ConfigError(f"{layer} is no layer: the net does not compute it from the images")
    along = [
        (side, 0, 0) if seen is None else (seen.high - seen.low + 1, seen.stride, seen.low)
        for seen, side in zip(fields, image_shape, strict=False)
    ]
    return ReceptiveField(*zip(*along, strict=True))


def over_image(
    values: Float[Array, "*batch rows columns"], shape: tuple[int, int], field: ReceptiveField
) -> Float[Array, "*batch height width"]:
    """Spread values of positions over an image, bilinearly between the centres of the positions' receptive fields.

    Outside of the outermost centres the value stays that of the nearest position, whose field reaches to the border:
    equal values give a flat map, which prefers no part of an image.

    Args:
        values: one a position.
        shape: (height, width) of the image.
        field: what the positions see.
    """
    return jnp.einsum("...rc,yr,xc->...yx", values, *_interpolation(values.shape[-2:], shape, field))


def at_positions(
    maps: Float[Array, "*batch height width"], grid: tuple[int, int], field: ReceptiveField
) -> Float[Array, "*batch rows columns"]:
    """Return the mean of a map around each position, by the weights of `over_image`: what so few positions can tell."""
    along = (weights / weights.sum(axis=0) for weights in _interpolation(grid, maps.shape[-2:], field))
    return jnp.einsum("...yx,yr,xc->...rc", maps, *along)


def _interpolation(
    grid: Sequence[int], shape: Sequence[int], field: ReceptiveField
) -> list[Float[np.ndarray, "pixels positions"]]:
    """Return the weight of each position at each pixel, along rows and along columns."""
    weights = []
    for positions, pixels, size, stride, start in zip(grid, shape, *field, strict=True):
        at = np.clip((np.arange(pixels) - start - (size - 1) / 2) / stride, 0, positions - 1)
        weights.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(positions))).astype(np.float32))
    return weights


def _walk(program: ClosedJaxpr | Jaxpr, arguments: Sequence[_Fields]) -> list[_Fields]:
    """Return what the outputs of a program see, of what its arguments see."""
    jaxpr = getattr(program, "jaxpr", program)
    known: dict[Var, _Fields] = dict(zip(jaxpr.invars, arguments, strict=True))

    def fields(variable: Var | Literal) -> _Fields:
        return None if isinstance(variable, Literal) else known.get(variable)

    for equation in jaxpr.eqns:
        inputs = [fields(v) for v in equation.invars]
        if any(inputs):
            known.update(zip(equation.outvars, _step(equation, inputs), strict=True))
    return [fields(v) for v in jaxpr.outvars]


def _step(equation: JaxprEqn, inputs: Sequence[_Fields]) -> Sequence[_Fields]:
    """Return what the outputs of one equation see."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return _walk(next(v for v in params.values() if isinstance(v, ClosedJaxpr | Jaxpr)), inputs)
    if name == "cond" and inputs[0] is None:
        # Of the algorithms for several platforms, the last is the plain form.
        branches = params["branches"][-1:] if params.get("branches_platforms") else params["branches"]
        return [_union(each) for each in zip(*(_walk(branch, inputs[1:]) for branch in branches), strict=True)]
    if name == "optimization_barrier":
        return inputs
    rule = next((rule for start, rule in RULES.items() if name.startswith(start)), None)
    if name not in ELEMENTWISE:
        inputs = [
            fields and tuple(rule(equation, number, seen) if seen and rule else None for seen in fields)
            for number, fields in enumerate(inputs)
        ]
    return [_union(inputs)] * len(equation.outvars)


def _union(inputs: Sequence[_Fields]) -> _Fields:
    """Return what is seen by what sees all of these, element by element."""
    seen = [fields for fields in inputs if fields is not None]
    return tuple(_hull(axis) for axis in zip(*seen, strict=True)) if seen else None


def _hull(intervals: Sequence[Axis]) -> Axis:
    found = [seen for seen in intervals if seen is not None]
    if len(found) < len(intervals) or len({seen[:4] for seen in found}) > 1:
        return None
    return found[0]._replace(low=min(seen.low for seen in found), high=max(seen.high for seen in found))
