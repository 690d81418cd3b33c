"""Convolution and its gradients as loops over positions in float64: the oracle for every algorithm."""

import jax
import jax.numpy as jnp
import numpy as np


def case(x_shape, kernel_shape, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    """Random images and a random kernel."""
    generator = np.random.default_rng(seed)
    x, kernel = (generator.standard_normal(shape) for shape in (x_shape, kernel_shape))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def error(got, expected) -> float:
    """Largest difference, relative to the largest value expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _windows(padded_shape, kernel_shape, strides):
    """Every output position with the slices of its window."""
    height, width = kernel_shape[:2]
    for i, top in enumerate(range(0, padded_shape[1] - height + 1, strides[0])):
        for j, left in enumerate(range(0, padded_shape[2] - width + 1, strides[1])):
            yield i, j, slice(top, top + height), slice(left, left + width)


def loop_conv(x, kernel, strides, pads, groups: int = 1) -> np.ndarray:
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    positions = list(_windows(x.shape, kernel.shape, strides))
    rows, columns = (1 + max(position[axis] for position in positions) for axis in (0, 1))
    filters, inner = kernel.shape[3], kernel.shape[2]
    out = np.zeros((x.shape[0], rows, columns, filters))
    for n in range(x.shape[0]):
        for i, j, vertical, horizontal in positions:
            for f in range(filters):
                first = f // (filters // groups) * inner
                window = x[n, vertical, horizontal, first : first + inner]
                out[n, i, j, f] = np.sum(window * kernel[..., f])
    return out


def loop_gradients(x, kernel, cotangent, strides, pads) -> tuple[np.ndarray, np.ndarray]:
    """Of Σ cotangent · convolution, with respect to the images and to the kernel."""
    x, kernel, cotangent = (np.asarray(a, np.float64) for a in (x, kernel, cotangent))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    to_x, to_kernel = np.zeros(padded.shape), np.zeros(kernel.shape)
    for n in range(x.shape[0]):
        for i, j, vertical, horizontal in _windows(padded.shape, kernel.shape, strides):
            for f in range(kernel.shape[3]):
                to_x[n, vertical, horizontal] += cotangent[n, i, j, f] * kernel[..., f]
                to_kernel[..., f] += cotangent[n, i, j, f] * padded[n, vertical, horizontal]
    (top, _), (left, _) = pads
    return to_x[:, top : top + x.shape[1], left : left + x.shape[2]], to_kernel
