"""What does each dimension of a class capsule stand for?

Claim: a CapsNet that reconstructs its input puts into the 16 dimensions of a digit's capsule how that digit is drawn:
stroke thickness, skew, width, the size of a loop. Moving one dimension by steps of 0.05 in [−0.25, 0.25] shows it
(Sabour, Frosst and Hinton 2017, figure 4; reconstructions as in figure 3).

    python launch.py --experiment=capsule_dimensions --dataset=mnist --seeds=1
    python launch.py --experiment=capsule_dimensions --dataset=fashion_mnist --seeds=1 --set data.max_shift=1 \
        --set train.epochs=12

Images are of the validation split, or of the training split with data.validation_fraction=0. A figure is of the run
with the least seed. Of many classes the first 20 are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset
from capsnet_jax.figures.grouping import Record
from capsnet_jax.figures.images import HIGHEST, network_note, reconstructions, show, single_networks
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.capsule_dimensions import lacks_decoder
from capsnet_jax.interpret.network import load_observation

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = [{"routing.iterations": 3}]

GAP = 2  # white pixels between the images of a grid
MOST = 32  # rows of a grid: of more dimensions those that change the picture most

observe = OBSERVATIONS["capsule_dimensions"]

CAPTIONS = {
    "reconstructions": "figure 3 of the paper: images above, what the decoder makes of them below",
    "dimensions": "figure 4 of the paper: of each class the dimension that changes its picture most",
    "all_dimensions": "every dimension of the class whose pictures change most",
}


def requires(config: Config, data: Dataset) -> str | None:
    """Say what a config lacks, and the remedy; None if all is well."""
    del data  # any will do
    lack = lacks_decoder(config)
    return lack and f"capsule_dimensions draws what a decoder makes: {lack}"


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw reconstructions, the dimension of each class that changes most, and one class's dimensions."""
    drawn: dict[str, Figure] = {}
    for title, record in single_networks(records).items():
        arrays = load_observation(record, "capsule_dimensions")
        if arrays is not None:
            note = network_note(record, f"{arrays.get('split', 'validation')} images")
            drawn |= {f"{name}-{title}": figure for name, figure in _draw(arrays, note).items()}
    return drawn


def _draw(arrays: dict[str, np.ndarray], note: str) -> dict[str, Figure]:
    """Draw the figures of one run, from what `observe` returned."""
    names, offsets = arrays["names"].tolist(), arrays["offsets"]
    shown = [names[k] for k in arrays.get("shown", range(len(names)))]
    if len(shown) < len(names):
        note += f"; {len(shown)} of {len(names)} classes, the first that have images"
    pixels = {name: array / 255 for name, array in arrays.items() if array.dtype == np.uint8}
    # How far each dimension moves the picture: the mean distance of its steps from where it started.
    change = np.abs(pixels["moved"] - pixels["moved"][:, :, len(offsets) // 2, None]).mean(axis=(2, 3, 4, 5))
    most = change.argmax(axis=1)
    chosen = int(change.sum(axis=1).argmax())
    dimensions = np.sort(np.argsort(-change[chosen], kind="stable")[:MOST])
    left_out = f", its {MOST} dimensions of {change.shape[1]} that do" if change.shape[1] > MOST else ""
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
            row_names=[f"{name}: {dimension + 1}" for name, dimension in zip(shown, most, strict=True)],
            note=f"{note}; of each class the dimension that changes its picture most",
        ),
        "all_dimensions": dimension_grid(
            pixels["moved"][chosen, dimensions],
            offsets,
            row_names=[f"dimension {dimension + 1}" for dimension in dimensions],
            note=f"{note}; the class whose pictures change most, {shown[chosen]}{left_out}",
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
    figure = style.new_figure(min(HIGHEST, 0.7 + 0.58 * rows * height / width), "compressed")
    axes = figure.subplots()
    show(axes, mosaic)
    axes.set_xticks(width / 2 + (width + GAP) * np.arange(steps), [f"{o:+.2f}".replace("-", "−") for o in offsets])
    axes.set_yticks(height / 2 + (height + GAP) * np.arange(rows), row_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    style.caption(figure, note, "each row: one dimension of the class capsule, the number on top added to it, decoded")
    return figure
