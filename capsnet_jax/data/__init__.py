"""Datasets as uint8 arrays: one function for the embedded digits and for every tfds image-classification set.

Importing this module is cheap; whatever is heavy is imported by `load`, when it is needed.
"""

import os

from capsnet_jax.data.dataset import DataError, Dataset, Examples
from capsnet_jax.data.known import DATASETS, KnownDataset

__all__ = ["DATASETS", "DataError", "Dataset", "Examples", "KnownDataset", "dimensions", "load"]


def load(
    name: str,
    *,
    label_key: str | None = None,
    validation_fraction: float = 0.1,
    train_size: int = 0,
    variant: str = "none",
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Loads a dataset, preparing it first where it is not prepared yet.

    Every split is deterministic: the same arguments give the same arrays on every machine. The test split is
    the dataset's own and is not changed by any argument.

    Args:
        name: a name in `DATASETS`, or any tfds name, with its config and version if wanted
            (`emnist/letters`).
        label_key: the feature that is the label; by default the set's only one, or the one in `DATASETS`.
        validation_fraction: the share of each class, rounded to whole examples, that is held out of train; in
            [0, 1).
        train_size: number of training examples to keep, the same for each class as far as possible; 0 keeps
            all.
        variant: "none", "inverted" (bright for dark) or "rotated" (by 90°): what is done to every image of every
            split.
        data_dir: where prepared tfds sets lie; by default the environment's `TFDS_DATA_DIR`, then tfds's own
            folder.
        cache_dir: where decoded arrays are kept; by default the environment's `CAPSNET_JAX_CACHE`, then
            `capsnet_jax` in `XDG_CACHE_HOME` or `~/.cache`.

    Returns:
        The dataset, as NumPy arrays.

    Raises:
        DataError: an argument is out of bounds, or the set is unknown, damaged, of another kind than images
            with one label, or neither prepared nor to be had. One line says what to do.
    """
    from capsnet_jax.data import split

    split.check_bounds(validation_fraction, train_size)
    if name == "mnist_5k":
        if label_key is not None:
            raise DataError(f"mnist_5k has one label and takes no label_key: leave out {label_key!r}")
        from capsnet_jax.data import embedded

        source = embedded.load_mnist_5k()
    else:
        from capsnet_jax.data import tfds_source

        source = tfds_source.load(name, label_key or _label_key(name), data_dir=data_dir, cache_dir=cache_dir)
    train, validation = split.divide(
        source.train, validation_fraction=validation_fraction, train_size=train_size, name=name
    )
    train, validation, test = (split.variant(examples, variant) for examples in (train, validation, source.test))
    return Dataset(name, source.label_names, train=train, validation=validation, test=test)


def dimensions(name: str, *, label_key: str | None = None) -> tuple[tuple[int, int, int], int]:
    """How large a dataset's images are, and how many classes it has, by its description alone.

    No file of the set is needed, so what follows from its images' size can be told where its images are not.

    Args:
        name: as in `load`.
        label_key: as in `load`.

    Returns:
        [height, width, channels], and the number of classes.

    Raises:
        DataError: the set is unknown, of another kind than images with one label, or does not say how large they are.
    """
    if name == "mnist_5k":
        return (28, 28, 1), 10
    from capsnet_jax.data import tfds_source

    return tfds_source.dimensions(name, label_key or _label_key(name))


def _label_key(name: str) -> str | None:
    """The label that a known set goes by, whatever its config and version."""
    known = DATASETS.get(name.split("/")[0].split(":")[0])
    return known.label_key if known else None
