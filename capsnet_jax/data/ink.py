"""A drawing as its data set has drawings: its ink found, light on black, of the set's size and in the set's place.

Ink is what is thin and stands out from the ground around it. The ground may be lit unevenly, and be a page on a table.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from capsnet_jax.data.registry import Frame

THICKEST = 0.35  # of the picture's longer side: what is wider in both directions is ground
FAINTEST = 3 / 255  # fainter than this is no ink
SPECK = 0.03  # of the largest piece of ink: smaller pieces are dirt
SMALLEST = 0.02  # of the picture's longer side: a drawing is larger than dirt and noise
EDGE = 0.15  # of the ink's strength: a drawing ends where it is fainter
THINNEST = 2.0  # pixels of a line's width in the data set: 95 % of MNIST's digits have thicker ones
SAME_SIZE = 0.12  # a drawing that is so nearly of the set's size is not scaled: that would only blur it
_GROUND_PIXELS = 128  # of the longer side, to find the ground in


class Ink(NamedTuple):
    """What was drawn.

    Attributes:
        strength: how much ink there is at every pixel, from 0 to 1.
        dark: whether it is darker than its ground.
    """

    strength: Float[np.ndarray, "height width"]
    dark: bool


def find_ink(grey: Float[np.ndarray, "height width"], dark: bool | None = None) -> Ink | None:
    """Find the ink of a picture.

    Args:
        grey: from 0 (black) to 1.
        dark: whether the ink is darker than its ground; None: that is found out.

    Returns:
        The ink; None where nothing stands out.
    """
    as_dark = {d: grey if d else 1 - grey for d in ([True, False] if dark is None else [dark])}
    # Of two grounds the smoother is the true one: the wrong way round, what lies between strokes is filled in.
    dark = min(as_dark, key=lambda d: _variation(as_dark[d]))
    strength = _dark_ink(as_dark[dark])
    return Ink(strength, dark) if strength.any() else None


def frame_ink(
    strength: Float[np.ndarray, "height width"], frame: Frame, shape: tuple[int, int]
) -> UInt8[np.ndarray, "rows columns"]:
    """Draw ink, light on black, as large as the drawings of a data set are, and where they are.

    Args:
        strength: as of `Ink`; not all of it 0.
        frame: what the data set does.
        shape: height and width of the result.
    """
    rows, columns = _box(strength > EDGE)
    scale = frame.side / max(rows.stop - rows.start, columns.stop - columns.start)
    if abs(scale - 1) > SAME_SIZE:
        drawn = _scale(strength[rows, columns], scale)
    else:
        rows, columns = _box(strength > 0)
        drawn = strength[rows, columns]
    by_mass = frame.centre == "mass"
    weights = drawn if by_mass else np.ones_like(drawn)
    centre = np.array(shape) / 2 - (0.0 if by_mass else 0.5)  # MNIST's are half a pixel off
    canvas = np.zeros(shape)
    places = []
    for axis, room in enumerate(np.subtract(shape, drawn.shape)):
        middle = np.average(np.arange(drawn.shape[axis]), weights=weights.sum(axis=1 - axis))
        places.append(int(np.clip(round(centre[axis] - middle), 0, max(0, room))))
    top, left = places
    drawn = drawn[: shape[0], : shape[1]]
    canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    framed = np.round(255 * canvas.clip(0, 1)).astype(np.uint8)
    return framed.T if frame.transposed else framed


def _scale(strength: np.ndarray, scale: float) -> np.ndarray:
    """Scale a drawing; lines that would become thinner than `THINNEST` are thickened first."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(np.pad(strength > 0.5, 1))
    missing = THINNEST / scale - 4 * inside[inside > 0].mean()  # a line's pixels are a quarter of its width inside
    if missing >= 1:
        padding = round(missing / 2)
        strength = ndimage.maximum_filter(np.pad(strength, padding), 1 + 2 * padding)
        scale *= 1 - 2 * padding / max(strength.shape)
    size = [max(1, round(scale * side)) for side in reversed(strength.shape)]
    return np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _dark_ink(grey: np.ndarray) -> np.ndarray:
    """Return how much dark ink there is at every pixel, from 0 to 1; all 0 where nothing stands out."""
    from scipy import ndimage

    reduced = Image.fromarray(_light_ground(_reduced(grey)))
    ground = np.asarray(reduced.resize(grey.shape[::-1], Image.Resampling.BILINEAR))
    strength = (ground - grey) / np.maximum(ground, 0.1)  # ink takes a share of the light that falls on it
    level, noise = _level_and_noise(strength)
    strength = strength - level
    marked = _pieces(strength > max(_otsu(strength), 4 * noise, FAINTEST))
    if not marked.any():
        return np.zeros_like(grey)
    full = np.quantile(strength[marked], 0.9)
    soft = strength > max(3 * noise, 0.02 * full)  # the soft edges of the marks
    rows, columns = _box(marked)
    reach = 1 + max(rows.stop - rows.start, columns.stop - columns.start) // 16
    inked = ndimage.binary_dilation(marked, mask=soft | marked, iterations=reach)
    return np.where(inked, strength / full, 0).clip(0, 1)


