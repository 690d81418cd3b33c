"""Datasets as uint8 arrays: one function for the sets in `DATASETS` and for every tfds image-classification set.

Importing this module is cheap: heavy packages are imported by `load`, when they are needed.
"""

import os

from capsnet_jax.data.arrays import DataError, Dataset, Description, Examples, RawDataset
from capsnet_jax.data.registry import DATASETS, DatasetEntry, Frame

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetEntry",
    "Description",
    "Examples",
    "Frame",
    "RawDataset",
    "describe",
    "dimensions",
    "frame_of",
    "load",
]


def load(
    name: str,
    *,
    label_key: str | None = None,
    validation_fraction: float = 0.1,
    train_size: int = 0,
    transform: str = "none",
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a dataset, and prepare it first if necessary.

    Every split is deterministic: the same arguments give the same arrays on every machine. No argument but
    `transform` changes the test split. Test is the publisher's test split, else its validation split, else a fifth of
    each class. A line on stderr says so, and which classes go without images.

    Args:
        name: a name in `DATASETS`, or any tfds name, with its config and version if wanted
            (`emnist/letters`).
        label_key: the tfds feature that is the label. The default is the entry's in `DATASETS`, else the only
            label of the set.
        validation_fraction: the share of each class, rounded to whole examples, that goes from train to
            validation; in [0, 1). A set with a validation split of its own uses that one, whole, and keeps all of
            train, whatever the share is. 0 is no validation, for every set.
        train_size: number of training examples to use, the same for each class as far as possible; 0 uses all.
        transform: a name in `TRANSFORMS`: what is done once to every image of every split.
        data_dir: folder of prepared tfds sets. The default is the environment's `TFDS_DATA_DIR`, then tfds's
            default folder.
        cache_dir: folder of decoded arrays. The default is the environment's `CAPSNET_JAX_CACHE`, then
            `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The dataset, as NumPy arrays.

    Raises:
        DataError: an argument is out of bounds, or the set is unknown, damaged, not a set of images with labels,
            or not available. The message is one line that says what to do.
    """
    from capsnet_jax.data.split import check_bounds, split_raw
    from capsnet_jax.data.transform import check_transform, transform_images

    check_bounds(validation_fraction, train_size)
    check_transform(transform)
    raw = _load_raw(name, label_key, data_dir, cache_dir)
    splits = split_raw(raw, validation_fraction=validation_fraction, train_size=train_size, name=name)
    train, validation, test = (transform_images(split, transform) for split in splits)
    return Dataset(name, raw.label_names, train=train, validation=validation, test=test)


def describe(name: str, *, label_key: str | None = None, transform: str = "none") -> Description:
    """Return the size of a dataset's images and the names of its classes, as `load` would.

    Nothing is downloaded or prepared: tfds sets declare both. Of one that does not declare the size of its images, the
    first image is read. A set that has a loader is loaded.

    Args:
        name: as in `load`.
        label_key: as in `load`.
        transform: as in `load`; one that turns images can change their size.

    Returns:
        The description. A few tfds sets, such as CIFAR-10, only know the names of their classes once they are prepared.
        Until then these are the class numbers.

    Raises:
        DataError: the set is unknown, not a set of images with labels, or not prepared and does not declare the size of
            its images.
    """
    import numpy as np

    from capsnet_jax.data.transform import TRANSFORMS, check_transform

    check_transform(transform)
    entry = _entry(name)
    if entry is None or entry.load is None:
        from capsnet_jax.data.tfds import source

        shape, label_names = source.describe(name, label_key or (entry.label_key if entry else None))
    else:
        raw = _load_raw(name, label_key)
        (height, width, channels), label_names = raw.train.images.shape[1:], raw.label_names
        shape = (height, width, channels)
    height, width, channels = TRANSFORMS[transform](np.zeros((1, *shape), np.uint8)).shape[1:]
    return Description((height, width, channels), label_names)


def dimensions(name: str, *, label_key: str | None = None) -> tuple[tuple[int, int, int], int]:
    """Return the size of a dataset's images and its number of classes.

    As `describe`, but an entry of `DATASETS` that declares its dimensions is not loaded.

    Args:
        name: as in `load`.
        label_key: as in `load`.

    Returns:
        (height, width, channels), and the number of classes.

    Raises:
        DataError: as for `describe`.
    """
    entry = _entry(name)
    if entry is not None and entry.dimensions is not None and label_key is None:
        return entry.dimensions
    shape, label_names = describe(name, label_key=label_key)
    return shape, len(label_names)


def frame_of(name: str) -> Frame | None:
    """Return how a dataset frames its drawings; None for a set of other pictures. `name` is as in `load`."""
    entry = _entry(name)
    return entry.frame if entry else None


def _load_raw(
    name: str,
    label_key: str | None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> RawDataset:
    """Load a set by its entry's loader, or else through tfds."""
    entry = _entry(name)
    if entry is None or entry.load is None:
        from capsnet_jax.data.tfds import source

        label_key = label_key or (entry.label_key if entry else None)
        raw = source.load(name, label_key, data_dir=data_dir, cache_dir=cache_dir)
    elif label_key is not None:
        raise DataError(f"{name} has one label feature: leave out label_key={label_key!r}")
    else:
        raw = entry.load()
        if not isinstance(raw, RawDataset):
            raise DataError(f"{name}: its loader returned a {type(raw).__name__}; it must return a RawDataset")
    raw.check(name)
    return raw


def _entry(name: str) -> DatasetEntry | None:
    """Return the entry of a set, which is the same for all configs and versions of a tfds set."""
    base = name.split("/")[0].split(":")[0]
    entry = DATASETS.get(base)
    if entry is not None and entry.load is not None and name != base:
        raise DataError(f"{base} has no configs and no versions: ask for {base}, not {name}")
    return entry
