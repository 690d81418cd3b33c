"""What capsules stand for: pictures of moved dimensions, and of where votes go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.images import show

_CLASSES = 3  # parents whose votes are drawn: the longest
_GAP = 2  # white pixels between the pictures of a grid


@style.styled
def dimension_grid(moved: np.ndarray, offsets: np.ndarray, *, row_names: Sequence[str], note: str = "") -> Figure:
    """Draws what the decoder makes of a capsule when one dimension is moved, a row a dimension.

    Args:
        moved: float[rows, steps, H, W, C] in 0..1.
        offsets: float[steps], what was added to the dimension.
        row_names: one name a row.
        note: what the caption says first.

    Raises:
        ValueError: the shapes do not fit.

    Source: Sabour et al. 2017, figure 4.
    """
    rows, steps, height, width = moved.shape[:4]
    if (len(row_names), len(offsets)) != (rows, steps):
        raise ValueError(f"need {rows} names and {steps} offsets, got {len(row_names)} and {len(offsets)}")
    # One picture of all of them: hundreds of axes would take a minute to lay out.
    gap = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    tiles = np.pad(moved, gap, constant_values=1.0).transpose(0, 2, 1, 3, 4)
    mosaic = tiles.reshape(rows * (height + _GAP), steps * (width + _GAP), -1)
    figure = style.new_figure(0.7 + 0.58 * rows, "compressed")
    axes = figure.subplots()
    show(axes, mosaic)
    axes.set_xticks(width / 2 + (width + _GAP) * np.arange(steps), [f"{o:+.2f}".replace("-", "−") for o in offsets])
    axes.set_yticks(height / 2 + (height + _GAP) * np.arange(rows), row_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    text = "each row: one dimension of the class capsule, the number on top added to it, decoded"
    style.caption(figure, f"{note}; {text}" if note else text)
    return figure


@style.styled
def couplings_over_image(
    image: np.ndarray,
    shares: np.ndarray,
    lengths: np.ndarray,
    *,
    receptive: tuple[int, int],
    label_names: Sequence[str],
    note: str = "",
) -> Figure:
    """Draws which parts of a picture send their votes to which class, a row an iteration, a column a class.

    Args:
        image: float[H, W, C] in 0..1.
        shares: float[iterations, rows, columns, classes], strength of the coupled votes of each position.
        lengths: float[iterations, classes] of the class capsules; the longest at the last iteration are drawn.
        receptive: (pixels between positions, side of a position's receptive field).
        label_names: one name a class.
        note: what the caption says first.

    Raises:
        ValueError: the shapes do not fit.
    """
    iterations, rows, columns, count = shares.shape
    if lengths.shape != (iterations, count) or len(label_names) != count:
        raise ValueError(
            f"need lengths [{iterations}, {count}] and {count} names, got {lengths.shape} and {len(label_names)}"
        )
    classes = np.argsort(-lengths[-1])[:_CLASSES]
    stride, side = receptive
    low = (side - 1) / 2 - stride / 2
    extent = (low, low + stride * columns, low + stride * rows, low)  # around the centres of the receptive fields
    figure = style.new_figure(0.7 + 1.75 * iterations, "compressed")
    panels = figure.subplots(iterations, len(classes) + 1, squeeze=False)
    for t in range(iterations):
        for axes in panels[t]:
            style.image_axes(axes)
            show(axes, image)
        panels[t, 0].set_ylabel(f"iteration {t + 1}", fontsize=9)
        for axes, k in zip(panels[t, 1:], classes, strict=True):
            strength = shares[t, :, :, k]
            greatest = shares[:, :, :, classes].max()
            axes.imshow(strength, cmap="inferno", alpha=0.75, extent=extent, vmin=0, vmax=greatest)
            axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
            axes.set_title(f"{label_names[k]}: {lengths[t, k]:.2f}", fontsize=9)
    text = "one image, one network; bright: positions whose coupled votes for the class are strong"
    text += ", at the centres of their receptive fields; number: length of the class capsule"
    style.caption(figure, f"{note}; {text}" if note else text)
    return figure
