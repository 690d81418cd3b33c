"""What does routing do inside the network, iteration by iteration and through training?

Claim: iterations polarise the couplings (their entropy falls) without changing what is predicted (Paik, Kwak and Kim
2019, arXiv:1907.13327). Measured on validation images after every epoch, with 1 to 7 iterations whatever the network
was trained with: entropy of the couplings, agreement, predictions that flip, error, and primary capsules that are dead.
And for single images, which parts of the picture send their votes where.

    python launch.py --experiment=routing_diagnostics --dataset=fashion_mnist --seeds=5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capsnet_jax.overrides import grid

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from capsnet_jax.interpret.restore import Trained
    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7}

SWEEP: list[dict[str, object]] = grid({"routing.iterations": (1, 3, 7)})

SHOWN = 3  # images, the first of the validation split of as many classes
ITERATIONS = (1, 2, 3)  # whose couplings are drawn


def observe(trained: Trained) -> dict[str, np.ndarray]:
    """Where single images' votes go.

    Returns:
        "images" uint8[SHOWN, height, width, channels], "labels" [SHOWN], "shares" float32[SHOWN, iterations, rows,
        columns, classes]: the lengths of coupled votes |c_io û_io|, summed over the types of each position; "lengths"
        [SHOWN, iterations, classes] of the class capsules, "receptive" (stride, side) of a position, in pixels, and
        the classes' "names".
    """
    import dataclasses

    import jax.numpy as jnp
    import numpy as np

    from capsnet_jax.data.augment import to_float
    from capsnet_jax.models.capsnet import reroute
    from capsnet_jax.ops.squash import length

    held, model = trained.data.validation, trained.model
    places = np.array([np.flatnonzero(np.asarray(held.labels) == c)[0] for c in range(SHOWN)])
    images = np.asarray(held.images)[places]
    out = trained.outputs(to_float(jnp.asarray(images)))
    votes = length(jnp.einsum("bik,iokd->biod", out["primary"], trained.params["digit"]["W"]))
    kernel = model.kernel
    rows, columns = ((side - 2 * kernel + 1) // 2 + 1 for side in images.shape[1:3])
    shares, lengths = [], []
    for t in ITERATIONS:
        settings = dataclasses.replace(trained.settings.routing, iterations=t)
        routed = reroute(trained.params, out["primary"], settings)
        coupled = (routed.couplings * votes).reshape(SHOWN, rows, columns, model.types, -1)
        shares.append(np.asarray(coupled.sum(axis=3)))
        lengths.append(np.asarray(length(routed.capsules)))
    return {
        "images": images,
        "labels": np.asarray(held.labels)[places],
        "shares": np.stack(shares, axis=1).astype(np.float32),
        "lengths": np.stack(lengths, axis=1),
        "receptive": np.array([2, kernel + kernel - 1]),
        "names": np.array(trained.data.label_names),
    }


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Every quantity through training, and single images' couplings."""
    from capsnet_jax import figures as draw
    from capsnet_jax.interpret.restore import observed
    from capsnet_jax.sweeps.records import by_dataset, compared

    drawn = {}
    by = compared(records, ["routing.iterations"])
    for dataset, own in by_dataset(records).items():
        key = dataset.replace("/", "_")
        drawn[f"through_training-{key}"] = draw.through_training(own, by=by)
        for record in own:
            seen = observed(record, "routing_diagnostics")
            if seen is None or record.seed != min(r.seed for r in own):
                continue
            for image, label, shares, lengths in zip(
                seen["images"], seen["labels"], seen["shares"], seen["lengths"], strict=True
            ):
                name = f"couplings-{key}-trained{record.settings['routing.iterations']}-class{label}"
                drawn[name] = draw.couplings_over_image(
                    image / 255, shares, lengths, receptive=tuple(seen["receptive"]), label_names=seen["names"].tolist()
                )
    return drawn
