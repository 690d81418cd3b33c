"""Which pixels a position of a layer sees, read from the program that a net is traced to."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.program import CALLS, Net, check_layer
from capsnet_jax.interpret.targets import score

_CALLS = (*CALLS, "remat2")
_ELEMENTWISE = frozenset(
    "abs add add_any and cbrt ceil clamp convert_element_type copy cos div eq erf exp exp2 expm1 floor ge gt"
    " integer_pow is_finite le log log1p logistic lt max min mul name ne neg not or pow reduce_precision rem round"
    " rsqrt select_n sign sin sqrt square stop_gradient sub tan tanh xor".split()
)


class ReceptiveField(NamedTuple):
    """What a layer's positions see, each number for (rows, columns).

    Position o sees the pixels start + stride · o … start + stride · o + size − 1; outside of the image is padding. A
    position that sees the whole image, or a layer without positions, has the image's size and stride 0.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]


class _Seen(NamedTuple):
    """The pixels that an array's elements see along one axis of the image: stride · o + low … stride · o + high.

    An element's o is (its index along `axis` // `divide`) % `size`: several axes may have become one.
    """

    axis: int
    divide: int
    size: int
    stride: int
    low: int
    high: int


_Axis = _Seen | None  # None: all of the image
_Fields = tuple[_Axis, ...] | None  # along rows and columns of the image; None: nothing of it is seen


def receptive_field(net: Net, image_shape: tuple[int, int, int], layer: str) -> ReceptiveField:
    """Return which pixels a position of a layer sees.

    Intervals of pixels go through convolutions, poolings, padding, slices and what is done to each element alone.
    Whatever else mixes positions, as a matrix product of them or a loop, sees the whole image. Padding counts, as
    in published sizes.

    Args:
        net: a network, or any function of images to {name: array}.
        image_shape: (height, width, channels).
        layer: one of the names. Of capsules [batch, rows · columns · types, dim] the positions are rows and columns.

    Raises:
        ConfigError: there is no such layer, or the net does not compute it from the images.
    """
    net = getattr(net, "forward", net)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    check_layer(layer, jax.eval_shape(partial(score, net, dict), image))
    program = jax.make_jaxpr(lambda images: score(net, lambda outputs: outputs[layer], images))(image)
    pixels = tuple(_Seen(axis, 1, image.shape[axis], 1, 0, 0) for axis in (1, 2))
    [fields] = _walk(program, [pixels])
    if fields is None:
        raise ConfigError(f"{layer} is no layer: the net does not compute it from the images")
    along = [
        (side, 0, 0) if seen is None else (seen.high - seen.low + 1, seen.stride, seen.low)
        for seen, side in zip(fields, image_shape, strict=False)
    ]
    return ReceptiveField(*zip(*along, strict=True))


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
    if name in _CALLS:
        return _walk(next(v for v in params.values() if isinstance(v, ClosedJaxpr | Jaxpr)), inputs)
    if name == "cond" and inputs[0] is None:
        # Of the algorithms for several platforms, the last is the plain form.
        branches = params["branches"][-1:] if params.get("branches_platforms") else params["branches"]
        return [_union(each) for each in zip(*(_walk(branch, inputs[1:]) for branch in branches), strict=True)]
    if name == "optimization_barrier":
        return inputs
    rule = next((rule for start, rule in _RULES.items() if name.startswith(start)), None)
    if name not in _ELEMENTWISE:
        inputs = [
            fields and tuple(rule(equation, number, seen) if seen and rule else None for seen in fields)
            for number, fields in enumerate(inputs)
        ]
    return [_union(inputs)] * len(equation.outvars)


def _union(inputs: Sequence[_Fields]) -> _Fields:
    """Return what is seen by what sees all of these, element by element."""
    seen = [fields for fields in inputs if fields is not None]
    return tuple(_hull(axis) for axis in zip(*seen, strict=True)) if seen else None


def _hull(intervals: Sequence[_Axis]) -> _Axis:
    found = [seen for seen in intervals if seen is not None]
    if len(found) < len(intervals) or len({seen[:4] for seen in found}) > 1:
        return None
    return found[0]._replace(low=min(seen.low for seen in found), high=max(seen.high for seen in found))


# Rules: (equation, which operand, what its elements see along an axis of the image) → what the output's elements see.


def _windows(
    seen: _Seen, axis: int, sizes: tuple[int, int], *, window: int = 1, stride: int = 1, before: int = 0
) -> _Axis:
    """Return what windows of elements see: `window` of them from stride · o − before on.

    Args:
        seen: by the elements.
        axis: of the windows.
        sizes: of the axis, before and after.
        window: with what dilation adds.
        stride: elements between windows.
        before: padding, or less elements at the start.
    """
    if (window, stride, before) == (1, 1, 0) and sizes[0] == sizes[1]:
        return seen._replace(axis=axis)
    if seen.divide > 1 or seen.size != sizes[0]:
        return None
    low, high = seen.low - seen.stride * before, seen.high + seen.stride * (window - 1 - before)
    return _Seen(axis, 1, sizes[1], seen.stride * stride, low, high)


