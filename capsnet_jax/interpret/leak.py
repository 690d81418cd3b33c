"""A ReLU that leaks, so that what is optimised has a gradient where it is off."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from capsnet_jax.interpret.program import Net, Outputs, before_relu
from capsnet_jax.interpret.targets import Target, named_outputs

WIDTH = 1 / 16  # standard deviations over which the gradient of what is off falls by e


def with_leak(net: Net, target: Target) -> Net:
    """Return the net, the ReLU behind which the target looks leaking; what goes on in the net stays.

    What goes into the ReLU will not do: its mean is often largest for an image of nothing. Here a position that is off
    has a gradient that falls with how far it is off, and the one nearest to 0 has all of it while none is on.
    """
    if not isinstance(target.of, str) or not target.of:
        return partial(named_outputs, net)
    return partial(_leaking, net, target.of)


def _leaking(net: Net, layer: str, images: Array) -> Outputs:
    outputs, before = named_outputs(net, images), named_outputs(before_relu(net, layer), images)
    x = before[layer]
    positions = tuple(range(1, x.ndim - 1))
    nearest, spread = jax.lax.stop_gradient((x.max(positions, keepdims=True), x.std(positions, keepdims=True)))
    width = jnp.where(spread > 0, WIDTH * spread, 1)
    leak = width * jnp.exp(jnp.minimum(x - jnp.minimum(nearest, 0), 0) / width)
    is_off = (outputs[layer] == 0) & (x < 0)  # where no ReLU made the layer, what is negative is not 0
    return {**before, layer: jnp.where(is_off, leak, x)}
