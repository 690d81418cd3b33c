"""The registry of datasets.

To add a set, write one file with a function `load() -> RawDataset`, and add one line to `DATASETS`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from capsnet_jax.data.arrays import RawDataset


class DatasetEntry(NamedTuple):
    """What the project knows about a dataset.

    Attributes:
        description: one line for `launch.py --list`.
        load: the function that reads the set. None for a tfds set, which is loaded by its name.
        label_key: the tfds feature that is the label, for a tfds set with several; None for the only one.
        dimensions: ((height, width, channels), number of classes), for a set with a `load`. None if they are only
            known once the set is loaded.
    """

    description: str
    load: Callable[[], RawDataset] | None = None
    label_key: str | None = None
    dimensions: tuple[tuple[int, int, int], int] | None = None


def load_from(module: str) -> Callable[[], RawDataset]:
    """Return a function that imports a module and calls its `load`.

    The module, and the heavy packages that it needs, are imported only when the set is loaded.
    """
    return lambda: import_module(module).load()


# Any other tfds image-classification set can be loaded by its tfds name as well.
DATASETS: dict[str, DatasetEntry] = {
    "mnist_5k": DatasetEntry(
        "MNIST digits, 28x28x1: 4,000 train, 1,000 test; no download",
        load_from("capsnet_jax.data.embedded"),
        dimensions=((28, 28, 1), 10),
    ),
    "mnist": DatasetEntry("MNIST digits, 28x28x1: 60,000 train, 10,000 test"),
    "fashion_mnist": DatasetEntry("Zalando articles, 28x28x1: 60,000 train, 10,000 test"),
    "kmnist": DatasetEntry("Kuzushiji characters, 28x28x1: 60,000 train, 10,000 test"),
    "emnist": DatasetEntry(
        "letters and digits, 28x28x1, transposed; emnist/X: byclass bymerge balanced letters digits mnist"
    ),
    "cifar10": DatasetEntry("colour photographs, 32x32x3: 50,000 train, 10,000 test"),
    "svhn_cropped": DatasetEntry("house numbers, 32x32x3: 73,257 train, 26,032 test"),
    "smallnorb": DatasetEntry("toys, 96x96x1: 24,300 train, 24,300 test", label_key="label_category"),
}