def _reduced(grey: np.ndarray) -> np.ndarray:
    """Return a picture of at most `_GROUND_PIXELS` along each side."""
    return np.asarray(Image.fromarray(grey.astype(np.float32)).reduce(-(-max(grey.shape) // _GROUND_PIXELS)))


def _light_ground(grey: np.ndarray) -> np.ndarray:
    """Return the brightness of the ground: dark things are filled in from around them.

    This is a morphological closing (Serra 1982, "Image Analysis and Mathematical Morphology"). It leaves shadows and
    tables, which are wider than ink, and gradients. But at the border it only sees what is inside, where a gradient may
    be lighter; so a plane is taken out first.
    """
    from scipy import ndimage

    plane = _plane(grey)
    size = 1 + 2 * round(THICKEST / 2 * max(grey.shape))
    light = ndimage.maximum_filter(grey - plane, size, mode="constant", cval=-np.inf)
    return ndimage.minimum_filter(light, size, mode="constant", cval=np.inf) + plane


def _plane(grey: np.ndarray) -> np.ndarray:
    """Fit a plane by least absolute deviations, which what covers less than half of a picture hardly moves."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size, dtype=grey.dtype) for size in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
    values, weights = grey.ravel(), np.ones(grey.size, grey.dtype)
    for _ in range(20):  # least squares, weighted by the inverse of what they left
        left = terms.T * weights
        factors = np.linalg.lstsq(left @ terms, left @ values, rcond=None)[0]
        weights = 1 / np.maximum(np.abs(values - terms @ factors), 1e-3)
    return (terms @ factors).reshape(grey.shape).astype(grey.dtype)


def _variation(grey: np.ndarray) -> float:
    """Return the total variation of a picture's ground, which goes on outside as the picture's border does."""
    small = _reduced(grey)
    ground = np.pad(small, 1, mode="edge")
    ground[1:-1, 1:-1] = _light_ground(small)
    return float(sum(np.abs(np.diff(ground, axis=axis)).sum() for axis in range(2)))


def _level_and_noise(strength: np.ndarray) -> tuple[float, float]:
    """Return the mean strength where no ink is, and its standard deviation there."""
    ground = strength[np.abs(strength) <= _otsu(np.abs(strength))]
    for _ in range(4):
        level = float(np.median(ground))
        noise = 1.4826 * float(np.median(np.abs(ground - level)))
        ground = strength[np.abs(strength - level) <= max(3 * noise, 1 / 255)]
    return level, noise


def _pieces(marked: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Return connected pieces of ink, without dirt, and without tables and shadows.

    These reach the picture's border. What does is only taken for ink if there is nothing else of some size.
    """
    from scipy import ndimage

    labels, count = ndimage.label(marked, np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    sizes = np.array([0, *(max(s.stop - s.start for s in box) for box in ndimage.find_objects(labels))])
    areas[0] = 0
    cut = np.zeros(count + 1, bool)
    cut[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    if (sizes[~cut & (areas > SPECK * areas.max())] > sizes.max() / 3).any():
        areas[cut] = 0
    large = max(sizes[areas > 0], default=0) >= max(3, SMALLEST * max(marked.shape))
    return (areas > SPECK * areas.max())[labels] & large


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that parts values best into two groups.

    The variance between the groups is largest there. Source: Otsu 1979, "A Threshold Selection Method from Gray-Level
    Histograms".
    """
    counts, edges = np.histogram(values, 256)
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    best = edges[1 + np.argmax(below * above * (means[0] - means[1]) ** 2)]
    return float(max(best, values.min()))  # of equal values none is above


def _box(marked: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold everything marked."""
    rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
