"""Normalization of an activation by its neighbouring channels, and of a channel by its batch."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.materialize import materialize

Moments = tuple[Float[Array, "channels"], Float[Array, "channels"]]  # mean and variance of every channel


def local_response_norm(
    x: Float[Array, "batch height width channels"],
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "batch height width channels"]:
    """Return b_i = a_i / (k + α Σ_j a_j²)^β, j over the channels from i − ⌊n/2⌋ to i + ⌊n/2⌋ that exist.

    α multiplies the sum, as in the paper. Caffe and PyTorch multiply the *mean* over n channels, so their default of
    1e-4 is 2e-5 here (n = 5).

    Args:
        x: activations after the ReLU, NHWC.
        size: n, an odd number of channels.
        k: added before the power, greater than 0.
        alpha: α.
        beta: β.

    Returns:
        The normalized activations, same shape.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3.

    With k = 2, α = 1 and β = 1, each of two ones is divided by 2 + 1 + 1:

    >>> x = jnp.array([1., 1, 0]).reshape(1, 1, 1, 3)
    >>> local_response_norm(x, size=3, k=2., alpha=1., beta=1.).flatten().tolist()
    [0.25, 0.25, 0.0]
    """
    reach = size // 2
    with jax.named_scope("local_response_norm"):  # `models.summary` reads this name
        squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        neighbours = sum(lax.slice_in_dim(squares, i, i + x.shape[3], axis=3) for i in range(size))
        return x * (k + alpha * neighbours) ** -beta


@jax.custom_vjp
def moments(x: Float[Array, "batch height width channels"]) -> Moments:
    """Return mean and (biased) variance of every channel over batch and positions. Differentiated in reverse only."""
    mean = jnp.mean(x, axis=(0, 1, 2))
    variance = jnp.mean((x - _per_channel(mean)) ** 2, axis=(0, 1, 2))
    # Without the barrier XLA would write x - mean to memory for `batch_norm`, one pass more.
    return lax.optimization_barrier((mean, variance))


def _moments_forward(x: Array) -> tuple[Moments, tuple[Array, Array]]:
    mean, variance = moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(residuals: tuple[Array, Array], gradient: Moments) -> tuple[Array]:
    """Return the gradient without the mean's part in the variance, which is 0: deviations from the mean sum to 0.

    Autodiff does not see that. In a DenseNet up to 48 layers share one channel's moments, so the gradient is a sum over
    them. XLA would add it up anew for every position; `materialize` prevents that.
    """
    x, mean = residuals
    to_mean, to_variance = materialize(jnp.stack(gradient) / (x.size // x.shape[-1]))
    return ((x - _per_channel(mean)) * _per_channel(2 * to_variance) + _per_channel(to_mean),)


moments.defvjp(_moments_forward, _moments_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def batch_norm(
    x: Float[Array, "batch height width channels"],
    mean: Float[Array, "channels"],
    variance: Float[Array, "channels"],
    scale: Float[Array, "channels"],
    bias: Float[Array, "channels"],
    epsilon: float,
) -> Float[Array, "batch height width channels"]:
    """Return γ (x − μ) / √(σ² + ε) + β, with one μ and σ² per channel. Differentiated in reverse only.

    Args:
        x: activations, NHWC.
        mean: μ of the batch in training, otherwise the running one.
        variance: σ², likewise.
        scale: γ.
        bias: β.
        epsilon: ε, which keeps a constant channel finite.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2.
    """
    return (x - _per_channel(mean)) * _per_channel(scale * lax.rsqrt(variance + epsilon)) + _per_channel(bias)


def _batch_norm_forward(
    x: Array, mean: Array, variance: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, ...]]:
    return batch_norm(x, mean, variance, scale, bias, epsilon), (x, mean, variance, scale)


def _batch_norm_backward(epsilon: float, residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    """Return all gradients from two sums over each channel; autodiff would compute the deviations for each of them.

    The mean is subtracted from the second sum. Subtracting it from x would be one more pass over memory.
    """
    x, mean, variance, scale = residuals
    inverse = lax.rsqrt(variance + epsilon)
    total = jnp.sum(gradient, axis=(0, 1, 2))
    deviation = jnp.sum(gradient * x, axis=(0, 1, 2)) - mean * total
    to_x = gradient * _per_channel(scale * inverse)
    return to_x, -total * scale * inverse, -deviation * scale * inverse**3 / 2, deviation * inverse, total


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def running_moments(old: Moments, new: Moments, count: int, *, momentum: float) -> Moments:
    """Return running mean and variance, moved towards a batch's: momentum · old + (1 − momentum) · new.

    Args:
        old: running mean and variance.
        new: the batch's, from `moments`.
        count: number of values in a channel. The running variance is the unbiased one, the batch's times
          count / (count − 1), as in the paper's algorithm 2 and in PyTorch. Flax's own layer keeps the biased one.
        momentum: weight of the old ones. PyTorch's momentum is the weight of the new ones, 0.1 for 0.9 here.
    """
    mean, variance = new[0], new[1] * (count / max(count - 1, 1))
    return momentum * old[0] + (1 - momentum) * mean, momentum * old[1] + (1 - momentum) * variance


def _per_channel(values: Float[Array, "channels"]) -> Float[Array, "1 1 1 channels"]:
    return values[None, None, None]
