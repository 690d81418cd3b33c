"""How what is seen of an image along one of its axes goes through the operations of a program."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn

ELEMENTWISE = {
    "abs", "add", "add_any", "and", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "cos", "div", "eq",
    "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "not", "or", "pow", "reduce_precision", "rem",
    "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
}  # fmt: skip


class Seen(NamedTuple):
    """The pixels that an array's elements see along one axis of the image: stride · o + low … stride · o + high.

    An element's o is (its index along `axis` // `divide`) % `size`: several axes may have become one.
    """

    axis: int
    divide: int
    size: int
    stride: int
    low: int
    high: int


Axis = Seen | None  # None: all of the image


# Rules: (equation, which operand, what its elements see along an axis of the image) → what the output's elements see.


def _windows(
    seen: Seen, axis: int, sizes: tuple[int, int], *, window: int = 1, stride: int = 1, before: int = 0
) -> Axis:
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
    return Seen(axis, 1, sizes[1], seen.stride * stride, low, high)


def _conv(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
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


def _reduce_window(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    params, axis = equation.params, seen.axis
    if params["base_dilation"][axis] != 1:
        return None
    window = params["window_dilation"][axis] * (params["window_dimensions"][axis] - 1) + 1
    stride, before = params["window_strides"][axis], params["padding"][axis][0]
    return _windows(seen, axis, _sizes(equation, axis), window=window, stride=stride, before=before)


def _pad(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    before, _, between = equation.params["padding_config"][seen.axis]
    return None if between else _windows(seen, seen.axis, _sizes(equation, seen.axis), before=before)


def _slice(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    start, strides = equation.params["start_indices"][seen.axis], equation.params["strides"]
    stride = strides[seen.axis] if strides else 1
    return _windows(seen, seen.axis, _sizes(equation, seen.axis), stride=stride, before=-start)


def _reduce(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    axes = equation.params["dimensions" if equation.primitive.name == "squeeze" else "axes"]
    return None if seen.axis in axes else seen._replace(axis=seen.axis - sum(axis < seen.axis for axis in axes))


def _transpose(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    return seen._replace(axis=equation.params["permutation"].index(seen.axis))


def _broadcast(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    axis, shapes = equation.params["broadcast_dimensions"][seen.axis], _shapes(equation)
    if shapes[0][seen.axis] == shapes[-1][axis]:
        return seen._replace(axis=axis)
    return Seen(axis, 1, shapes[-1][axis], 0, seen.low, seen.high)


def _reshape(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    """Follow o = (flat index // divide) % size to the axis of the output that it can be told from."""
    before, after = _shapes(equation)[0], _shapes(equation)[-1]
    divide = seen.divide * math.prod(before[seen.axis + 1 :])
    for axis, side in enumerate(after):
        inner = math.prod(after[axis + 1 :])
        if divide % inner == 0 and side % (divide // inner * seen.size) == 0:
            return seen._replace(axis=axis, divide=divide // inner)
    return None


def _dot_general(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
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


def _another_axis(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    """Keep what is seen where an operation is along another axis, such as channels."""
    params = equation.params
    return None if seen.axis in (params.get("dimension"), params.get("axis")) else seen


def _update(equation: JaxprEqn, operand: int, seen: Seen) -> Axis:
    whole, part = _shapes(equation)[:2]
    return seen if operand < 2 and whole[seen.axis] == part[seen.axis] else None


def _shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    variables: list[Any] = [*equation.invars, *equation.outvars]
    return [v.aval.shape for v in variables]


def _sizes(equation: JaxprEqn, axis: int) -> tuple[int, int]:
    shapes = _shapes(equation)
    return shapes[0][axis], shapes[-1][axis]


# By how the primitive's name begins, the first that fits.
RULES: dict[str, Callable[[JaxprEqn, int, Seen], Axis]] = {
    "conv_general_dilated": _conv,
    "reduce_window": _reduce_window,
    "reduce_": _reduce,
    "argm": _reduce,
    "pad": _pad,
    "slice": _slice,
    "squeeze": _reduce,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _dot_general,
    "concatenate": _another_axis,
    "split": _another_axis,
    "cum": _another_axis,
    "dynamic_update_slice": _update,
}
