"""A model on one page: its layers with output shapes and parameters, the exact total, and the work for one image."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from capsnet_jax import models


class Outline(NamedTuple):
    """A model computed from shapes alone: no memory is spent and nothing runs.

    Attributes:
        image_shape: [height, width, channels].
        classes: how many it tells apart.
        layers: (name, shape of its output, parameters) in the order in which layers finish.
        parameters: of all layers that evaluation uses.
        extra: {layer: parameters} of what is of use in training only, as auxiliary classifiers are.
        flops: for one image, a multiplication and an addition being two.
    """

    image_shape: tuple[int, int, int]
    classes: int
    layers: list[tuple[str, tuple[int, ...], int]]
    parameters: int
    extra: dict[str, int]
    flops: int


def outline(name: str, image_shape: tuple[int, int, int] | None = None, classes: int | None = None) -> Outline:
    """Layers, parameters and work of a model.

    Args:
        name: a key of `MODELS`.
        image_shape: [height, width, channels] of its images; None: those of its paper.
        classes: how many it tells apart; None: as many as its paper does.
    """
    paper_shape, paper_classes = models.paper_images(name)
    image_shape, classes = image_shape or paper_shape, classes or paper_classes
    model = models.build(config.override(config.Config(), {"model.name": name}), classes)
    params, stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), image_shape))
    image = _image(image_shape)
    layers = [(layer, shape, _parameters(params, layer)) for layer, shape in _outputs(model, params, stats, image)]
    counts = {layer: models.count_parameters(part) for layer, part in params.items()}
    used = {layer.split(".")[0] for layer, _, _ in layers}
    parameters = sum(counts[layer] for layer in counts if layer in used)
    extra = {layer: count for layer, count in counts.items() if layer not in used}
    return Outline(image_shape, classes, layers, parameters, extra, _work(model, params, stats, image))


def work(settings: config.Config, image_shape: tuple[int, int, int], classes: int) -> int:
    """FLOPs for one image, as in `Outline`, of the model that a config asks for, its routing included."""
    model = models.build(settings, classes)
    params, stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), image_shape))
    return _work(model, params, stats, _image(image_shape))


def describe(name: str, image_shape: tuple[int, int, int] | None = None, classes: int | None = None) -> str:
    """A table of the model's layers; arguments as of `outline`.

    Raises:
        ConfigError: there is no such model.
    """
    config.check_word("--describe", name, models.MODELS)
    found = outline(name, image_shape, classes)
    rows = [("layer", "output", "parameters")]
    rows += [(layer, "×".join(map(str, shape)), f"{count:,}") for layer, shape, count in found.layers]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    extra = f" (and {sum(found.extra.values()):,} of {' and '.join(found.extra)} in training only)"
    return "\n".join(
        [
            f"{name}: images of {'×'.join(map(str, found.image_shape))}, {found.classes} classes",
            *lines,
            f"total {found.parameters:,} parameters{extra if found.extra else ''}",
            f"{found.flops / 1e6:,.1f} MFLOP for one image (a multiplication and an addition are two)",
        ]
    )


def count_flops(jaxpr: ClosedJaxpr | Jaxpr) -> int:
    """Multiplications and additions of a program's matrix products and convolutions; the rest is not counted.

    A convolution counts as the direct one, whatever form a platform gives it.
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


def _image(shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), "float32")


def _work(model: nn.Module, params: Any, stats: Any, image: jax.ShapeDtypeStruct) -> int:
    return count_flops(jax.make_jaxpr(partial(models.apply, model))(params, stats, image))


def _outputs(
    model: nn.Module, params: Any, stats: Any, image: jax.ShapeDtypeStruct
) -> list[tuple[str, tuple[int, ...]]]:
    """(layer, shape of its first output without the batch axis), in the order in which layers finish."""
    found = []

    def note(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        out = call(*arguments, **keywords)
        if context.method_name == "__call__" and context.module.path:
            found.append((".".join(context.module.path), jax.tree.leaves(out)[0].shape[1:]))
        return out

    with nn.intercept_methods(note):
        jax.eval_shape(partial(models.apply, model), params, stats, image)
    return found


def _parameters(params: Any, layer: str) -> int:
    for name in layer.split("."):
        params = params.get(name, {})
    return models.count_parameters(params)
