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
from capsnet_jax.interpret.restore import Trained, observed

CONFIG: dict[str, object] = {"eval.max_routing_iterations": 7}

SWEEP: list[dict[str, object]] = [{"routing.iterations": 3}]

STEPS = 11  # from −0.25 to 0.25
GREATEST = 0.25
SHOWN = 2  # reconstructions of each class
GAP = 2  # white pixels between the images of a grid


def observe(trained: Trained) -> dict[str, np.ndarray]:
    """Reconstructions, and one image of each class with every dimension of its capsule moved.

    Returns:
        Bytes for pixels, as in the data set: "images" and "reconstructions" [shown, height, width, channels], "labels"
        and "predictions" [shown]; "moved" [classes, dims, STEPS, height, width, channels], "offsets" [STEPS],
        and the classes' "names".
    """
    import jax
    import jax.numpy as jnp

    from capsnet_jax.data.augment import to_float
    from capsnet_jax.models.capsnet import decode

    held, shape = trained.data.validation, trained.data.image_shape
    places = np.array([np.flatnonzero(held.labels == c)[i] for i in range(SHOWN) for c in range(trained.data.classes)])
    out = trained.outputs(to_float(jnp.asarray(held.images[places])))
    offsets = np.linspace(-GREATEST, GREATEST, STEPS, dtype=np.float32)

    def moved(capsules: jax.Array, shown: jax.Array) -> jax.Array:
        """[dims, STEPS, pixels] of one image's capsules [classes, dims]."""
        dims = capsules.shape[1]
        steps = jnp.eye(dims)[:, None] * jnp.asarray(offsets)[None, :, None]
        changed = jnp.broadcast_to(capsules, (dims, STEPS, *capsules.shape)).at[:, :, shown].add(steps)
        changed = changed.reshape(-1, *capsules.shape)
        return decode(trained.model, trained.params, changed, jnp.full(len(changed), shown)).reshape(dims, STEPS, -1)

    classes = jnp.arange(trained.data.classes)
    grid = np.stack([moved(capsules, c) for capsules, c in zip(out["capsules"], classes, strict=False)])

    def to_bytes(pixels: np.ndarray | jax.Array) -> np.ndarray:
        return np.round(255 * np.asarray(pixels)).astype(np.uint8)

    return {
        "images": np.asarray(held.images)[places],
        "labels": np.asarray(held.labels)[places],
        "reconstructions": to_bytes(out["reconstruction"]),
        "predictions": np.asarray(jnp.argmax(out["lengths"], axis=-1)),
        "moved": to_bytes(grid.reshape(*grid.shape[:3], *shape)),
        "offsets": offsets,
        "names": np.array(trained.data.label_names),
    }


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Of each data set: reconstructions, the dimension of each class that changes most, and one class's dimensions."""
    drawn = {}
    for record in sorted(records, key=lambda record: -record.seed):  # the least seed comes last, and stays
        arrays = observed(record, "capsule_dimensions")
        if arrays is None:
            continue
        dataset, preset = record.settings[DATASET], record.settings["preset"]
        note = f"{dataset_label(dataset)}, validation images; {preset} preset, seed {record.seed}"
        for name, figure in _draw(arrays, note).items():
            drawn[f"{name}-{dataset_slug(dataset)}"] = figure
    return drawn


def _draw(arrays: dict[str, np.ndarray], note: str) -> dict[str, Figure]:
    """The figures of one run, from what `observe` returned."""
    names, offsets = arrays["names"].tolist(), arrays["offsets"]
    pixels = {name: array / 255 for name, array in arrays.items() if array.dtype == np.uint8}
    # How far each dimension moves the picture: the mean distance of its steps from where it started.
    change = np.abs(pixels["moved"] - pixels["moved"][:, :, STEPS // 2, None]).mean(axis=(2, 3, 4, 5))
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
