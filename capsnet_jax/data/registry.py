"""The registry of datasets.

To add a set, write one file with a function `load() -> RawDataset`, and add one line to `DATASETS`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Literal, NamedTuple

from capsnet_jax.data.arrays import RawDataset


class Frame(NamedTuple):
    """How a set of drawings, light on black, places each one in its image.

    Attributes:
        side: pixels of the drawing's longer side; all are scaled to it.
        centre: what is in the middle of the image: the drawing's centre of mass, or of the box around it.
        transposed: whether rows and columns are exchanged.
    """

    side: int
    centre: Literal["mass", "box"] = "box"
    transposed: bool = False


class DatasetEntry(NamedTuple):
    """What the project knows about a dataset.

    Attributes:
        description: one line for `launch.py --list`.
        load: the function that reads the set. None for a tfds set, which is loaded by its name.
        label_key: the tfds feature that is the label, for a tfds set with several; None for the only one.
        dimensions: ((height, width, channels), number of classes), for a set with a `load`. None if they are only
            known once the set is loaded.
        frame: how drawings lie in its images; None for a set of other pictures. A picture that is to be classified is
            framed so (`picture.py`).
    """

    description: str
    load: Callable[[], RawDataset] | None = None
    label_key: str | None = None
    dimensions: tuple[tuple[int, int, int], int] | None = None
    frame: Frame | None = None


def load_from(module: str) -> Callable[[], RawDataset]:
    """Return a function that imports a module and calls its `load`.

    The module, and the heavy packages that it needs, are imported only when the set is loaded.
    """
    return lambda: import_module(module).load()


# LeCun et al. 1998, section VII.A: the digit fits into 20x20 pixels, its centre of mass is in the middle of 28x28.
MNIST = Frame(20, "mass")

# Any other tfds image-classification set can be loaded by its tfds name as well.
DATASETS: dict[str, DatasetEntry] = {
    "mnist_5k": DatasetEntry(
        "MNIST digits, 28x28x1: 4,000 train, 1,000 test; no download",
        load_from("capsnet_jax.data.embedded"),
        dimensions=((28, 28, 1), 10),
        frame=MNIST,
    ),
    "mnist": DatasetEntry("MNIST digits, 28x28x1: 60,000 train, 10,000 test", frame=MNIST),
    "fashion_mnist": DatasetEntry("Zalando articles, 28x28x1: 60,000 train, 10,000 test"),
    "kmnist": DatasetEntry("Kuzushiji characters, 28x28x1: 60,000 train, 10,000 test", frame=Frame(28)),
    "emnist": DatasetEntry(
        "letters and digits, 28x28x1, transposed; emnist/X: byclass bymerge balanced letters digits mnist",
        frame=Frame(24, transposed=True),  # Cohen et al. 2017 (arXiv:1702.05373): two pixels of ground around the box
    ),
    "cifar10": DatasetEntry("colour photographs, 32x32x3: 50,000 train, 10,000 test"),
    "svhn_cropped": DatasetEntry("house numbers, 32x32x3: 73,257 train, 26,032 test"),
    "smallnorb": DatasetEntry("toys, 96x96x1: 24,300 train, 24,300 test", label_key="label_category"),
}
