"""A prepared tfds set's records → arrays, without TensorFlow."""

import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.proto import tf_example_pb2

from capsnet_jax.data.arrays import DataError, Examples, RawDataset, note
from capsnet_jax.data.split import TEST_FRACTION, train_and_test

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
    if not labels:
        kinds = ", ".join(f"{key}: {type(value).__name__}" for key, value in features.items())
        raise DataError(f"{builder.name} has no class label among its features ({kinds}); choose another set")
    if label_key is None and len(labels) == 1:
        return image_key, labels[0]
    if label_key is None or label_key not in labels:
        problem = "has several labels" if label_key is None else f"has no label {label_key!r}"
        raise DataError(f"{builder.name} {problem}; choose label_key from {_listed(labels)}")
    return image_key, label_key


def choose_splits(builder: Builder) -> dict[str, str]:
    """Choose the splits of a prepared set that are train, validation and test; print a note if it has no test split.

    Returns:
        Our name of a split → tfds's. Without `validation`, it is to be taken from train; without `test`, too.

    Raises:
        DataError: the set has no train split.
    """
    splits, name = builder.info.splits, builder.info.full_name
    if "train" not in splits:
        raise DataError(f"{builder.name} has no train split, only these: {_listed(splits)}; choose another set")
    if "test" in splits:
        return {split: split for split in ("train", "validation", "test") if split in splits}
    if "validation" in splits:
        note(f"{name} has no test split: its validation split is test, and validation is taken from train")
        return {"train": "train", "test": "validation"}
    note(f"{name} has no test split: {TEST_FRACTION:.0%} of each class of train are test")
    return {"train": "train"}


def decode(builder: Builder, image_key: str, label_key: str, splits: dict[str, str]) -> RawDataset:
    """Read and decode a set, in the order of the files.

    Args:
        builder: the prepared set.
        image_key: the image's feature.
        label_key: the label's feature.
        splits: of `choose_splits`.

    Raises:
        DataError: images differ in size, or the files are damaged, or of a format without random access.
        OSError: a file is missing, or may not be read.
    """
    parts = {ours: decode_split(builder, theirs, image_key, label_key) for ours, theirs in splits.items()}
    label_names = tuple(builder.info.features[label_key].names)
    if "test" not in parts:
        RawDataset(label_names, train=parts["train"], test=parts["train"]).check(builder.name)
        parts["train"], parts["test"] = train_and_test(parts["train"], name=builder.name)
    return RawDataset(label_names, parts["train"], parts["test"], parts.get("validation"))


def decode_split(builder: Builder, split: str, image_key: str, label_key: str, *, limit: int = sys.maxsize) -> Examples:
    """Decode the first `limit` examples of one of tfds's splits.

    Raises:
        DataError, OSError: as for `decode`.
    """
    where, remedy = f"{builder.name}'s {split} split", f"delete {builder.data_dir} and load again"
    try:
        files = builder.info.splits[split].filepaths
        if not files:
            raise DataError(f"{where} is empty; {remedy}")
        where += f" ({files[0]}{', …' if len(files) > 1 else ''})"
        for file in files:
            Path(file).open("rb").close()  # array_record's own errors do not say what is wrong with a file
        return _decode_records(builder, split, image_key, label_key, limit)
    except (DataError, OSError):
        raise
    except NotImplementedError as error:
        raise DataError(f"{where} is not prepared as array_record; choose another data_dir, or {remedy}") from error
    except MemoryError as error:
        raise DataError(f"{where} does not fit into memory ({error}); choose a smaller set") from error
    except Exception as error:  # array_record, protobuf and Pillow raise different errors for damaged files
        raise DataError(f"{where} cannot be read ({error}); {remedy}") from error


def _decode_records(builder: Builder, split: str, image_key: str, label_key: str, limit: int) -> Examples:
    """Decode in one thread: two took twice as long for small images, because of Python's lock."""
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    shape = builder.info.features[image_key].shape
    mode = _MODES[shape[-1]]
    count = min(len(records), limit)
    labels = np.empty(count, dtype=np.int32)
    images: np.ndarray | None = None
    title = f"Decoding {builder.name} {split}"
    with tqdm_utils.tqdm(total=count, desc=title, unit=" images", leave=False, mininterval=1) as progress:
        for start in range(0, count, _RECORDS_PER_READ):
            indices = range(start, min(start + _RECORDS_PER_READ, count))
            for index, record in zip(indices, records.__getitems__(indices), strict=True):
                feature = tf_example_pb2.Example.FromString(record).features.feature
                label, encoded = feature[label_key].int64_list.value, feature[image_key].bytes_list.value
                if (len(label), len(encoded)) != (1, 1):
                    raise ValueError(f"record {index} holds {len(encoded)} images and {len(label)} labels, not 1 and 1")
                labels[index] = label[0]
                image = _decode_image(encoded[0], mode)
                if images is None:
                    images = np.empty((count, *image.shape), dtype=np.uint8)
                    shape = tuple(said or found for said, found in zip(shape, image.shape, strict=True))
                if image.shape != shape:
                    raise DataError(
                        f"{builder.name}: images differ in size, {shape} and {image.shape}; "
                        "choose a set of images of one size"
                    )
                images[index] = image
            progress.update(len(indices))
    if images is None:
        raise ValueError("it is empty")
    return Examples(images, labels)  # type: ignore[arg-type]  # NumPy, until it is put on the device


def _decode_image(encoded: bytes, mode: str) -> np.ndarray:
    """Decode a PNG or JPEG to uint8[height, width, channels]."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(keys) or "none"
