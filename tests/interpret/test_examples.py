import dataclasses

import numpy as np

from capsnet_jax.data import Dataset, Examples
from capsnet_jax.interpret.examples import of_each_class, to_bytes


def dataset(labels):
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)
    examples = Examples(images, labels)
    return Dataset("dots", ("a", "b", "c"), examples, examples, examples)


def test_the_first_of_every_class_comes_first():
    images, labels, present, split = of_each_class(dataset(np.array([2, 0, 1, 1, 0, 2, 0], np.int32)), 2)
    assert images.ravel().tolist() == [1, 2, 0, 4, 3, 5]
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert present.tolist() == [*np.eye(3).tolist()] * 2
    assert split == "validation"


def test_an_image_of_several_classes_stands_for_each():
    rows = np.array([[1, 0, 1], [0, 1, 0], [0, 1, 1]], np.uint8)
    images, labels, present, _ = of_each_class(dataset(rows), 1)
    assert images.ravel().tolist() == [0, 1, 0]
    assert labels.tolist() == [0, 1, 2]
    assert present.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_some_of_the_classes():
    images, labels, *_ = of_each_class(dataset(np.array([0, 2, 1], np.int32)), 1, classes=2)
    assert (images.ravel().tolist(), labels.tolist()) == ([0, 2], [0, 1])


def test_a_class_without_images_is_left_out_and_one_with_few_has_those():
    images, labels, *_ = of_each_class(dataset(np.array([2, 0, 2, 2], np.int32)), 2, classes=2)
    assert (images.ravel().tolist(), labels.tolist()) == ([1, 0, 2], [0, 2, 2])


def test_without_validation_images_those_of_training_are_shown():
    some = dataset(np.array([2, 0, 1], np.int32))
    nothing = Examples(some.train.images[:0], some.train.labels[:0])
    images, labels, _, split = of_each_class(dataclasses.replace(some, validation=nothing), 1)
    assert (images.ravel().tolist(), labels.tolist(), split) == ([1, 2, 0], [0, 1, 2], "training")


def test_pixels_are_rounded():
    np.testing.assert_array_equal(to_bytes(np.array([0, 0.501, 1], np.float32)), np.array([0, 128, 255], np.uint8))