def _conv(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    params, shapes = equation.params, _shapes(equation)
    lhs, rhs, out = params["dimension_numbers"]
    if operand == 1 or seen.axis not in lhs[2:]:
        return None
    i = lhs.index(seen.axis) - 2
    if params["lhs_dilation"][i] != 1:
        return None
    window = params["rhs_dilation"][i] * (shapes[1][rhs[2 + i]] - 1) + 1
    sizes = shapes[0][seen.axis], shapes[-1][out[2 + i]]
    stride, before = params["window_strides"][i], params["padding"][i][0]
    return _windows(seen, out[2 + i], sizes, window=window, stride=stride, before=before)


def _reduce_window(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    params, axis = equation.params, seen.axis
    if params["base_dilation"][axis] != 1:
        return None
    window = params["window_dilation"][axis] * (params["window_dimensions"][axis] - 1) + 1
    stride, before = params["window_strides"][axis], params["padding"][axis][0]
    return _windows(seen, axis, _sizes(equation, axis), window=window, stride=stride, before=before)


def _pad(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    before, _, between = equation.params["padding_config"][seen.axis]
    return None if between else _windows(seen, seen.axis, _sizes(equation, seen.axis), before=before)


def _slice(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    start, strides = equation.params["start_indices"][seen.axis], equation.params["strides"]
    stride = strides[seen.axis] if strides else 1
    return _windows(seen, seen.axis, _sizes(equation, seen.axis), stride=stride, before=-start)


def _reduce(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    axes = equation.params["axes"]
    return None if seen.axis in axes else seen._replace(axis=seen.axis - sum(axis < seen.axis for axis in axes))


def _squeeze(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    axes = equation.params["dimensions"]
    return None if seen.axis in axes else seen._replace(axis=seen.axis - sum(axis < seen.axis for axis in axes))


def _transpose(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    return seen._replace(axis=equation.params["permutation"].index(seen.axis))


def _broadcast(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    axis, shapes = equation.params["broadcast_dimensions"][seen.axis], _shapes(equation)
    if shapes[0][seen.axis] == shapes[-1][axis]:
        return seen._replace(axis=axis)
    return _Seen(axis, 1, shapes[-1][axis], 0, seen.low, seen.high)


def _reshape(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    """Follow o = (flat index // divide) % size to the axis of the output that it can be told from."""
    before, after = _shapes(equation)[0], _shapes(equation)[-1]
    divide = seen.divide * math.prod(before[seen.axis + 1 :])
    for axis, side in enumerate(after):
        inner = math.prod(after[axis + 1 :])
        if divide % inner == 0 and side % (divide // inner * seen.size) == 0:
            return seen._replace(axis=axis, divide=divide // inner)
    return None


def _dot_general(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    contracted, batch = equation.params["dimension_numbers"]
    if seen.axis in contracted[operand]:
        return None
    if seen.axis in batch[operand]:
        return seen._replace(axis=batch[operand].index(seen.axis))
    free = [
        [axis for axis in range(len(shape)) if axis not in (*contracted[i], *batch[i])]
        for i, shape in enumerate(_shapes(equation)[:2])
    ]
    return seen._replace(axis=len(batch[0]) + operand * len(free[0]) + free[operand].index(seen.axis))


def _another_axis(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    """Keep what is seen where an operation is along another axis, such as channels."""
    params = equation.params
    return None if seen.axis in (params.get("dimension"), params.get("axis")) else seen


def _update(equation: JaxprEqn, operand: int, seen: _Seen) -> _Axis:
    whole, part = _shapes(equation)[:2]
    return seen if operand < 2 and whole[seen.axis] == part[seen.axis] else None


def _shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    return [v.aval.shape for v in (*equation.invars, *equation.outvars)]


def _sizes(equation: JaxprEqn, axis: int) -> tuple[int, int]:
    return equation.invars[0].aval.shape[axis], equation.outvars[0].aval.shape[axis]


# By how the primitive's name begins, the first that fits.
_RULES: dict[str, Callable[[JaxprEqn, int, _Seen], _Axis]] = {
    "conv_general_dilated": _conv,
    "reduce_window": _reduce_window,
    "reduce_": _reduce,
    "argm": _reduce,
    "pad": _pad,
    "slice": _slice,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _dot_general,
    "concatenate": _another_axis,
    "split": _another_axis,
    "cum": _another_axis,
    "dynamic_update_slice": _update,
}
