"""Pictures of different kinds side by side: images, maps in grey, signed maps in red and blue, heat maps."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
import capsnet_jax.figures.tiles as tiles

RED = (1.0, 0.0, 0.0)

Cell = tuple[str, np.ndarray]  # what stands above a picture, and the picture


@style.styled
def gallery(rows: Sequence[Sequence[Cell]], *, row_names: Sequence[str] | None = None, note: str = "") -> Figure:
    """Draw rows of pictures, each with its name above it.

    Args:
        rows: of (name, picture [h, w] or [h, w, 1 or 3] in 0..1, or bytes); small ones are enlarged to the largest.
            Rows may have different lengths.
        row_names: one a row.
        note: the caption.

    Raises:
        ValueError: there are no pictures, or a shape does not fit.
    """
    columns = max(map(len, rows), default=0)
    stack = tiles.as_stack([picture for row in rows for _, picture in row])
    blank = np.ones_like(stack[:1])
    pictures, names, start = [], [], 0
    for row in rows:
        end = start + len(row)
        pictures += [*stack[start:end], *np.repeat(blank, columns - len(row), axis=0)]
        names += [*(name for name, _ in row), *[""] * (columns - len(row))]
        start = end
    figure, _ = tiles.draw(np.clip(np.stack(pictures), 0, 1), columns=columns, names=names, row_names=row_names)
    style.caption(figure, note)
    return figure


def wrap(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    """Return cells in rows."""
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def grey(values: np.ndarray) -> np.ndarray:
    """Return [h, w] values as a picture from its own least (black) to its own greatest (white)."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low if high > low else 1)


def heat(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Lay maps [n, h, w], 0 or positive, in red over images [n, h, w, 1 or 3] in 0..1, on one scale up to the most."""
    strength = (maps / max(maps.max(), np.finfo(np.float32).tiny))[..., None]
    dimmed = 0.25 + 0.6 * images.mean(axis=-1, keepdims=True)  # red would be lost on black
    return dimmed * (1 - strength) + np.array(RED) * strength


def signed(values: np.ndarray) -> np.ndarray:
    """Return [h, w] values in red above 0 and blue below, on a scale of their own."""
    limit = np.abs(values).max()
    return mpl.colormaps[tiles.DIVERGING](0.5 + 0.5 * values / (limit if limit else 1))[..., :3]
