"""Datasets as uint8 arrays: one function for the sets in `DATASETS` and for every tfds image-classification set.

Importing this module is cheap: heavy packages are imported by `load`, when they are needed.
"""

import os

from capsnet_jax.data.arrays import DataError, Dataset, Description, Examples, RawDataset
from capsnet_jax.data.names import entry_of, full_name, own_settings, short_name, shows_pairs, slug, tells_stories
from capsnet_jax.data.read import IMAGE_SIZE, fingerprint, load_raw, made_by
from capsnet_jax.data.registry import DATASETS, DatasetEntry, Frame, Loader

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetEntry",
    "Description",
    "Examples",
    "Frame",
    "Loader",
    "RawDataset",
    "describe",
    "dimensions",
    "entry_of",
    "fingerprint",
    "frame_of",
    "full_name",
    "load",
    "made_by",
    "own_settings",
    "short_name",
    "shows_pairs",
    "slug",
    "tells_stories",
]


def load(
    name: str,
    *,
    label_key: str | None = None,
    validation_fraction: float = 0.1,
    train_size: int = 0,
    transform: str = "none",
    image_size: int = IMAGE_SIZE,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load a dataset, and prepare it first if necessary.

    Every split is deterministic: the same arguments give the same arrays on every machine. No argument but
    `transform` changes the test split. Test is the publisher's test split, else the validation split of a tfds set,
    else a fifth of each class of train. A line on stderr says so, and which classes go without images.

    Args:
        name: a name in `DATASETS`, with its path if it has one (`folder:~/pictures`), or any tfds name, with its config
            and version if wanted (`emnist/letters`).
        label_key: the tfds feature that is the label. The default is the entry's in `DATASETS`, else the only
            label of the set.
        validation_fraction: the share of each class, rounded to whole examples, that goes from train to
            validation (of bAbI: the share of stories); in [0, 1). A set with a validation split of its own uses that
            one, whole, and keeps all of train, whatever the share is. 0 is no validation, for every set.
        train_size: number of training examples to use, the same for each class as far as possible; 0 uses all.
        transform: a name in `TRANSFORMS`: what is done once to every image of every split.
        image_size: pixels of each side of a folder's pictures; of no other set.
        data_dir: folder of prepared tfds sets. The default is the environment's `TFDS_DATA_DIR`, then tfds's
            default folder.
        cache_dir: folder of decoded arrays. The default is the environment's `CAPSNET_JAX_CACHE`, then
            `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The dataset, as NumPy arrays. In a set that shows pairs, train holds single images, whose pairs are made in
        training, and validation and test hold pairs.

    Raises:
        DataError: an argument is out of bounds, or the set is unknown, damaged, not a set of images with labels,
            or not available. The message is one line that says what to do.
    """
    from capsnet_jax.data.pairs import fixed_pairs, shifted_once
    from capsnet_jax.data.split import check_bounds, split_raw
    from capsnet_jax.data.transform import check_transform, transform_images

    check_bounds(validation_fraction, train_size)
    check_transform(transform)
    entry = entry_of(name) or DatasetEntry("")
    if entry.pairs and transform == "inverted":
        raise DataError(f"{name} adds up light images on black, so transform=inverted makes no sense; leave it out")
    raw = load_raw(name, label_key, data_dir, cache_dir, image_size, validation_fraction)
    train, validation, test = split_raw(raw, validation_fraction=validation_fraction, train_size=train_size, name=name)
    if entry.max_shift and not entry.pairs:
        validation = shifted_once(validation, entry.max_shift)
    train, validation, test = (transform_images(split, transform) for split in (train, validation, test))
    if entry.pairs:
        validation, test = (
            fixed_pairs(split, classes=len(raw.label_names), max_shift=entry.max_shift, name=f"{name}: {which}")
            for which, split in (("validation", validation), ("test", test))
        )
    return Dataset(name, raw.label_names, train=train, validation=validation, test=test)


def describe(
    name: str, *, label_key: str | None = None, transform: str = "none", image_size: int = IMAGE_SIZE
) -> Description:
    """Return the size of a dataset's images and the names of its classes, as `load` would.

    Nothing is downloaded or prepared: tfds sets declare both. Of one that does not declare the size of its images, the
    first image is read. A set that has a loader is loaded, unless it is made of another one.

    Args:
        name: as in `load`.
        label_key: as in `load`.
        transform: as in `load`; one that turns images can change their size.
        image_size: as in `load`.

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
    entry = entry_of(name)
    if entry is None or entry.load is None:
        from capsnet_jax.data.tfds import source

        shape, label_names = source.describe(name, label_key or (entry.label_key if entry else None))
    elif entry.base is not None and entry.dimensions is not None and label_key is None:
        shape, label_names = entry.dimensions[0], describe(entry.base).label_names
    else:
        raw = load_raw(name, label_key, image_size=image_size)
        (height, width, channels), label_names = raw.train.images.shape[1:], raw.label_names
        shape = (height, width, channels)
    height, width, channels = TRANSFORMS[transform](np.zeros((1, *shape), np.uint8)).shape[1:]
    return Description((height, width, channels), label_names)


def dimensions(
    name: str, *, label_key: str | None = None, image_size: int = IMAGE_SIZE
) -> tuple[tuple[int, int, int], int]:
    """Return the size of a dataset's images and its number of classes.

    As `describe`, but an entry of `DATASETS` that declares its dimensions is not loaded.

    Args:
        name: as in `load`.
        label_key: as in `load`.
        image_size: as in `load`.

    Returns:
        (height, width, channels), and the number of classes.

    Raises:
        DataError: as for `describe`.
    """
    entry = entry_of(name)
    if entry is not None and entry.dimensions is not None and label_key is None:
        return entry.dimensions
    shape, label_names = describe(name, label_key=label_key, image_size=image_size)
    return shape, len(label_names)


def frame_of(name: str) -> Frame | None:
    """Return how a dataset frames its drawings; None for a set of other pictures. `name` is as in `load`."""
    entry = entry_of(name)
    return entry.frame if entry else None
