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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from capsnet_jax.interpret.restore import Trained
    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7}

SWEEP: list[dict[str, object]] = [{"routing.iterations": 3}]

STEPS = 11  # from −0.25 to 0.25
GREATEST = 0.25
SHOWN = 2  # reconstructions of each class


def observe(trained: Trained) -> dict[str, np.ndarray]:
    """Reconstructions, and one image of each class with every dimension of its capsule moved.

    Returns:
        Bytes for pixels, as in the data set: "images" and "reconstructions" [shown, height, width, channels], "labels"
        and "predictions" [shown]; "moved" [classes, dims, STEPS, height, width, channels], "offsets" [STEPS],
        and the classes' "names".
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

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
    import numpy as np

    from capsnet_jax import figures as draw
    from capsnet_jax.interpret.restore import observed

    drawn = {}
    for record in sorted(records, key=lambda record: -record.seed):  # the least seed comes last, and stays
        seen = observed(record, "capsule_dimensions")
        if seen is None:
            continue
        dataset = record.settings["data.dataset"]
        names = seen["names"].tolist()
        preset = record.settings["preset"]
        note = f"{draw.dataset_label(dataset)}, validation images; {preset} preset, seed {record.seed}"
        pixels = {name: array / 255 for name, array in seen.items() if array.dtype == np.uint8}
        offsets, key = seen["offsets"], dataset.replace("/", "_")
        # How far each dimension moves the picture: the mean distance of its steps from where it started.
        change = np.abs(pixels["moved"] - pixels["moved"][:, :, STEPS // 2, None]).mean(axis=(2, 3, 4, 5))
        most = change.argmax(axis=1)
        drawn[f"reconstructions-{key}"] = draw.reconstructions(
            pixels["images"],
            pixels["reconstructions"],
            seen["labels"],
            seen["predictions"],
            label_names=names,
            note=note,
        )
        drawn[f"dimensions-{key}"] = draw.dimension_grid(
            pixels["moved"][np.arange(len(most)), most],
            offsets,
            row_names=[f"{name}: {dimension + 1}" for name, dimension in zip(names, most, strict=True)],
            note=f"{note}; of each class the dimension that changes its picture most",
        )
        shown = int(change.sum(axis=1).argmax())
        drawn[f"all_dimensions-{key}"] = draw.dimension_grid(
            pixels["moved"][shown],
            offsets,
            row_names=[f"dimension {dimension + 1}" for dimension in range(change.shape[1])],
            note=f"{note}; the class whose pictures change most, {names[shown]}",
        )
    return drawn
