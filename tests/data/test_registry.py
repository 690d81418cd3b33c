import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from capsnet_jax.data import DATASETS, DataError, DatasetEntry, Examples, RawDataset, describe, dimensions, load


def test_importing_the_table_is_cheap():
    script = (
        "import sys; from capsnet_jax.data import DATASETS; assert DATASETS\n"
        "heavy = {'jax', 'tensorflow_datasets', 'mlxtend', 'numpy', 'PIL', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("name", DATASETS)
def test_every_set_is_described_in_one_line(name):
    assert DATASETS[name].description
    assert "\n" not in DATASETS[name].description


@pytest.mark.parametrize("name", [n for n, e in DATASETS.items() if e.load and e.dimensions and not e.base])
def test_declared_dimensions_are_those_of_what_is_loaded(name):
    data = load(name)
    assert dimensions(name) == (data.image_shape, data.classes)
    assert describe(name) == (data.image_shape, data.label_names)


def guest():
    """Load 30 images in train and 9 in test, of three classes in turn. Each image holds its index."""

    def examples(count):
        images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 5, 4, 1)).copy()
        return Examples(images, np.arange(count, dtype=np.int32) % 3)

    return RawDataset(("a", "b", "c"), train=examples(30), test=examples(9))


def multi_hot_guest():
    """Load the same images. Each shows its class and the next one."""

    def examples(images, labels):
        return Examples(images, np.eye(3, dtype=np.uint8)[labels] | np.eye(3, dtype=np.uint8)[(labels + 1) % 3])

    raw = guest()
    return raw._replace(train=examples(*raw.train), test=examples(*raw.test))


def test_a_guest_is_one_function_and_one_line(monkeypatch):
    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("three classes, 5x4x1", guest))
    data = load("guest", validation_fraction=0.2, train_size=12, transform="inverted")
    assert (data.name, data.label_names, data.classes, data.image_shape) == ("guest", ("a", "b", "c"), 3, (5, 4, 1))
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    assert np.bincount(data.train.labels).tolist() == [4, 4, 4]
    np.testing.assert_array_equal(data.test.images, 255 - guest().test.images)
    indices = [255 - images[:, 0, 0, 0] for images in (data.train.images, data.validation.images)]
    assert not set(indices[0]) & set(indices[1])
    for index, labels in zip(indices, (data.train.labels, data.validation.labels), strict=True):
        np.testing.assert_array_equal(index % 3, labels)
    assert load("guest", transform="rotated").image_shape == (4, 5, 1)
    assert dimensions("guest") == ((5, 4, 1), 3)
    assert describe("guest") == ((5, 4, 1), ("a", "b", "c"))
    assert describe("guest", transform="rotated").image_shape == (4, 5, 1)


def test_declared_dimensions_need_no_load(monkeypatch):
    def fail():
        raise AssertionError("the set was loaded")

    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("large", fail, dimensions=((5, 4, 1), 3)))
    assert dimensions("guest") == ((5, 4, 1), 3)


def test_a_guest_may_have_several_classes_per_image(monkeypatch):
    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("two classes per image", multi_hot_guest))
    data = load("guest", validation_fraction=0.2, train_size=12, transform="inverted")
    for split, count in ((data.train, 4), (data.validation, 2), (data.test, 3)):
        assert split.labels.dtype == np.uint8
        rows = split.labels.tolist()
        assert sorted(rows) == sorted([[0, 1, 1], [1, 0, 1], [1, 1, 0]] * count)
        for image, row in zip(split.images, rows, strict=True):
            index = 255 - int(image[0, 0, 0])
            assert {c for c in range(3) if row[c]} == {index % 3, (index + 1) % 3}


def test_a_guest_whose_arrays_are_of_another_kind_is_refused(monkeypatch):
    def as_floats():
        raw = guest()
        return raw._replace(test=raw.test._replace(images=raw.test.images / 255))

    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("floats", as_floats))
    for function in (load, describe, dimensions):
        with pytest.raises(DataError, match=r"^guest's test split: images are float64"):
            function("guest")


def test_a_loader_that_returns_something_else_is_refused(monkeypatch):
    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("a list", lambda: [1, 2, 3]))
    with pytest.raises(DataError, match=r"^guest: its loader returned a list; it must return a RawDataset"):
        load("guest")


def test_a_guest_may_bring_its_validation_split(monkeypatch):
    monkeypatch.setitem(
        DATASETS, "guest", DatasetEntry("split in three", lambda: guest()._replace(validation=guest().test))
    )
    data = load("guest", validation_fraction=0.5, transform="inverted")
    assert len(data.train.labels) == 30
    np.testing.assert_array_equal(data.validation.images, 255 - guest().test.images)


def test_a_set_with_a_loader_has_no_label_key_config_or_version(monkeypatch):
    monkeypatch.setitem(DATASETS, "guest", DatasetEntry("three classes", guest))
    for function in (load, describe, dimensions):
        for wrong in ("guest/small", "guest:1.0.0"):
            with pytest.raises(DataError, match=r"guest has no configs and no versions"):
                function(wrong)
        with pytest.raises(DataError, match="leave out label_key='colour'"):
            function("guest", label_key="colour")


def test_wrong_arguments_are_refused_before_anything_is_read():
    for wrong in ({"validation_fraction": 1.0}, {"train_size": -5}, {"transform": "turned"}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            load("no_such_set", **wrong)
