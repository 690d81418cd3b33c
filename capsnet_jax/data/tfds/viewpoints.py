"""smallNORB split by viewpoint: learn a few azimuths or elevations, and tell the toys apart from others.

Hinton, Sabour and Frosst 2018, "Matrix capsules with EM routing", section 5.1. Train is the publisher's training split
from the familiar viewpoints, test the publisher's test split from all others. Its familiar viewpoints are validation:
the paper compares nets that are equally good there. Both cameras' images are channels.
"""

import os
from functools import partial
from typing import Any

import numpy as np

from capsnet_jax.data.arrays import Examples, RawDataset
from capsnet_jax.data.tfds import decode, source

MADE_BY = ("tfds/viewpoints.py", *source.MADE_BY)  # the code that makes the arrays
# tfds counts azimuths in steps of 20° from 0°, and elevations in steps of 5° from 30°.
FAMILIAR = {"azimuth": (15, 16, 17, 0, 1, 2), "elevation": (0, 1, 2)}
CAMERAS = ("image", "image2")


def load(
    feature: str,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> RawDataset:
    """Load smallNORB, split by a feature of the viewpoint.

    Args:
        feature: "azimuth" or "elevation".
        data_dir: as of `data.load`.
        cache_dir: as of `data.load`.
    """
    split = partial(_decode, feature=feature)
    folders = {"data_dir": data_dir, "cache_dir": cache_dir}
    return source.load(
        "smallnorb", "label_category", **folders, variant=f"by {feature}", decode_fn=split, made_by=MADE_BY
    )


def _decode(builder: Any, image_key: str, label_key: str, splits: dict[str, str], *, feature: str) -> RawDataset:
    """Read both splits and share them out; a pass over the records for each camera gives an image and a label."""
    shared = {}
    for split in ("train", "test"):
        left = decode.decode_split(builder, splits[split], CAMERAS[0], label_key)
        right = decode.decode_split(builder, splits[split], CAMERAS[1], f"label_{feature}")
        images = np.concatenate([np.asarray(left.images), np.asarray(right.images)], axis=-1)
        familiar = np.isin(right.labels, FAMILIAR[feature])
        for name, chosen in ((f"{split}, familiar", familiar), (f"{split}, new", ~familiar)):
            shared[name] = Examples(halve(images[chosen]), left.labels[chosen])  # type: ignore[arg-type]  # NumPy for now
    return RawDataset(
        tuple(builder.info.features[label_key].names),
        train=shared["train, familiar"],
        validation=shared["test, familiar"],
        test=shared["test, new"],
    )


def halve(images: np.ndarray) -> np.ndarray:
    """Return uint8[n, height, width, channels] at half the size: the mean of 2x2 pixels, halves up."""
    quarters = [images[:, y::2, x::2].astype(np.uint16) for y in (0, 1) for x in (0, 1)]
    return ((np.stack(quarters).sum(axis=0) + 2) // 4).astype(np.uint8)
