"""What changes with the steps of a training: the learning rate, and a step's weight in the mean of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from capsnet_jax.config import Train


def learning_rate(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """The learning rate at a step: exponential or cosine decay to a floor, times a linear warm-up."""
    risen = settings.warmup * total
    if settings.schedule == "cosine":
        decay = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((step - risen) / (total - risen), 0, 1)))
    else:
        decay = settings.decay_rate ** (step / settings.decay_steps)
    warmup = jnp.minimum(1, (step + 1) / jnp.maximum(risen, 1))
    floor = jnp.minimum(settings.floor, settings.learning_rate)
    return jnp.maximum(settings.learning_rate * decay, floor) * warmup


def averaging_weight(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """A step's weight in the mean that is judged: of all steps at first, and from the span on an exponential one."""
    span = settings.average * total / settings.epochs
    return 1 / jnp.maximum(jnp.minimum(step + 1, span), 1)
