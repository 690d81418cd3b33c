import dataclasses

import jax
import numpy as np
import pytest

from capsnet_jax.data import DataError, Examples, RawDataset, load

IMAGES = np.zeros((4, 5, 6, 1), np.uint8)
NUMBERS = np.array([0, 1, 2, 1], np.int32)
MULTI_HOT = np.array([[0, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]], np.uint8)


def raw_dataset(images=IMAGES, labels=NUMBERS, test=None, validation=None):
    examples = Examples(images, labels)
    return RawDataset(("a", "b", "c"), train=examples, test=test or examples, validation=validation)


def test_examples_are_a_pytree_and_a_dataset_cannot_be_changed():
    data = load("mnist_5k", train_size=10)
    on_device = jax.device_put(data.train)
    assert isinstance(on_device, Examples)
    assert on_device.images.shape == (10, *data.image_shape)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_an_error_is_always_one_line():
    assert str(DataError("first\n  second")) == "first second"


@pytest.mark.parametrize("labels", [NUMBERS, MULTI_HOT])
def test_labels_of_both_kinds_pass_the_check(labels):
    raw_dataset(labels=labels).check("set")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (raw_dataset(images=IMAGES.astype(np.float32)), r"images are float32\[4, 5, 6, 1\].*uint8\[n, height"),
        (raw_dataset(images=IMAGES[..., 0]), r"images are uint8\[4, 5, 6\]"),
        (raw_dataset(images=IMAGES[:0], labels=NUMBERS[:0]), "train split is empty"),
        (raw_dataset(labels=NUMBERS.astype(np.int64)), r"labels are int64\[4\].*int32\[4\] or uint8\[4, 3\]"),
        (raw_dataset(labels=NUMBERS[:3]), r"labels are int32\[3\]"),
        (raw_dataset(labels=MULTI_HOT[:, :2]), r"labels are uint8\[4, 2\]"),
        (
            raw_dataset(labels=NUMBERS + 1),
            "train split: 1 of its labels are not in 0…2, the first is 3 at image 2; leave",
        ),
        (
            raw_dataset(test=Examples(IMAGES, NUMBERS - 1)),
            "test split: 1 of its .* the first is -1 at image 0; leave out",
        ),
        (raw_dataset(validation=Examples(IMAGES, NUMBERS * 2)), "validation split: 1 of .* first is 4 at image 2"),
        (
            raw_dataset(labels=MULTI_HOT * 2),
            "6 of its multi-hot labels are not 0 or 1, the first is 2 at image 0, class 1",
        ),
        (raw_dataset(images=IMAGES.tolist()), "images are a list, no array"),
        (raw_dataset(images=IMAGES[:, :0]), r"images are uint8\[4, 0, 6, 1\]"),
        (raw_dataset(labels=NUMBERS.astype(object)), r"labels are object\[4\]"),
        (raw_dataset(test=Examples(IMAGES[:0], NUMBERS[:0])), "test split is empty"),
        (
            raw_dataset()._replace(label_names=["a", "b", "c"]),
            r"label_names are \['a', 'b', 'c'\]; .* a tuple of a str",
        ),
        (raw_dataset()._replace(label_names=(1, 2, 3)), "label_names are"),
        (raw_dataset(test=Examples(IMAGES[:, 1:], NUMBERS)), r"test split: images are \(4, 6, 1\), but \(5, 6, 1\)"),
        (raw_dataset(test=Examples(IMAGES, MULTI_HOT)), "multi-hot in one split only"),
    ],
)
def test_arrays_of_another_kind_are_refused_in_one_line(wrong, says):
    with pytest.raises(DataError, match=says) as error:
        wrong.check("guest")
    assert str(error.value).startswith("guest")
