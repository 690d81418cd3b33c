"""Many small images as one: channels of a layer, filters, galleries with names of rows and columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style

SCALES = ("shared", "own", "symmetric", "pixels")
SIDE = 48  # pixels that small tiles are enlarged to, at least
ROW_NAME = 30  # letters in a line of a row's name
NAMED = 60  # of more tiles, none has its name above it
DIVERGING = "RdBu_r"
_LARGEST = 2.4  # inches of a tile
_HIGHEST = 100  # inches of a figure; matplotlib draws no more than 400
_CHARACTER = 0.075  # inches, of 8 points
_BAR = 0.9  # inches of a colour bar with its labels


@style.styled
def tile_grid(
    tiles: np.ndarray | Sequence[np.ndarray],
    *,
    scale: str = "shared",
    names: Sequence[str] | None = None,
    columns: int | None = None,
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    note: str = "",
) -> Figure:
    """Draw an array of images as tiles of one picture, row by row.

    Args:
        tiles: [n, h, w] or [n, h, w, 1 or 3], three channels being red, green and blue; or a list of such images, of
            any sizes, which are enlarged to the largest. Small ones are enlarged without smoothing.
        scale: which values are black and white. "shared": the least and the greatest of all tiles, so that tiles can
            be compared; "own": those of each tile; "symmetric": 0 is the middle and one scale goes as far up as down,
            red and blue where there is one channel; "pixels": 0 and 1, or 0 and 255 of bytes.
        names: one above each tile; left out where there are more than 60 tiles.
        columns: tiles in a row; None: as many as make the grid nearly square, and no higher than wide.
        row_names: one a row.
        column_names: one a column.
        note: how the caption begins, such as the network and the layer.

    Raises:
        ValueError: there are no tiles, the shapes or the numbers of names do not fit, or there is no such scale.

    Source: the grids of MathWorks' "Visualize Activations of a Convolutional Neural Network": one scale for all.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is one of {', '.join(SCALES)}, got {scale!r}")
    stack = as_stack(tiles)
    low, high = _limits(stack, scale)
    shown = np.clip(np.nan_to_num((stack - low) / np.where(high > low, high - low, 1)), 0, 1)
    one_channel = stack.shape[-1] == 1
    diverging = scale == "symmetric" and one_channel
    if diverging:
        shown = mpl.colormaps[DIVERGING](shown[..., 0])[..., :3]
    figure, axes = draw(
        shown,
        columns=columns,
        names=names,
        row_names=row_names,
        column_names=column_names,
        gap=0.65 if diverging else 1,  # 0 is white
        right=_BAR * diverging,
    )
    if diverging:
        colour_bar(figure, axes, DIVERGING, (float(low.min()), float(high.max())))
    dark, middle, bright = ("blue", "white", "red") if diverging else ("black", "grey", "white")
    limits = f"{dark} {low.min():.3g} … {bright} {high.max():.3g}, one scale for all"
    text = {
        "shared": limits,
        "own": f"each tile from its own least ({dark}) to its own greatest value ({bright})",
        "symmetric": f"{limits}, 0 is {middle}",
        "pixels": "",
    }
    style.caption(figure, note, text[scale])
    return figure


