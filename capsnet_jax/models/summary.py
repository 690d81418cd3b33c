"""A model on one page: its layers with sizes and parameters, the exact total, and the work for one image."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.models.layers import Conv
from capsnet_jax.ops.conv.padding import resolve_padding

# How operations without parameters name themselves in a program: window, strides and padding follow where they matter.
OPERATIONS = "max_pool|average_pool|adaptive_average_pool|global_average|global_max|local_response_norm"
SCOPES = rf"({OPERATIONS})(?:_(\d+)_(\d+)_(\d+))?"
SHORT = {"max_pool": "maxpool", "average_pool": "avgpool", "local_response_norm": "LRN"}


class Layer(NamedTuple):
    """One layer of a model.

    Attributes:
        name: its path in the parameters, joined by dots; of an operation without parameters, the operation's.
        output: shape of its output, without the batch axis.
        parameters: how many, those of the layers inside included.
        kind: the module's class, or the operation.
        kernel: side of the filter or of the pooling window, pixels; None where there is none.
        strides: pixels that it moves.
        padding: pixels around the image, as "1", or "0+1" before and after where they differ.
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    kind: str
    kernel: int | None = None
    strides: int | None = None
    padding: str = ""


class Outline(NamedTuple):
    """A model computed from shapes alone: no memory is spent and nothing runs.

    Attributes:
        image_shape: [height, width, channels].
        classes: how many it tells apart.
        layers: in the order in which they finish; a layer follows those inside it.
        parameters: of all layers that evaluation uses.
        training_only: {layer: parameters} of what is of use in training only, as auxiliary classifiers are.
        flops: for one image, a multiplication and an addition being two.
    """

    image_shape: tuple[int, int, int]
    classes: int
    layers: list[Layer]
    parameters: int
    training_only: dict[str, int]
    flops: int


def outline(config: Config, image_shape: tuple[int, int, int] | None = None, classes: int | None = None) -> Outline:
    """Compute layers, parameters and work of a model.

    Args:
        config: which model, with its settings.
        image_shape: [height, width, channels] of its images; None: those of its paper.
        classes: how many it tells apart; None: as many as its paper does.
    """
    entry = models.MODELS[config.model.name]
    image_shape, classes = image_shape or entry.image_shape, classes or entry.classes
    model, params, stats, image = _abstract(config, image_shape, classes)
    program = jax.make_jaxpr(partial(models.apply, model))(params, stats, image)
    layers = _insert_operations(_module_layers(model, params, stats, image), program)
    counts = {layer: models.count_parameters(part) for layer, part in params.items()}
    used = {layer.name.split(".")[0] for layer in layers}
    parameters = sum(count for layer, count in counts.items() if layer in used)
    training_only = {layer: count for layer, count in counts.items() if layer not in used}
    return Outline(image_shape, classes, layers, parameters, training_only, count_flops(program))


def work(config: Config, image_shape: tuple[int, int, int], classes: int) -> int:
    """Count the FLOPs for one image, as in `Outline`, of the model that a config asks for, its routing included."""
    model, params, stats, image = _abstract(config, image_shape, classes)
    return count_flops(jax.make_jaxpr(partial(models.apply, model))(params, stats, image))


def describe(name: str, outline: Outline) -> str:
    """Return a table of a model's layers."""
    rows: list[tuple[str, ...]] = [("layer", "output", "parameters", "kernel", "stride", "padding")]
    for layer in outline.layers:
        sizes = ("", "", "")
        if layer.kernel is not None:
            sizes = (f"{layer.kernel}×{layer.kernel}", str(layer.strides), layer.padding)
        rows.append((layer.name, "×".join(map(str, layer.output)), f"{layer.parameters:,}", *sizes))
    training_only = " and ".join(outline.training_only)
    more = f" (and {sum(outline.training_only.values()):,} of {training_only} in training only)"
    return "\n".join(
        [
            f"{name}: images of {'×'.join(map(str, outline.image_shape))}, {outline.classes} classes",
            *_align(rows, "<<>>>>"),
            f"total {outline.parameters:,} parameters{more if training_only else ''}",
            f"{outline.flops / 1e6:,.1f} MFLOP for one image (a multiplication and an addition are two)",
        ]
    )


def side_by_side(outlines: Mapping[str, Outline]) -> str:
    """Return a table with a column for each model, as table 1 of VGG's paper: rows between two poolings are aligned.

    "conv3-64" is a convolution with 64 filters of 3×3, "FC-4096" a fully connected layer with 4096 outputs.
    """
    columns = [_stages(outline) for outline in outlines.values()]
    rows: list[tuple[str, ...]] = [("", *outlines)]
    rows.append(("images", *("×".join(map(str, outline.image_shape)) for outline in outlines.values())))
    for stage in itertools.zip_longest(*columns, fillvalue=[]):
        layers = [column[:-1] for column in stage]
        rows += [("", *row) for row in itertools.zip_longest(*layers, fillvalue="")]
        rows.append(("", *(column[-1] if column else "" for column in stage)))
    rows = [row for row in rows if any(row)]
    rows.append(("parameters", *(f"{outline.parameters:,}" for outline in outlines.values())))
    rows.append(("GFLOP", *(f"{outline.flops / 1e9:,.3f}" for outline in outlines.values())))
    return "\n".join(_align(rows, "<" * len(rows[0])))


