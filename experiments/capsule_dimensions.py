"""What does each dimension of a class capsule stand for?

Claim: a CapsNet that reconstructs its input puts into the 16 dimensions of a digit's capsule how that digit is drawn:
stroke thickness, skew, width, the size of a loop. Moving one dimension by steps of 0.05 in [−0.25, 0.25] shows it
(Sabour, Frosst and Hinton 2017, figure 4; reconstructions as in figure 3).

    python launch.py --experiment=capsule_dimensions --dataset=mnist --seeds=1
    python launch.py --experiment=capsule_dimensions --dataset=fashion_mnist --seeds=1

All images are of the validation split. A figure is of the run with the least seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.grouping import DATASET, Record
from capsnet_jax.figures.images import reconstructions, show
from capsnet_jax.figures.labels import dataset_label, dataset_slug
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.restore import load_observation

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = [{"routing.iterations": 3}]

GAP = 2  # white pixels between the images of a grid

observe = OBSERVATIONS["capsule_dimensions"]


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw reconstructions, the dimension of each class that changes most, and one class's dimensions."""
    drawn = {}
    for record in sorted(records, key=lambda record: -record.seed):  # the least seed comes last, and stays
        arrays = load_observation(record, "capsule_dimensions")
        if arrays is None:
            continue
        dataset, preset = record.settings[DATASET], record.settings["preset"]
        note = f"{dataset_label(dataset)}, validation images; {preset} preset, seed {record.seed}"
        for name, figure in _draw(arrays, note).items():
            drawn[f"{name}-{dataset_slug(dataset)}"] = figure
    return drawn


def _draw(arrays: dict[str, np.ndarray], note: str) -> dict[str, Figure]:
    """Draw the figures of one run, from what `observe` returned."""
    names, offsets = arrays["names"].tolist(), arrays["offsets"]
    pixels = {name: array / 255 for name, array in arrays.items() if array.dtype == np.uint8}
    # How far each dimension moves the picture: the mean distance of its steps from where it started.
    change = np.abs(pixels["moved"] - pixels["moved"][:, :, len(offsets) // 2, None]).mean(axis=(2, 3, 4, 5))
    most = change.argmax(axis=1)
    chosen = int(change.sum(axis=1).argmax())
    return {
        "reconstructions": reconstructions(
            pixels["images"],
            pixels["reconstructions"],
            arrays["labels"],
            arrays["predictions"],
            label_names=names,
            note=note,
        ),
        "dimensions": dimension_grid(
            pixels["moved"][np.arange(len(most)), most],
            offsets,
            row_names=[f"{name}: {dimension + 1}" for name, dimension in zip(names, most, strict=True)],
            note=f"{note}; of each class the dimension that changes its picture most",
        ),
        "all_dimensions": dimension_grid(
            pixels["moved"][chosen],
            offsets,
            row_names=[f"dimension {dimension + 1}" for dimension in range(change.shape[1])],
            note=f"{note}; the class whose pictures change most, {names[chosen]}",
        ),
    }


@style.styled
def dimension_grid(moved: np.ndarray, offsets: np.ndarray, *, row_names: Sequence[str], note: str = "") -> Figure:
    """Draw what the decoder makes of a capsule when one dimension is moved, a row a dimension.

    Args:
        moved: float[rows, steps, H, W, C] in 0..1.
        offsets: float[steps], what was added to the dimension.
        row_names: one name a row.
        note: how the caption begins.

    Raises:
        ValueError: the shapes do not fit.

    Source: Sabour et al. 2017, figure 4.
    """
    rows, steps, height, width = moved.shape[:4]
    if (len(row_names), len(offsets)) != (rows, steps):
        raise ValueError(f"need {rows} names and {steps} offsets, got {len(row_names)} and {len(offsets)}")
    # One picture of all of them: hundreds of axes would take a minute to lay out.
    gaps = ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0))
    tiles = np.pad(moved, gaps, constant_values=1.0).transpose(0, 2, 1, 3, 4)
    mosaic = tiles.reshape(rows * (height + GAP), steps * (width + GAP), -1)
    figure = style.new_figure(0.7 + 0.58 * rows, "compressed")
    axes = figure.subplots()
    show(axes, mosaic)
    axes.set_xticks(width / 2 + (width + GAP) * np.arange(steps), [f"{o:+.2f}".replace("-", "−") for o in offsets])
    axes.set_yticks(height / 2 + (height + GAP) * np.arange(rows), row_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    style.caption(figure, note, "each row: one dimension of the class capsule, the number on top added to it, decoded")
    return figure
