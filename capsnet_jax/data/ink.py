"""A drawing as its data set has drawings: its ink found, light on black, of the set's size and in the set's place.

What counts as ink is what stands out from its ground. The ground is what the border shows, and may be lit unevenly.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from capsnet_jax.data.registry import Frame

FAINTEST = 3 / 255  # fainter than this is no ink
SPECK = 0.03  # of the largest piece of ink: smaller pieces are dirt
SAME_SIZE = 0.08  # a drawing that is so nearly of the set's size is not scaled: that would only blur it


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
        dark: whether the ink is darker than its ground; None: whatever stands out more.

    Returns:
        The ink; None where nothing stands out.
    """
    ground, noise = _fit_ground(grey)
    difference = grey - ground
    if dark is None:
        marked = _pieces(np.abs(difference), noise)
        dark = bool(np.sum(difference[marked]) < 0)
    # Ink takes a share of the light that falls on it, so its darkness is relative to the light there.
    strength = np.maximum(-difference / np.maximum(ground, 0.1) if dark else difference, 0)
    marked = _pieces(strength, noise)
    if not marked.any():
        return None
    strength = np.minimum(strength / np.quantile(strength[marked], 0.9), 1)
    rows, columns = _box(marked)
    soft_edge = 1 + max(rows.stop - rows.start, columns.stop - columns.start) // 10
    return Ink(np.where(_dilate(marked, soft_edge), strength, 0), dark)


def frame_ink(
    strength: Float[np.ndarray, "height width"], frame: Frame, shape: tuple[int, int]
) -> UInt8[np.ndarray, "rows columns"]:
    """Draw ink, light on black, as large as the drawings of a data set are, and where they are.

    Args:
        strength: as of `Ink`; not all of it 0.
        frame: what the data set does.
        shape: height and width of the result.
    """
    rows, columns = _box(strength > 0.05)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    scale = frame.side / max(height, width)
    if abs(scale - 1) > SAME_SIZE:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        box = columns.start, rows.start, columns.stop, rows.stop
        drawn = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BOX, box))
    else:
        rows, columns = _box(strength > 0)
        drawn = strength[rows, columns]
    where = drawn if frame.centre == "mass" else np.ones_like(drawn)
    canvas = np.zeros(shape)
    places = []
    for axis in range(2):
        middle = np.average(np.arange(drawn.shape[axis]), weights=where.sum(axis=1 - axis))
        places.append(int(np.clip(round(shape[axis] / 2 - middle), 0, max(0, shape[axis] - drawn.shape[axis]))))
    top, left = places
    drawn = drawn[: shape[0], : shape[1]]
    canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    framed = np.round(255 * canvas.clip(0, 1)).astype(np.uint8)
    return framed.T if frame.transposed else framed


def _fit_ground(grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the brightness of the ground at every pixel, and its noise (a standard deviation).

    The ground is a quadratic surface through the border at first, then through all that lies near it.
    """
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    ring = np.maximum(np.abs(x), np.abs(y)) > 0.9
    among, noise = ring, 1.0
    difference = np.zeros_like(grey)
    for step in range(10):
        near = among & (np.abs(difference) <= max(3 * noise, 1 / 255))
        values, points = grey[near], terms[near]
        few = slice(None, None, 1 + values.size // 20_000)
        factors = np.linalg.lstsq(points[few], values[few], rcond=None)[0]
        difference = grey - terms @ factors
        if step == 4:  # from the border to the whole picture
            among = np.abs(difference) <= _otsu(np.abs(difference))
        noise = 1.4826 * float(np.median(np.abs(difference[among])))
    return grey - difference, noise


def _pieces(strength: np.ndarray, noise: float) -> Bool[np.ndarray, "height width"]:
    """Return where connected ink is, without dirt and without what the picture's edge cuts off, as a table's."""
    from scipy import ndimage

    marked = strength > max(_otsu(strength), 4 * noise, FAINTEST)
    labels, count = ndimage.label(marked, np.ones((3, 3)))
    if not count:
        return marked
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    areas[0] = 0
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        along = np.bincount(side, minlength=count + 1)
        cut = along[1:] > 0.9 * side.size
        if cut.any() and not cut.all():
            areas[1:][cut] = 0
    return marked & (areas >= max(1, SPECK * areas.max()))[labels] & (areas > 0)[labels]


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that parts values best into two groups.

    Source: Otsu 1979, "A Threshold Selection Method from Gray-Level Histograms": the variance between groups is largest.
    """
    counts, edges = np.histogram(values, 256)
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1 + np.nanargmax(between)])


def _box(marked: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold everything marked."""
    rows, columns = (np.flatnonzero(marked.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _dilate(marked: np.ndarray, pixels: int) -> np.ndarray:
    """Return what is marked and everything so near to it."""
    from scipy import ndimage

    return ndimage.maximum_filter(marked, 2 * pixels + 1)
