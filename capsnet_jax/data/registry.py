"""The registry of datasets.

To add a set, write one file with a function `load() -> RawDataset`, and add one line to `DATASETS`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, Literal, NamedTuple

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


class Loader(NamedTuple):
    """A loader in a module that is imported only when the set is loaded, and with it the heavy packages that it needs.

    Attributes:
        module: the module's name.
        fixed: arguments of its `load`.
    """

    module: str
    fixed: Mapping[str, Any]

    @property
    def imported(self) -> ModuleType:
        """The module. It may have a `fingerprint`, of the user's files, and `MADE_BY`, its arrays' source files."""
        return import_module(self.module)

    @property
    def function(self) -> Callable[..., RawDataset]:
        """The module's `load`."""
        return self.imported.load

    def __call__(self, **arguments: Any) -> RawDataset:
        """Load the set."""
        return self.function(**self.fixed, **arguments)


class DatasetEntry(NamedTuple):
    """What the project knows about a dataset.

    Attributes:
        description: one line for `launch.py --list`.
        load: the function that reads the set. None for a tfds set, which is loaded by its name. If its signature names
            them, it also gets `base`, the RawDataset of that entry, `data_dir`, `cache_dir` and `validation_fraction`
            as of `data.load`, and of a set with a path `path` and `image_size`.
        label_key: the tfds feature that is the label, for a tfds set with several; None for the only one.
        dimensions: ((height, width, channels), number of classes), for a set with a `load`. None if they are only
            known once the set is loaded.
        frame: how drawings lie in its images; None for a set of other pictures. A picture that is to be classified is
            framed so (`picture.py`).
        base: the set that this one is made of; it has the same classes.
        settings: its own defaults, {path: value}. If they say a `data.max_shift`, validation's images are moved so too,
            once.
        pairs: whether each image shows two of the loaded ones, one over the other (`pairs.py`).
        stories: whether its images are word numbers, and no pictures that could be looked at, turned or moved.
        has_path: whether it is the user's own, and named with its path, `NAME:PATH`.
    """

    description: str
    load: Callable[..., RawDataset] | Loader | None = None
    label_key: str | None = None
    dimensions: tuple[tuple[int, int, int], int] | None = None
    frame: Frame | None = None
    base: str | None = None
    settings: Mapping[str, Any] = MappingProxyType({})
    pairs: bool = False
    stories: bool = False
    has_path: bool = False

    @property
    def max_shift(self) -> int:
        """The pixels by which images of this set are moved, each once, where they are not augmented."""
        return self.settings.get("data.max_shift", 0)


def load_from(module: str, **fixed: Any) -> Loader:
    """Return a function that imports a module and calls its `load`, with the arguments `fixed`."""
    return Loader(module, fixed)


# LeCun et al. 1998, section VII.A: the digit fits into 20x20 pixels, its centre of mass is in the middle of 28x28.
MNIST = Frame(20, "mass")


def _pairs(base: str, description: str) -> DatasetEntry:
    """Return the entry of a set of overlapping pairs of another set's images of 28x28."""
    load = load_from("capsnet_jax.data.pairs")
    settings = {"data.max_shift": 4}
    return DatasetEntry(description, load, dimensions=((36, 36, 1), 10), base=base, settings=settings, pairs=True)


def _viewpoints(feature: str, description: str) -> DatasetEntry:
    """Return the entry of smallNORB's images, split by a feature of the viewpoint."""
    load = load_from("capsnet_jax.data.tfds.viewpoints", feature=feature)
    description = f"toys, two cameras, 48x48x2: {description}; 8,100 train, 16,200 test"
    return DatasetEntry(description, load, dimensions=((48, 48, 2), 5), base="smallnorb")


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
    "smallnorb_azimuth": _viewpoints("azimuth", "seen from 300° to 40°, and in test from elsewhere"),
    "smallnorb_elevation": _viewpoints("elevation", "seen from 30° to 40° above ground, and in test from higher"),
    "multi_mnist": _pairs("mnist", "two MNIST digits of different classes, overlapping, 36x36x1: 60,000 and 10,000"),
    "multi_fashion": _pairs("fashion_mnist", "two Zalando articles, overlapping, 36x36x1: 60,000 and 10,000"),
    "affnist": DatasetEntry(
        "MNIST digits, 40x40x1: shifted in train, turned, sheared, scaled and shifted in test",
        load_from("capsnet_jax.data.affnist"),
        dimensions=((40, 40, 1), 10),
        frame=MNIST,
        base="mnist",
        settings={"data.max_shift": 6},
    ),
    **{
        f"babi_{task}": DatasetEntry(
            f"questions about stories, {facts} to find: sentences of word numbers, 51x7x1; 1,000 train, 1,000 test",
            load_from("capsnet_jax.data.babi", task=task),
            dimensions=((51, 7, 1), 6),
            settings={"data.max_shift": 0},
            stories=True,
        )
        for task, facts in ((1, "one fact"), (2, "two facts"), (3, "three facts"))
    },
    "folder": DatasetEntry(
        "your pictures, as folder:PATH: a sub-folder for each class, in train/ and test/ or not",
        load_from("capsnet_jax.data.folder"),
        has_path=True,
    ),
    "npz": DatasetEntry(
        "your arrays, as npz:PATH: images and labels, test_images and test_labels",
        load_from("capsnet_jax.data.npz"),
        has_path=True,
    ),
}
