"""A net's program, changed: continued from one of its layers, or with another gradient for its ReLUs.

Methods that look into a net need its inside: the derivative by a layer's activations, what went into a ReLU. JAX traces
any function to a program, a list of equations. Here such a program is run with one of them changed. So a net is any
function of images to {name: array}, in Flax or not, and knows nothing of how it is looked into.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, Float

from capsnet_jax.config import ConfigError, check_word

Outputs = Mapping[str, Any]
Net = Callable[[Float[Array, "batch height width channels"]], Outputs]
ReluRule = Callable[[Array, Array], Array]  # (what went into a ReLU, the gradient that comes back) → the one passed on

# (equation, its inputs) → its outputs; None: as it stands.
Change = Callable[[JaxprEqn, Sequence[Any]], Sequence[Any] | None]

CALLS = ("jit", "pjit", "closed_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def continue_from(net: Net, layer: str) -> Callable[[Array, Array], Outputs]:
    """Return (images, activations) → outputs, as if the layer had computed these activations.

    What does not go through the layer is computed from the images. So the gradient by the activations is the whole
    one, and XLA removes what is not needed.

    Args:
        net: a function of images to {name: array}.
        layer: one of the names; its array must be the one that the net goes on with.

    Raises:
        ConfigError: there is no such layer, or nothing is computed from it.
    """

    def continued(images: Array, activations: Array) -> Outputs:
        program, tree, names = _trace(net, images)
        cut = _variable(program, names, layer)

        def replace(equation: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any] | None:
            if cut not in equation.outvars:
                return None
            outputs = _run_equation(equation, program.jaxpr, inputs)
            return [activations if v is cut else out for v, out in zip(equation.outvars, outputs, strict=True)]

        return jax.tree.unflatten(tree, run(program.jaxpr, program.consts, jax.tree.leaves(images), replace))

    return continued


def before_relu(net: Net, layer: str) -> Net:
    """Return the net with what went into the ReLU in place of a layer's activations, where a ReLU made them.

    A unit that is off has no gradient behind its ReLU; before it, it has.

    Args:
        net: a function of images to {name: array}.
        layer: one of the names. If no ReLU made its array, the net stays as it is.
    """

    def changed(images: Array) -> Outputs:
        program, tree, names = _trace(net, images)
        cut = _variable(program, names, layer)
        [maker] = [equation for equation in program.jaxpr.eqns if cut in equation.outvars]
        inside = _relu_input(maker)
        if inside is None:
            return net(images)
        outvars = list(program.jaxpr.outvars)
        outvars[names.index(layer)] = inside
        outputs = jaxpr_as_fun(ClosedJaxpr(program.jaxpr.replace(outvars=outvars), program.consts))(images)
        return jax.tree.unflatten(tree, outputs)

    return changed


def with_relu_gradient(net: Net, rule: ReluRule) -> Net:
    """Return the net with another gradient for every ReLU; its values stay.

    ReLUs inside of loops and branches keep theirs.

    Args:
        net: a function of images to {name: array}.
        rule: (what went into the ReLU, the gradient that comes back) → the gradient that is passed on.

    Raises:
        ConfigError: the net has no ReLU.
    """

    @jax.custom_vjp
    def relu(x: Array) -> Array:
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (jnp.maximum(x, 0), x), lambda x, gradient: (rule(x, gradient),))

    def changed(images: Array) -> Outputs:
        program, tree, _ = _trace(net, images)
        found = 0

        def replace(equation: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any] | None:
            nonlocal found
            inside = _relu_input(equation)
            if inside is not None:
                found += 1
                return [relu(inputs[equation.invars.index(inside)])]
            body = _body(equation)
            # What has a gradient of its own, as a pooling, keeps it.
            if body is None or equation.primitive.name.startswith("custom"):
                return None
            return run(body.jaxpr, body.consts, inputs, replace)

        outputs = run(program.jaxpr, program.consts, [images], replace)
        if not found:
            raise ConfigError("the net has no ReLU whose gradient could be changed; take another method")
        return jax.tree.unflatten(tree, outputs)

    return changed


def run(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], change: Change) -> list[Any]:
    """Run a program equation by equation, some of them changed."""
    values: dict[Var, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(variable: Var | Literal) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        outputs = change(equation, inputs)
        if outputs is None:
            outputs = _run_equation(equation, jaxpr, inputs)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in jaxpr.outvars]


def check_layer(layer: str, outputs: Outputs) -> None:
    """Raise a ConfigError with the nearest name if a net has no such layer."""
    check_word("layer", layer, list(outputs))


def _trace(net: Net, images: Array) -> tuple[ClosedJaxpr, Any, list[str]]:
    """Return a net's program, the structure of its outputs, and the name of each output."""
    program, shapes = jax.make_jaxpr(net, return_shape=True)(images)
    paths, tree = jax.tree_util.tree_flatten_with_path(shapes)
    return program, tree, [str(path[0].key) if path else "output" for path, _ in paths]


def _variable(program: ClosedJaxpr, names: Sequence[str], layer: str) -> Var:
    """Return the variable that is a layer's activations."""
    check_layer(layer, dict.fromkeys(names))
    variable = program.jaxpr.outvars[names.index(layer)]
    if not any(variable in equation.outvars for equation in program.jaxpr.eqns):
        raise ConfigError(f"{layer} is no layer: the net does not compute it from the images")
    return variable


def _run_equation(equation: JaxprEqn, jaxpr: Jaxpr, inputs: Sequence[Any]) -> Sequence[Any]:
    """Run one equation of a program, as a program of its own."""
    given = {v: value for v, value in zip(equation.invars, inputs, strict=True) if not isinstance(v, Literal)}
    alone = jaxpr.replace(constvars=[], invars=list(given), eqns=[equation], outvars=equation.outvars)
    return jaxpr_as_fun(ClosedJaxpr(alone, []))(*given.values())


def _relu_input(equation: JaxprEqn) -> Var | Literal | None:
    """Return what goes into an equation that is a ReLU: max(x, 0), or a call of nothing else; None if it is none."""
    if equation.primitive.name == "max":
        zeros = [isinstance(v, Literal) and jnp.ndim(v.val) == 0 and v.val == 0 for v in equation.invars]
        return equation.invars[zeros.index(False)] if sum(zeros) == 1 else None
    body = _body(equation)
    is_relu = body is not None and len(body.jaxpr.eqns) == 1 and _relu_input(body.jaxpr.eqns[0]) is not None
    return equation.invars[0] if is_relu and len(equation.invars) == 1 else None


def _body(equation: JaxprEqn) -> ClosedJaxpr | None:
    """Return the program that an equation calls once; None if it calls none."""
    if equation.primitive.name not in CALLS:
        return None
    body = next(equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params)
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, [])
