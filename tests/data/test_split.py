import numpy as np
import pytest

from capsnet_jax.data import DataError, Examples
from capsnet_jax.data.split import balanced_counts, check_bounds, class_ranks, divide, variant

SIZES = (50, 31, 7, 0, 12)


def unbalanced():
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(5), SIZES)).astype(np.int32)
    return Examples(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), labels)


def ids(examples):
    return examples.images[:, 0, 0, 0].tolist()


def test_ranks_of_each_class_are_a_permutation_and_never_change():
    labels = unbalanced().labels
    ranks = class_ranks(labels)
    for label, size in enumerate(SIZES):
        assert sorted(ranks[labels == label]) == list(range(size))
    np.testing.assert_array_equal(ranks, class_ranks(labels.copy()))
    assert class_ranks(np.zeros(8, np.int32)).tolist() == [4, 3, 0, 1, 2, 7, 6, 5]  # golden: on every machine


@pytest.mark.parametrize("total", range(0, 101, 7))
def test_balanced_counts_are_as_even_as_the_classes_allow(total):
    available = np.array(SIZES)
    counts = balanced_counts(available, total)
    assert counts.sum() == total
    assert np.all(counts <= available)
    open_classes = counts[counts < available]
    if open_classes.size:
        assert open_classes.max() - open_classes.min() <= 1
        assert counts.max() <= open_classes.min() + 1


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5])
def test_validation_is_its_share_of_each_class_and_disjoint(fraction):
    examples = unbalanced()
    train, validation = divide(examples, validation_fraction=fraction, train_size=0, name="set")
    expected = [int(fraction * size + 0.5) for size in SIZES]
    assert np.bincount(validation.labels, minlength=5).tolist() == expected
    assert sorted(ids(train) + ids(validation)) == list(range(100))
    for part in (train, validation):
        np.testing.assert_array_equal(part.labels, examples.labels[ids(part)])


def test_a_subset_is_balanced_nested_and_leaves_validation_alone():
    _, whole_validation = divide(unbalanced(), validation_fraction=0.2, train_size=0, name="set")
    smaller: set[int] = set()
    for size in (4, 10, 25, 80):
        train, validation = divide(unbalanced(), validation_fraction=0.2, train_size=size, name="set")
        assert len(train.labels) == size
        assert smaller <= set(ids(train))
        assert not set(ids(train)) & set(ids(validation))
        assert ids(validation) == ids(whole_validation)
        smaller = set(ids(train))
        if size == 10:
            assert np.bincount(train.labels, minlength=5).tolist() == [3, 3, 2, 0, 2]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_out_of_bounds_is_refused(fraction):
    with pytest.raises(DataError, match="validation_fraction"):
        check_bounds(fraction, 0)


def test_a_negative_size_is_refused():
    with pytest.raises(DataError, match="train_size"):
        check_bounds(0.1, -1)


def test_more_than_there_is_is_refused():
    with pytest.raises(DataError, match="train_size=101 is more than the 100"):
        divide(unbalanced(), validation_fraction=0.0, train_size=101, name="set")
    with pytest.raises(DataError, match="without training examples"):
        divide(unbalanced(), validation_fraction=0.99, train_size=0, name="set")


def test_variants_move_or_invert_every_pixel():
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)
    examples = Examples(images, np.arange(3, dtype=np.int32))
    turned, inverted = variant(examples, "rotated"), variant(examples, "inverted")
    for n, row, column, channel in np.ndindex(images.shape):
        assert turned.images[n, 3 - column, row, channel] == images[n, row, column, channel]
        assert inverted.images[n, row, column, channel] == 255 - int(images[n, row, column, channel])
    np.testing.assert_array_equal(variant(examples, "none").images, images)
    for changed in (turned, inverted):
        np.testing.assert_array_equal(changed.labels, examples.labels)
    with pytest.raises(DataError, match=r"^variant must be one of none, inverted, rotated, not 'turned'$"):
        variant(examples, "turned")
