"""affNIST: learn from digits that are only shifted, and tell apart digits under any affine change (Tieleman 2013).

Train is MNIST in images of 40x40, shifted by `data.max_shift` (up to 6 pixels, which is everywhere), as in section 6 of
Sabour et al. 2017. Test is the published file if it is there, else MNIST's test digits under the published changes.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from jaxtyping import UInt8
from scipy import ndimage

from capsnet_jax.data import cache
from capsnet_jax.data.arrays import DataError, Examples, RawDataset
from capsnet_jax.data.pairs import pad

MADE_BY = ("affnist.py", "pairs.py")  # the code that makes the arrays
SIDE, PAD = 40, 6
ROTATION, SHEAR, SCALE = 20.0, 0.2, (0.8, 1.2)  # ± degrees, ± pixels for each pixel, both directions' factors
FILE = Path("affnist") / "test.mat"  # in the folder of tfds's sets; affNIST's transformed/test.mat
_SEED = 20131026  # any fixed number would do


def load(
    base: RawDataset,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> RawDataset:
    """Return MNIST with a border of 6 pixels, and affNIST's test digits.

    Args:
        base: MNIST.
        data_dir: holds `affnist/test.mat`, or does not; as of `data.load`.
        cache_dir: as of `data.load`.

    Raises:
        DataError: the file is there, but is another.
    """
    file = cache.prepared_dir(data_dir) / FILE

    def build() -> RawDataset:
        if file.exists():
            test, said = _read(file), f"affnist: test is {file}"
        else:
            test = distorted(base.test)
            said = f"affnist: there is no {file}: test is made of MNIST's test digits by its rules, at a fixed seed"
        return pad(base, PAD)._replace(test=test, notes=(said,))

    digits = hashlib.sha256(np.asarray(base.train.images).tobytes() + np.asarray(base.test.images).tobytes())
    identity = {"file": fingerprint(data_dir), "path": str(file), "digits": digits.hexdigest(), "seed": str(_SEED)}
    return cache.cached_in(cache_dir, "affnist.npz", identity, build, MADE_BY)


def fingerprint(data_dir: str | os.PathLike[str] | None = None) -> str:
    """Return a digest of the published file, or "made" where it is not there."""
    file = cache.prepared_dir(data_dir) / FILE
    return cache.fingerprint([file], file.parent) if file.exists() else "made"


def distorted(examples: Examples) -> Examples:
    """Return digits under random affine changes, the same on every machine.

    Each is scaled in both directions, sheared, turned about its centre, and moved by whole pixels to anywhere in 40x40
    where all of its ink is inside. Pixels are interpolated bilinearly.
    """
    # Unlike Generator's, the stream of RandomState is frozen across NumPy versions (NEP 19).
    random = np.random.RandomState(_SEED)
    images = [_distort(image[:, :, 0], random) for image in np.asarray(examples.images)]
    return examples._replace(images=np.stack(images)[..., None])  # type: ignore[arg-type]  # NumPy for now


def _distort(image: UInt8[np.ndarray, "height width"], random: np.random.RandomState) -> UInt8[np.ndarray, "40 40"]:
    angle = np.deg2rad(random.uniform(-ROTATION, ROTATION))
    shear, scale = random.uniform(-SHEAR, SHEAR), random.uniform(*SCALE, size=2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # of (y, x)
    inverse = np.linalg.inv(turn @ np.array([[1, 0], [shear, 1]]) @ np.diag(scale))
    # On a canvas where nothing is cut off: the position of each pixel before the change.
    middle, before = np.full(2, SIDE - 0.5), (np.array(image.shape) - 1) / 2
    canvas = ndimage.affine_transform(
        image.astype(np.float64), inverse, before - inverse @ middle, output_shape=(2 * SIDE, 2 * SIDE), order=1
    )
    canvas = np.round(canvas).astype(np.uint8)
    corner = []
    for axis in (1, 0):
        ink = np.flatnonzero(canvas.any(axis=axis))
        first, last = (ink[0], ink[-1]) if len(ink) else (SIDE, SIDE)
        # The window begins where it holds first and last; a digit that is larger is cut on both sides.
        low, high = sorted((last - SIDE + 1, first))
        corner.append(random.randint(low, high + 1) if last - first < SIDE else (low + high) // 2)
    return canvas[corner[0] : corner[0] + SIDE, corner[1] : corner[1] + SIDE]


def _read(file: Path) -> Examples:
    """Read the published file: a struct of MATLAB with an image a column, and its digit."""
    try:
        content: Any = scipy.io.loadmat(file)["affNISTdata"][0, 0]
        labels = content["label_int"].reshape(-1).astype(np.int32)
        images = np.asarray(content["image"], np.uint8).T.reshape(len(labels), SIDE, SIDE)
    except Exception as error:  # a damaged or another file can raise anything
        reason = " ".join(str(error).split())
        raise DataError(
            f"{file} cannot be read as affNIST's transformed test.mat ({reason}); replace it, or delete it"
        ) from error
    return Examples(_upright(images)[..., None], labels)  # type: ignore[arg-type]  # NumPy for now


def _upright(images: UInt8[np.ndarray, "n 40 40"]) -> UInt8[np.ndarray, "n 40 40"]:
    """Return the images with rows and columns exchanged if they are wider than high on average, which digits are not.

    The file does not say whether a column holds an image row by row or column by column.
    """
    rows, columns = (np.count_nonzero(images.any(axis=axis)) for axis in (2, 1))
    return images if rows >= columns else np.ascontiguousarray(images.transpose(0, 2, 1))
