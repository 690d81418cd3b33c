"""A prepared tfds set's records → arrays, without TensorFlow."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.proto import tf_example_pb2

from capsnet_jax.data.arrays import DataError, Examples, RawDataset

Builder = Any  # tfds.core.DatasetBuilder, which a type checker cannot see into

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # number of channels → Pillow's name for images of that many uint8 channels
_RECORDS_PER_READ = 1000


def choose_keys(builder: Builder, label_key: str | None) -> tuple[str, str]:
    """Choose the features that are the image and the label.

    Args:
        builder: the set, prepared or not.
        label_key: the label's, or None for the only `ClassLabel`.

    Returns:
        The image's key, which is `image` where there are several, and the label's.

    Raises:
        DataError: there is no such image or label, or no way to choose, or the images are not uint8.
    """
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise DataError(f"{builder.name} is not a set of images with labels; choose an image-classification set")
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    image_key = "image" if "image" in images else images[0] if len(images) == 1 else None
    if image_key is None:
        raise DataError(f"{builder.name} has {_listed(images)} for images where one is needed; choose another set")
    feature = features[image_key]
    if feature.np_dtype != np.uint8 or feature.shape[-1] not in _MODES:
        raise DataError(
            f"{builder.name}: images of {feature.np_dtype} with {feature.shape[-1]} channels cannot be used; "
            "choose a set of uint8 images with 1, 3 or 4"
        )
    if label_key is None and len(labels) == 1:
        return image_key, labels[0]
    if label_key is None or label_key not in labels:
        problem = "needs a label_key" if label_key is None else f"has no label {label_key!r}"
        raise DataError(f"{builder.name} {problem}; choose label_key from {_listed(labels)}")
    return image_key, label_key


def check_splits(builder: Builder) -> None:
    """Check that a prepared set has the two splits that are needed.

    Raises:
        DataError: it has no train or no test split.
    """
    for split in ("train", "test"):
        if split not in builder.info.splits:
            raise DataError(
                f"{builder.name} has no {split} split, only {_listed(builder.info.splits)}; choose another set"
            )


def decode(builder: Builder, image_key: str, label_key: str) -> RawDataset:
    """Read and decode train and test, in the order of the files.

    Raises:
        DataError: images differ in size, or the files are damaged or of a format without random access.
    """
    try:
        train, test = (_decode_split(builder, split, image_key, label_key) for split in ("train", "test"))
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(
            f"{builder.name} in {builder.data_dir} is not prepared as array_record; "
            "choose another data_dir, or delete that folder and load again"
        ) from error
    except Exception as error:  # array_record, protobuf and Pillow raise different errors for damaged files
        raise DataError(
            f"{builder.name} in {builder.data_dir} cannot be read ({error}); delete that folder and load again"
        ) from error
    return RawDataset(tuple(builder.info.features[label_key].names), train=train, test=test)


def _decode_split(builder: Builder, split: str, image_key: str, label_key: str) -> Examples:
    """Decode one split, in one thread: two took twice as long for small images, because of Python's lock."""
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    mode = _MODES[builder.info.features[image_key].shape[-1]]
    labels = np.empty(len(records), dtype=np.int32)
    images: np.ndarray | None = None
    title = f"Decoding {builder.name} {split}"
    with tqdm_utils.tqdm(total=len(records), desc=title, unit=" images", leave=False, mininterval=1) as progress:
        for start in range(0, len(records), _RECORDS_PER_READ):
            indices = range(start, min(start + _RECORDS_PER_READ, len(records)))
            for index, record in zip(indices, records.__getitems__(indices), strict=True):
                feature = tf_example_pb2.Example.FromString(record).features.feature
                labels[index] = feature[label_key].int64_list.value[0]
                image = _decode_image(feature[image_key].bytes_list.value[0], mode)
                if images is None:
                    images = np.empty((len(records), *image.shape), dtype=np.uint8)
                if image.shape != images.shape[1:]:
                    raise DataError(
                        f"{builder.name}: images differ in size, {images.shape[1:]} and {image.shape}; "
                        "choose a set of images of one size"
                    )
                images[index] = image
            progress.update(len(indices))
    if images is None:
        raise DataError(f"{builder.name}: the {split} split is empty; delete {builder.data_dir} and load again")
    return Examples(images, labels)  # type: ignore[arg-type]  # NumPy, until it is put on the device


def _decode_image(encoded: bytes, mode: str) -> np.ndarray:
    """Decode a PNG or JPEG to uint8[height, width, channels]."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(keys) or "none"
