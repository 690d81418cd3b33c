"""What changes with the steps of a training: the learning rate, and a step's weight in the mean of parameters."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from capsnet_jax.config import Train

RELEASED_DECAYS = 150  # in the 300,000 steps of the released code of Sabour et al. 2017


def exponential(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """Decay by `decay_rate` every `decay_steps` steps; if these are 0, `RELEASED_DECAYS` times in all."""
    spread = jnp.where(settings.decay_steps > 0, settings.decay_steps, total / RELEASED_DECAYS)
    return settings.decay_rate ** (step / spread)


def cosine(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """Decay from 1 to 0 along half a cosine, after the warm-up."""
    warmup_steps = settings.warmup * total
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip((step - warmup_steps) / (total - warmup_steps), 0, 1)))


def halving(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """Halve after each quarter of all steps."""
    del settings
    return 0.5 ** jnp.floor(4 * step / total)


# Name → (settings, step, total steps) → factor of the greatest learning rate.
SCHEDULES: dict[str, Callable[[Train, Int[Array, ""], int], Float[Array, ""]]] = {
    "exponential": exponential,
    "cosine": cosine,
    "halving": halving,
}


def learning_rate(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """Return the learning rate at a step: the schedule's decay down to a least rate, times a linear warm-up."""
    decay = SCHEDULES[settings.schedule](settings, step, total)
    warmup = jnp.minimum(1, (step + 1) / jnp.maximum(settings.warmup * total, 1))
    least = jnp.minimum(settings.min_learning_rate, settings.learning_rate)
    return jnp.maximum(settings.learning_rate * decay, least) * warmup


def ema_weight(settings: Train, step: Int[Array, ""], total: int) -> Float[Array, ""]:
    """Return a step's weight in the mean of parameters: of all steps at first, later an exponential one."""
    span = settings.ema_epochs * total / settings.epochs
    return 1 / jnp.maximum(jnp.minimum(step + 1, span), 1)
