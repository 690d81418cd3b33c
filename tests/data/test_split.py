from collections import Counter

import numpy as np
import pytest

from capsnet_jax.data import DataError, Examples, RawDataset
from capsnet_jax.data.split import (
    balanced_counts,
    check_bounds,
    class_groups,
    class_ranks,
    split_raw,
    train_and_test,
    train_and_validation,
)

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
    train, validation = train_and_validation(examples, validation_fraction=fraction, train_size=0, name="set")
    expected = [int(fraction * size + 0.5) for size in SIZES]
    assert np.bincount(validation.labels, minlength=5).tolist() == expected
    assert sorted(ids(train) + ids(validation)) == list(range(100))
    for part in (train, validation):
        np.testing.assert_array_equal(part.labels, examples.labels[ids(part)])


def test_a_subset_is_balanced_nested_and_leaves_validation_alone():
    _, full_validation = train_and_validation(unbalanced(), validation_fraction=0.2, train_size=0, name="set")
    smaller: set[int] = set()
    for size in (4, 10, 25, 80):
        train, validation = train_and_validation(unbalanced(), validation_fraction=0.2, train_size=size, name="set")
        assert len(train.labels) == size
        assert smaller <= set(ids(train))
        assert not set(ids(train)) & set(ids(validation))
        assert ids(validation) == ids(full_validation)
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
        train_and_validation(unbalanced(), validation_fraction=0.0, train_size=101, name="set")
    with pytest.raises(DataError, match="without training examples"):
        train_and_validation(unbalanced(), validation_fraction=0.99, train_size=0, name="set")


def test_test_is_a_fifth_of_each_class_where_there_is_none():
    train, test = train_and_test(unbalanced(), name="set")
    assert np.bincount(test.labels, minlength=5).tolist() == [10, 6, 1, 0, 2]
    assert sorted(ids(train) + ids(test)) == list(range(100))
    for part in (train, test):
        np.testing.assert_array_equal(part.labels, unbalanced().labels[ids(part)])
    few = Examples(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 1, 1, 2], np.int32))
    assert train_and_test(few, name="set")[1].labels.tolist() == [1]  # the others would be without training images
    with pytest.raises(DataError, match="set has no test split, and no class with two images"):
        train_and_test(Examples(few.images[:2], few.labels[:2]), name="set")


def raw_dataset(**more):
    return RawDataset(tuple("abcde"), train=unbalanced(), test=unbalanced(), **more)


def test_a_validation_split_of_its_own_is_validation_and_train_stays_whole():
    own = Examples(np.full((3, 1, 1, 1), 200, np.uint8), np.array([0, 1, 2], np.int32))
    for fraction in (0.01, 0.5):
        train, validation, _ = split_raw(
            raw_dataset(validation=own), validation_fraction=fraction, train_size=0, name="set"
        )
        assert ids(train) == list(range(100))
        assert ids(validation) == [200, 200, 200]
    train, validation, _ = split_raw(raw_dataset(validation=own), validation_fraction=0.0, train_size=20, name="set")
    assert (len(train.labels), len(validation.labels)) == (20, 0)


def test_classes_without_images_are_said_once(capsys):
    arguments = {"validation_fraction": 0.05, "train_size": 0, "name": "notes"}
    for _ in range(2):
        split_raw(raw_dataset(), **arguments)
    assert capsys.readouterr().err.splitlines() == [
        "note: notes: train has no image of 1 of 5 classes (d)",
        "note: notes: validation has no image of 2 of 5 classes (c, d)",  # 5% of 7 rounds to none
        "note: notes: test has no image of 1 of 5 classes (d)",
    ]
    only_first = Examples(*(x[unbalanced().labels == 0] for x in unbalanced()))
    one_hot = only_first._replace(labels=np.eye(5, dtype=np.uint8)[only_first.labels])
    raw = RawDataset(tuple("abcde"), train=one_hot, test=one_hot)
    split_raw(raw, **arguments | {"validation_fraction": 0.0, "name": "hot"})
    assert capsys.readouterr().err.splitlines() == [
        f"note: hot: {split} has no image of 4 of 5 classes (b, c, d, …)" for split in ("train", "test")
    ]


def several_classes(count=200, classes=4):
    """Return examples with none to all of the classes, some sets of classes much more frequent than others."""
    random = np.random.default_rng(7)
    labels = (random.random((count, classes)) < [0.5, 0.2, 0.6, 0.3]).astype(np.uint8)
    return Examples(np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1), labels)


def sizes_by_set(labels):
    return Counter(map(tuple, labels.tolist()))


@pytest.mark.parametrize(("fraction", "size"), [(0.0, 0), (0.1, 0), (0.25, 33), (0.5, 7)])
def test_one_hot_labels_are_split_as_class_numbers_are(fraction, size):
    numbers = unbalanced()
    one_hot = numbers._replace(labels=np.eye(5, dtype=np.uint8)[numbers.labels])
    arguments = {"validation_fraction": fraction, "train_size": size, "name": "set"}
    parts = train_and_validation(numbers, **arguments), train_and_validation(one_hot, **arguments)
    for expected, split in zip(*parts, strict=True):
        assert ids(split) == ids(expected)
        np.testing.assert_array_equal(split.labels.argmax(axis=1), expected.labels)


def test_groups_of_multi_hot_labels_are_their_sets_of_classes():
    labels = several_classes().labels
    groups = class_groups(labels)
    assert sorted(set(groups)) == list(range(len(sizes_by_set(labels))))
    for i in range(0, 200, 7):
        for j in range(200):
            assert (groups[i] == groups[j]) == (labels[i].tolist() == labels[j].tolist())


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4])
def test_validation_is_its_share_of_each_set_of_classes_and_disjoint(fraction):
    examples = several_classes()
    train, validation = train_and_validation(examples, validation_fraction=fraction, train_size=0, name="set")
    shares = {key: int(fraction * size + 0.5) for key, size in sizes_by_set(examples.labels).items()}
    assert sizes_by_set(validation.labels) == {key: size for key, size in shares.items() if size}
    assert sorted(ids(train) + ids(validation)) == list(range(200))
    for part in (train, validation):
        assert part.labels.dtype == np.uint8
        np.testing.assert_array_equal(part.labels, examples.labels[ids(part)])


def test_a_subset_is_balanced_by_sets_of_classes_and_nested():
    available = sizes_by_set(several_classes().labels)
    smaller: set[int] = set()
    for size in (len(available), 3 * len(available), 150):
        train, _ = train_and_validation(several_classes(), validation_fraction=0.0, train_size=size, name="set")
        assert len(train.labels) == size
        assert smaller <= set(ids(train))
        smaller = set(ids(train))
        counts = sizes_by_set(train.labels)
        unfilled = [counts[key] for key in available if counts[key] < available[key]]
        assert max(counts.values()) <= min(unfilled) + 1


def test_a_rare_set_of_classes_may_not_vanish_from_train():
    with pytest.raises(DataError, match="leaves a set of classes without training examples"):
        train_and_validation(several_classes(), validation_fraction=0.8, train_size=0, name="set")