def draw(
    tiles: np.ndarray,
    *,
    columns: int | None = None,
    names: Sequence[str] | None = None,
    row_names: Sequence[str] | None = None,
    column_names: Sequence[str] | None = None,
    gap: float = 1,
    right: float = 0,
) -> tuple[Figure, Axes]:
    """Draw float[n, h, w, 1 or 3] in 0..1 as one image; hundreds of panels would take minutes.

    Args:
        tiles: what is drawn.
        columns: as of `tile_grid`, and so are all names.
        names: above the tiles.
        row_names: left of the rows.
        column_names: above the columns.
        gap: grey value between tiles.
        right: inches to leave for a colour bar.

    Returns:
        The figure without a caption, and its panel. A pixel of the panel is one of the enlarged tiles.
    """
    count = len(tiles)
    columns = columns or near_square(count)
    rows = -(-count // columns)
    names = None if names is None or count > NAMED else list(names)
    for what, given, size in (("tile", names, count), ("row", row_names, rows), ("column", column_names, columns)):
        if given is not None and len(given) != size:
            raise ValueError(f"need one name a {what}, got {len(given)} for {size}")

    # Names of rows take their room on the left; the rest is for tiles.
    row_names = row_names and [textwrap.fill(str(name), ROW_NAME, replace_whitespace=False) for name in row_names]
    left = 0.1 + _CHARACTER * max((len(line) for name in row_names or [] for line in name.split("\n")), default=0)
    inches = min((style.WIDTH - left - right - 0.2) / columns, _LARGEST, _HIGHEST / rows)
    letters = max(4, int(inches / _CHARACTER))
    wrapped = [textwrap.fill(str(name), letters) for name in names or []]
    headings = [textwrap.fill(str(name), letters) for name in column_names or []]

    tiles = enlarge(tiles)
    height, width = tiles.shape[1:3]
    between = max(2, round(0.04 * width))
    pixels_per_inch = (width + between) / inches
    header = round(pixels_per_inch * style.LINE_HEIGHT * _lines(wrapped))
    step_down, step_right = height + between + header, width + between
    mosaic = np.full((rows * step_down - between, columns * step_right - between, tiles.shape[-1]), gap, np.float32)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        top, start = row * step_down + header, column * step_right
        mosaic[top : top + height, start : start + width] = tile

    figure_height = 0.5 + mosaic.shape[0] / pixels_per_inch + style.LINE_HEIGHT * _lines(headings)
    figure = style.new_figure(figure_height, "compressed")
    axes = figure.subplots()
    is_small = mosaic.shape[1] < style.WIDTH * figure.dpi
    picture = mosaic[..., 0] if mosaic.shape[-1] == 1 else mosaic
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if is_small else "antialiased")
    style.image_axes(axes)
    axes.tick_params(length=0)
    for index, name in enumerate(wrapped):
        row, column = divmod(index, columns)
        middle, foot = column * step_right + width / 2, row * step_down + header - between / 2
        axes.text(middle, foot, name, fontsize=8, ha="center", va="bottom", linespacing=1)
    if row_names is not None:
        axes.set_yticks(np.arange(rows) * step_down + header + height / 2, row_names, fontsize=8)
    if headings:
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.set_xticks(np.arange(columns) * step_right + width / 2, headings, fontsize=8)
    return figure, axes


def colour_bar(
    figure: Figure,
    axes: Axes,
    colours: str | Colormap,
    limits: tuple[float, float],
    labels: Sequence[str] | None = None,
) -> None:
    """Put a colour bar beside a panel, with labels at equal distances where they are given."""
    mappable = ScalarMappable(mpl.colors.Normalize(*limits), colours)
    bar = figure.colorbar(mappable, ax=axes, fraction=0.04, aspect=18, shrink=0.7)
    bar.outline.set_visible(False)
    if labels is not None:
        bar.set_ticks(list(np.linspace(*limits, len(labels))), labels=list(labels))


def as_stack(tiles: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Return images as float[n, h, w, 1 or 3]: bytes divided by 255, different sizes enlarged to the largest.

    Channels that are no colours, neither one nor three, are averaged.
    """
    arrays = [np.asarray(tile) for tile in tiles]
    if not arrays:
        raise ValueError("no tiles to draw")
    arrays = [array[..., None] if array.ndim == 2 else array for array in arrays]
    if any(array.ndim != 3 or not array.size for array in arrays):
        shapes = ", ".join(sorted({str(np.shape(tile)) for tile in tiles}))
        raise ValueError(f"need tiles of shape [h, w] or [h, w, channels], got {shapes}")
    arrays = [array / np.float32(255) if array.dtype == np.uint8 else array for array in arrays]
    arrays = [array if array.shape[-1] in (1, 3) else array.mean(axis=-1, keepdims=True) for array in arrays]
    height, width, channels = (max(array.shape[axis] for array in arrays) for axis in range(3))
    resized = [_nearest(array, height, width) for array in arrays]
    return np.stack([np.broadcast_to(array, (height, width, channels)) for array in resized]).astype(np.float32)


def near_square(count: int) -> int:
    """Return the columns of a grid that is nearly square and no higher than wide, full if it can be: 12 of 96."""
    rows = math.isqrt(count)
    full = [r for r in range(1, rows + 1) if count % r == 0 and count <= 2.5 * r * r]
    return -(-count // max(full, default=rows))


def enlarge(tiles: np.ndarray) -> np.ndarray:
    """Repeat the pixels of small tiles, all equally often, until the shorter side has 48 or more."""
    times = max(1, -(-SIDE // min(tiles.shape[1:3])))
    return tiles.repeat(times, axis=1).repeat(times, axis=2)


def _limits(stack: np.ndarray, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what is black and what is white: [n or 1, 1, 1, 1]."""
    if scale == "pixels":
        return np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    finite = np.where(np.isfinite(stack), stack, 0)
    axes = (1, 2, 3) if scale == "own" else (0, 1, 2, 3)
    low, high = finite.min(axis=axes, keepdims=True), finite.max(axis=axes, keepdims=True)
    if scale == "symmetric":
        high = np.maximum(-low, high)
        return -high, high
    return low, high


def _nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), image.shape, strict=False))
    return image[rows][:, columns]


def _lines(names: Sequence[str]) -> int:
    return max((name.count("\n") + 1 for name in names), default=0)
