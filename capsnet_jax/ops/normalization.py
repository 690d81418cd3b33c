"""Normalisation: of an activation by its neighbouring channels, and of a channel by its batch."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from capsnet_jax.ops.held import held

Moments = tuple[Float[Array, "channels"], Float[Array, "channels"]]  # mean and variance of every channel


def local_response_norm(
    x: Float[Array, "batch height width channels"],
    *,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "batch height width channels"]:
    """b_i = a_i / (k + α Σ_j a_j²)^β, j over the channels from i − ⌊n/2⌋ to i + ⌊n/2⌋ that exist.

    α multiplies the sum, as the paper writes it. Caffe and PyTorch multiply the *mean* over n channels: their α is n
    times this one, so that their default of 1e-4 is 2e-5 here.

    Args:
        x: activations after the ReLU, NHWC.
        size: n, an odd number of channels.
        k: added before the power, greater than 0.
        alpha: α.
        beta: β.

    Returns:
        The normalised activations, same shape.

    Source: Krizhevsky, Sutskever and Hinton 2012, section 3.3.

    With k = 2, α = 1 and β = 1, each of two ones is divided by 2 + 1 + 1:

    >>> x = jnp.array([1., 1, 0]).reshape(1, 1, 1, 3)
    >>> local_response_norm(x, size=3, k=2., alpha=1., beta=1.).flatten().tolist()
    [0.25, 0.25, 0.0]
    """
    reach = size // 2
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (reach, reach)))
    near = sum(lax.slice_in_dim(squares, i, i + x.shape[3], axis=3) for i in range(size))
    return x * (k + alpha * near) ** -beta


@jax.custom_vjp
def moments(x: Float[Array, "batch height width channels"]) -> Moments:
    """Mean and (biased) variance of every channel over the batch and all positions. Differentiated in reverse only."""
    mean = jnp.mean(x, axis=(0, 1, 2))
    variance = jnp.mean((x - _each(mean)) ** 2, axis=(0, 1, 2))
    return lax.optimization_barrier((mean, variance))  # else x - mean is kept for who normalises, a pass over memory


def _moments_forward(x: Array) -> tuple[Moments, tuple[Array, Array]]:
    mean, variance = moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(kept: tuple[Array, Array], gradient: Moments) -> tuple[Array]:
    """Autodiff does not see that deviations from the mean add up to nothing, so the mean does not move the variance.

    A channel's two numbers are sums over all who normalise it, 48 layers in a block of DenseNet-201: unless they are
    held, XLA adds them up anew for every position: a tenth of a second more in that net's operations, by a profile.
    """
    x, mean = kept
    to_mean, to_variance = held(jnp.stack(gradient) / (x.size // x.shape[-1]))
    return ((x - _each(mean)) * _each(2 * to_variance) + _each(to_mean),)


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
    """γ (x − μ) / √(σ² + ε) + β, with a μ and σ² of every channel. Differentiated in reverse only.

    Args:
        x: activations, NHWC.
        mean: μ, of the batch in training, else the running one.
        variance: σ², likewise.
        scale: γ.
        bias: β.
        epsilon: ε, which keeps a channel that is constant finite.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), algorithms 1 and 2.
    """
    return (x - _each(mean)) * _each(scale * lax.rsqrt(variance + epsilon)) + _each(bias)


def _batch_norm_forward(
    x: Array, mean: Array, variance: Array, scale: Array, bias: Array, epsilon: float
) -> tuple[Array, tuple[Array, ...]]:
    return batch_norm(x, mean, variance, scale, bias, epsilon), (x, mean, variance, scale)


def _batch_norm_backward(epsilon: float, kept: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    """Two sums over a channel are all that it takes; autodiff makes the deviations anew for each.

    The mean is taken off the second sum, as its factors less the mean would be a pass over memory of their own.
    """
    x, mean, variance, scale = kept
    inverse = lax.rsqrt(variance + epsilon)
    total = jnp.sum(gradient, axis=(0, 1, 2))
    along = jnp.sum(gradient * x, axis=(0, 1, 2)) - mean * total
    to_x = gradient * _each(scale * inverse)
    return to_x, -total * scale * inverse, -along * scale * inverse**3 / 2, along * inverse, total


batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def running_moments(old: Moments, new: Moments, count: int, *, momentum: float) -> Moments:
    """Running mean and variance moved towards a batch's: momentum · old + (1 − momentum) · new.

    Args:
        old: running mean and variance.
        new: the batch's, as `moments` gives them.
        count: how many values of a channel these are of. The variance that runs is the unbiased one, the batch's times
          count / (count − 1), as in the paper's algorithm 2 (and in PyTorch; Flax's own layer keeps the biased one).
        momentum: what stays of the old (PyTorch's momentum is what comes of the new, 0.1 for 0.9 here).
    """
    mean, variance = new[0], new[1] * (count / max(count - 1, 1))
    return momentum * old[0] + (1 - momentum) * mean, momentum * old[1] + (1 - momentum) * variance


def _each(of_channels: Float[Array, "channels"]) -> Float[Array, "1 1 1 channels"]:
    return of_channels[None, None, None]