def count_flops(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Count multiplications and additions of a program's matrix products and convolutions, and nothing else.

    A convolution counts as the direct one, whichever algorithm a platform takes.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "shape")]
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            filters = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) // shapes[1][filters]
        elif equation.primitive.name == "cond":  # the last branch is `conv2d`'s native form
            total += count_flops(equation.params["branches"][-1])
        else:
            inner = [v for v in equation.params.values() if isinstance(v, ClosedJaxpr | Jaxpr)]
            total += equation.params.get("length", 1) * sum(count_flops(part) for part in inner)
    return total


def _abstract(
    config: Config, image_shape: tuple[int, int, int], classes: int
) -> tuple[nn.Module, Any, Any, jax.ShapeDtypeStruct]:
    """Return a model, the shapes of its parameters and statistics, and that of one image."""
    params, stats = models.shapes(config, image_shape, classes)
    model = models.build(config, classes)
    return model, params, stats, jax.ShapeDtypeStruct((1, *image_shape), "float32")


def _module_layers(model: nn.Module, params: Any, stats: Any, image: jax.ShapeDtypeStruct) -> list[Layer]:
    """Return the layers that are modules, in the order in which they finish."""
    layers = []

    def note(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*arguments, **keywords)
        module = context.module
        if context.method_name == "__call__" and module.path:
            output = jax.tree.leaves(out)[0].shape[1:]
            sizes = _conv_sizes(module, arguments[0].shape[1:3]) if isinstance(module, Conv) else ()
            count = _parameters(params, module.path)
            layers.append(Layer(".".join(module.path), output, count, type(module).__name__, *sizes))
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(partial(models.apply, model), params, stats, image)
    return layers


def _conv_sizes(conv: Conv, image: tuple[int, int]) -> tuple[int, int, str]:
    """Return kernel, strides and padding of a convolution of images of [height, width]."""
    pads = resolve_padding(conv.padding, image, (conv.size, conv.size), (conv.strides, conv.strides))
    before, after = pads[0]
    return conv.size, conv.strides, str(before) if before == after else f"{before}+{after}"


def _parameters(params: Any, path: tuple[str, ...]) -> int:
    for name in path:
        params = params.get(name, {})
    return models.count_parameters(params)


def _insert_operations(layers: list[Layer], program: ClosedJaxpr) -> list[Layer]:
    """Insert poolings and their like, which are functions, behind the layer that ran before them."""
    layers = list(layers)
    latest: list[str] = []  # path of the module that ran last
    for (*path, name), output in _scopes(program):
        match = re.fullmatch(SCOPES, name)
        if match is None:
            scope = [*path, name]
            latest = latest if latest[: len(scope)] == scope else scope
            continue
        kind, window, strides, padding = match.groups()
        sizes = (int(window), int(strides), padding) if window else ()
        inside = latest[: len(path)] == path
        before = ".".join(latest[: len(path) + 1])  # the module beside it, which may hold the one that ran last
        if inside:
            index = next((i + 1 for i, layer in enumerate(layers) if layer.name == before), 0)
        else:  # it is the first in its module
            index = next(i for i, layer in enumerate(layers) if layer.name.startswith(".".join(path)))
        while index < len(layers) and re.fullmatch(SCOPES, layers[index].kind):
            index += 1
        layers.insert(index, Layer(".".join([*path, kind]), output, 0, kind, *sizes))
    return layers


def _scopes(program: ClosedJaxpr) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield (path of modules and of the operation, shape of its output without the batch axis) as a program runs."""
    for scope, equations in itertools.groupby(program.jaxpr.eqns, lambda e: str(e.source_info.name_stack)):
        _, *path = scope.split("/")  # the first is the model itself
        if path:
            yield path, list(equations)[-1].outvars[0].aval.shape[1:]


def _stages(outline: Outline) -> list[list[str]]:
    """Return a model's layers in the words of VGG's table, in lists that end with a pooling; the last with ""."""
    stages: list[list[str]] = [[]]
    for layer in outline.layers:
        size = layer.output[-1]
        if layer.kind == "Conv":
            stages[-1].append(f"conv{layer.kernel}-{size}")
        elif layer.kind == "Dense":
            stages[-1].append(f"FC-{size}")
        elif layer.kind == "ClassCapsules":
            stages[-1].append(f"capsules-{'×'.join(map(str, layer.output))}")
        elif re.fullmatch(SCOPES, layer.kind):
            stages[-1].append(SHORT.get(layer.kind, layer.kind))
            if layer.kind.endswith("_pool"):
                stages.append([])
    return [*stages[:-1], [*stages[-1], ""]]


def _align(rows: list[tuple[str, ...]], sides: str) -> list[str]:
    """Return rows of cells as lines whose columns are flush left (<) or right (>)."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths, strict=True)).rstrip() for row in rows]
