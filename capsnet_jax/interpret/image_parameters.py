"""What images are optimised in: a spectrum in place of pixels, colours that are not correlated, small movements.

A pixel's gradient is mostly of high frequencies, which a net likes and people cannot see anything in. A step along the
gradient by a spectrum that falls as 1/frequency, as photographs' do, changes what is large and what is small alike.
Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization" (distill.pub/2017/feature-visualization), and its
library lucid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.models.layers import SMALL

# Columns: how the colours of natural images vary, most first. Rows: red, green, blue.
COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLORS = COLORS / np.linalg.norm(COLORS, axis=0).max()
BRIGHTNESS = 0.25  # lucid's factor between spectra and the sigmoid's argument
DARKEST = 0.05  # that images begin with: at 0 the sigmoid has no gradient

Shape = tuple[int, int, int]  # height, width, channels


class Movements(NamedTuple):
    """How far an image is moved at random, so that what it shows does not hang on single pixels.

    Attributes:
        jitter: largest shifts, pixels: before the image is scaled and turned, and after.
        scale: part by which it is made larger or smaller at most.
        degrees: by which it is turned at most, to either side.
    """

    jitter: tuple[float, float]
    scale: float
    degrees: float


STILL = Movements((0, 0), 0, 0)


def movements_for(shape: Shape) -> Movements:
    """Return how far images of a size are moved."""
    return Movements((2, 1) if min(shape[:2]) < SMALL else (8, 4), 0.1, 10)


def background_for(shape: Shape) -> float:
    """Return what the objects in images of a size lie on: drawings on black, all others on grey."""
    return 0.0 if min(shape[:2]) < SMALL and shape[-1] == 1 else 0.5


def draw_spectrum(
    key: PRNGKeyArray, shape: Shape, *, sigma: float = 0.01
) -> Float[Array, "parts height half_width channels"]:
    """Draw the spectrum of an image that is almost grey.

    Args:
        key: the source of the spectrum.
        shape: of the image: (height, width, channels), even or odd.
        sigma: standard deviation of the real and of the imaginary parts.
    """
    height, width, channels = shape
    return sigma * jax.random.normal(key, (2, height, width // 2 + 1, channels))


def spectrum_to_values(
    spectrum: Float[Array, "parts height half_width channels"], shape: Shape, *, decay: float = 1.0
) -> Float[Array, "height width channels"]:
    """Return the values whose Fourier transform is the spectrum over frequency^decay.

    Args:
        spectrum: real and imaginary parts of the frequencies of `jnp.fft.rfft2`.
        shape: of the values.
        decay: 1 is photographs'; 0 makes all frequencies alike.
    """
    height, width, _ = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width)) ** decay
    coefficients = jnp.float32(scale)[:, :, None] * jax.lax.complex(*spectrum)
    return BRIGHTNESS * jnp.fft.irfft2(coefficients, s=(height, width), axes=(0, 1))


def to_image(
    values: Float[Array, "height width channels"], background: float = 0.5
) -> Float[Array, "height width channels"]:
    """Squash values to pixels in (0, 1), zeros to the background."""
    return jax.nn.sigmoid(to_logits(values, background))


def to_logits(
    values: Float[Array, "height width channels"], background: float = 0.5
) -> Float[Array, "height width channels"]:
    """Return what the sigmoid makes pixels of; three values are mixed to red, green and blue."""
    if values.shape[-1] == 3:
        values = values @ jnp.float32(COLORS).T
    return values + jax.scipy.special.logit(np.clip(background, DARKEST, 1 - DARKEST))


def move(
    key: PRNGKeyArray, image: Float[Array, "height width channels"], movements: Movements, *, background: float = 0.5
) -> Float[Array, "height width channels"]:
    """Shift an image at random, scale and turn it about its centre, and shift it again; it keeps its size.

    Outside of it is background everywhere, as if it were padded. Values are interpolated linearly.
    """
    first, zoom, angle, last = jax.random.split(key, 4)
    uniform = jax.random.uniform
    angle = jnp.deg2rad(movements.degrees) * uniform(angle, minval=-1, maxval=1)
    size = 1 + movements.scale * uniform(zoom, minval=-1, maxval=1)
    shifts = [d * uniform(k, (2,), minval=-1, maxval=1) for k, d in zip((first, last), movements.jitter, strict=True)]
    height, width, _ = image.shape
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), axis=-1)
    turn = jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])

    def offset(vector: Array) -> Array:
        return vector.reshape(1, 1, 2)

    # From where each pixel of the result comes.
    source = (grid - offset(centre + shifts[1])) @ turn.T / size + offset(centre - shifts[0])

    def sample(channel: Array) -> Array:
        positions = [source[..., 0], source[..., 1]]
        return jax.scipy.ndimage.map_coordinates(channel, positions, order=1, mode="constant", cval=background)

    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)
