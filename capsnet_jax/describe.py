"""A model on one page: its layers with output shapes and parameters, the exact total, and the work for one image."""

import math
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr

from capsnet_jax import config, models


def describe(name: str, image_shape: tuple[int, int, int] | None = None, classes: int | None = None) -> str:
    """A table of the model's layers, computed from shapes alone: no memory is spent and nothing runs.

    Args:
        name: a key of `MODELS`.
        image_shape: [height, width, channels] of its images; None: those of its paper.
        classes: how many it tells apart; None: as many as its paper does.

    Raises:
        ConfigError: there is no such model.
    """
    config.check_word("--describe", name, models.MODELS)
    paper_shape, paper_classes = models.paper_images(name)
    image_shape, classes = image_shape or paper_shape, classes or paper_classes
    model = models.build(config.override(config.Config(), {"model.name": name}), classes)
    params, stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), image_shape))
    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")

    layers = _outputs(model, params, stats, image)
    # Auxiliary classifiers are of use in training only.
    seen = {layer.split(".")[0] for layer, _ in layers}
    extra = {name: part for name, part in params.items() if name not in seen}
    rows = [("layer", "output", "parameters")]
    for layer, shape in layers:
        rows.append((layer, "×".join(map(str, shape)), f"{_parameters(params, layer):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    total = models.count_parameters(params) - models.count_parameters(extra)
    flops = count_flops(jax.make_jaxpr(partial(models.apply, model))(params, stats, image))
    size = "×".join(map(str, image_shape))
    return "\n".join(
        [
            f"{name}: images of {size}, {classes} classes",
            *lines,
            f"total {total:,} parameters" + (f" ({_only(extra)} in training only)" if extra else ""),
            f"{flops / 1e6:,.1f} MFLOP for one image (a multiplication and an addition are two)",
        ]
    )


def cost(name: str) -> tuple[int, int]:
    """(parameters, FLOPs for one image) of a model at its paper's image size and classes, auxiliary heads left out."""
    image_shape, classes = models.paper_images(name)
    model = models.build(config.override(config.Config(), {"model.name": name}), classes)
    params, stats = jax.eval_shape(lambda: models.init_all(model, jax.random.key(0), image_shape))
    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    used = {layer.split(".")[0] for layer, _ in _outputs(model, params, stats, image)}
    parameters = models.count_parameters({layer: part for layer, part in params.items() if layer in used})
    return parameters, count_flops(jax.make_jaxpr(partial(models.apply, model))(params, stats, image))


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


def _only(extra: dict[str, Any]) -> str:
    return f"and {models.count_parameters(extra):,} of {' and '.join(extra)}"


def _parameters(params: Any, layer: str) -> int:
    for name in layer.split("."):
        params = params.get(name, {})
    return models.count_parameters(params)
