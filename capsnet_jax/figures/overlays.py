"""Heat maps over the images that they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
import capsnet_jax.figures.tiles as tiles

PERCENTILE = 99
SEQUENTIAL, SIGNED = "autumn_r", "bwr"
_BAR = 1.0  # inches of a colour bar with its labels
_PAIRS = 4  # of an image and its map in a row
_PANELS = 5  # of one image in a row
_LARGE = 64  # pixels; of larger images, half as many pairs


@style.styled
def overlay(
    images: np.ndarray,
    maps: np.ndarray | Mapping[str, np.ndarray],
    *,
    names: Sequence[str] | None = None,
    signed: bool | None = None,
    note: str = "",
) -> Figure:
    """Draw heat maps over their images in grey, with the images themselves beside them.

    Args:
        images: [batch, h, w, 1 or 3] in 0..1, or bytes.
        maps: [batch, h, w] or [batch, h, w, c], whose channels are added up; of several methods {name: maps}, drawn
            with a row an image and a column a method, or in rows of five if there is one image.
        names: one an image, such as its class.
        signed: whether maps are drawn with red for above and blue for below 0; None: those that go below 0.
        note: how the caption begins, such as the network and the target.

    Raises:
        ValueError: there are no images or maps, or the shapes do not fit.
    """
    pictures = tiles.as_stack(images)
    by_method = maps if isinstance(maps, Mapping) else {"": maps}
    if not by_method:
        raise ValueError("no maps to draw")
    colour = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    grid, kinds = [np.clip(colour, 0, 1)], set()
    for name, of_method in by_method.items():
        values = _sum_channels(of_method, pictures.shape[:3], name)
        diverges = bool((values < 0).any()) if signed is None else signed
        kinds.add(diverges)
        grid.append(blend(pictures, values, signed=diverges))
    stacked = np.stack(grid, axis=1).reshape(-1, *colour.shape[1:])
    right = _BAR * len(kinds)
    if isinstance(maps, Mapping) and len(pictures) == 1:
        headings = ["input", *by_method]
        figure, axes = tiles.draw(stacked, columns=_columns(len(grid)), names=headings, right=right)
    elif isinstance(maps, Mapping):
        figure, axes = tiles.draw(
            stacked,
            columns=len(grid),
            row_names=None if names is None else [str(name) for name in names],
            column_names=["input", *by_method],
            right=right,
        )
    else:
        pairs = min(len(pictures), _PAIRS // (1 + (max(pictures.shape[1:3]) > _LARGE)))
        if names is not None and len(names) != len(pictures):
            raise ValueError(f"need one name an image, got {len(names)} for {len(pictures)}")
        above = None if names is None else [text for name in names for text in (str(name), "")]
        figure, axes = tiles.draw(stacked, columns=2 * pairs, names=above, right=right)
    for diverges in sorted(kinds):
        limits, labels = ((-1, 1), ["against", "0", "for"]) if diverges else ((0, 1), ["0", "most"])
        colours = _paint(np.full((256, 1), 0.5), np.linspace(*limits, 256), signed=diverges)
        tiles.colour_bar(figure, axes, mpl.colors.ListedColormap(colours), limits, labels)
    style.caption(figure, note, f"each map on its own scale, which ends at the {PERCENTILE}th percentile of its pixels")
    return figure


def blend(images: np.ndarray, maps: np.ndarray, *, signed: bool) -> np.ndarray:
    """Lay maps [batch, h, w] over images float[batch, h, w, 1 or 3]: float[batch, h, w, 3], stronger where they are.

    Each map is divided by the 99th percentile of its absolute values, so that single pixels do not hide all others; by
    its greatest, where fewer than one in a hundred are not 0. A map of zeros leaves the image.
    """
    size = np.abs(np.nan_to_num(maps)).reshape(len(maps), -1)
    limit = np.percentile(size, PERCENTILE, axis=1)
    limit = np.where(limit > 0, limit, size.max(axis=1, initial=0))
    scaled = np.clip(np.nan_to_num(maps) / np.where(limit > 0, limit, 1)[:, None, None], -1, 1)
    return _paint(np.clip(images, 0, 1).mean(axis=-1, keepdims=True), scaled, signed=signed)


def _paint(grey: np.ndarray, scaled: np.ndarray, *, signed: bool) -> np.ndarray:
    """Lay colours for values [...] in −1..1 over grey ones [..., 1] in 0..1; what is not signed is nothing below 0."""
    scaled = scaled if signed else np.maximum(scaled, 0)
    grey = 0.25 + 0.6 * grey  # on black and on white, red and blue would be lost
    colours = mpl.colormaps[SIGNED](np.where(scaled < 0, 0.0, 1.0)) if signed else mpl.colormaps[SEQUENTIAL](scaled)
    opacity = 0.9 * np.abs(scaled)[..., None]
    return grey * (1 - opacity) + colours[..., :3] * opacity


def _columns(count: int) -> int:
    """Return the panels in a row when one image's are spread over full rows of at most five."""
    return -(-count // -(-count // _PANELS))


def _sum_channels(maps: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    maps = np.asarray(maps, np.float32)
    if maps.shape[:3] != shape or maps.ndim not in (3, 4):
        of = f" of {name}" if name else ""
        raise ValueError(f"maps{of} of shape {maps.shape} do not fit images of shape {shape}")
    return maps if maps.ndim == 3 else maps.sum(axis=-1)
