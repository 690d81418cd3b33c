import re

import numpy as np
import pytest

from capsnet_jax.data import DataError, fingerprint, load

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 5, 4), np.uint8)
LABELS = np.array([7, 9] * 5)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return f"npz:{tmp_path}/mine.npz"


def test_images_and_labels_are_a_set(tmp_path, capsys):
    data = load(saved(tmp_path, images=IMAGES, labels=LABELS, other=[1, 2]), validation_fraction=0.0)
    assert data.label_names == ("7", "9")
    assert [len(split.labels) for split in (data.train, data.test)] == [8, 2]
    assert "has no test split: 20% of each class are test" in capsys.readouterr().err
    pairs = {image.tobytes(): label for split in (data.train, data.test) for image, label in zip(*split, strict=True)}
    assert pairs == {image.tobytes(): int(label == 9) for image, label in zip(IMAGES, LABELS, strict=True)}


@pytest.mark.parametrize(
    "names", [("x_train", "y_train", "x_test", "y_test"), ("images", "labels", "test_images", "test_labels")]
)
@pytest.mark.parametrize("labels", [LABELS[:, None].astype(np.uint8), np.where(LABELS == 7, "a cat", "dog")])
def test_keras_names_floats_colours_and_texts(names, labels, tmp_path):
    colour = np.stack([IMAGES] * 3, axis=-1)
    arrays = (colour / np.float32(255), labels, colour[:4], labels[:4])
    data = load(saved(tmp_path, **dict(zip(names, arrays, strict=True))), validation_fraction=0.2)
    assert data.image_shape == (5, 4, 3)
    assert data.label_names == (("a cat", "dog") if labels.ndim == 1 else ("7", "9"))
    np.testing.assert_array_equal(data.test.images, colour[:4])
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    assert len(data.validation.labels) == 2


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"labels": LABELS}, r"holds labels; it needs images and labels, or x_train and y_train"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "labels has 9 labels for 10 images; give one for each"),
        ({"images": IMAGES, "labels": np.eye(10)}, r"labels is float64\[10, 10\]; give one whole number or text"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"labels is float64\[10\]; give one whole number or text"),
        ({"images": IMAGES[0], "labels": LABELS[:5]}, r"images is \[5, 4\]; give \[n, height, width\] or"),
        ({"images": IMAGES.astype(float), "labels": LABELS}, "images goes from 0 to 249; give floats from 0 to 1"),
        ({"images": IMAGES / np.nan, "labels": LABELS}, "images goes from nan to nan; give floats from 0 to 1"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "images is of complex128; give bytes, or floats from 0"),
        ({"images": IMAGES, "labels": LABELS * 0}, "all labels are 0; there must be two classes at least"),
        ({"images": IMAGES, "labels": np.array(["a", 1] * 5, object)}, "cannot be read .*; write it by numpy.savez"),
        (
            {"images": IMAGES, "labels": LABELS, "test_images": IMAGES, "test_labels": LABELS + 1},
            "test has the label 8, which train has not",
        ),
    ],
)
def test_arrays_that_are_no_set_are_one_line(arrays, says, tmp_path):
    with pytest.raises(DataError, match=rf"^npz:{tmp_path}/mine.npz.*{says}"):
        load(saved(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("images", "says", "remedy"),
    [
        (IMAGES.astype(int), "int64, from 0 to 249", (".astype(numpy.uint8)", lambda a: a.astype(np.uint8))),
        (IMAGES > 99, "bool, from False to True", (".astype(numpy.float32)", lambda a: a.astype(np.float32))),
        ((IMAGES > 99).astype(int), "int64, from 0 to 1", (".astype(numpy.float32)", lambda a: a.astype(np.float32))),
        ((IMAGES > 99).astype(np.uint8), "uint8, from 0 to 1", ("give floats by", lambda a: a.astype(np.float32))),
        (IMAGES.astype(np.uint16) * 257, "uint16, from 0 to 63993", ("(65535 in 16 bits)", lambda a: a / 65535)),
        (IMAGES.astype(int) - 9, "int64, from -9 to 240", ("0 for black and 1", lambda a: (a + 9) / 255)),
    ],
)
def test_the_remedy_for_other_numbers_keeps_the_images(images, says, remedy, tmp_path):
    with pytest.raises(DataError, match=rf"^npz:[^;]*: images is of {says}; [^;]*{re.escape(remedy[0])}[^;]*$"):
        load(saved(tmp_path, images=images, labels=LABELS))
    mended = load(saved(tmp_path, images=remedy[1](images), labels=LABELS), validation_fraction=0.0).train.images
    shown = 255 * (IMAGES > 99) if images.max() <= 1 else IMAGES
    assert {image.tobytes() for image in mended} <= {image.tobytes() for image in shown.astype(np.uint8)}


def test_a_file_that_is_none_is_one_line(tmp_path):
    for function in (load, fingerprint):
        with pytest.raises(DataError, match=r"there is no such file; name one that numpy.savez wrote"):
            function(f"npz:{tmp_path}/mine.npz")
    (tmp_path / "mine.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"mine.npz cannot be read \(it is no .npz file\)"):
        load(f"npz:{tmp_path}/mine.npz")


def test_the_fingerprint_is_another_when_the_file_is(tmp_path):
    one = fingerprint(saved(tmp_path, images=IMAGES, labels=LABELS))
    assert one == fingerprint(f"npz:{tmp_path}/mine.npz")
    assert one != fingerprint(saved(tmp_path, images=IMAGES[:8], labels=LABELS[:8]))
