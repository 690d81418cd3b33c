import numpy as np
import pytest
import scipy.io
from scipy import ndimage

from capsnet_jax.data import DATASETS, DataError, Examples, RawDataset, affnist, load
from capsnet_jax.data.affnist import distorted
from tests.data.test_augment import shifted


@pytest.fixture(scope="module")
def digits():
    data = load("mnist_5k")
    return RawDataset(data.label_names, train=data.train, test=data.test)


@pytest.fixture
def small(monkeypatch):
    """affNIST made of the embedded digits."""
    monkeypatch.setitem(DATASETS, "affnist", DATASETS["affnist"]._replace(base="mnist_5k"))


def corner(image):
    """Return where an image's ink begins, (y, x)."""
    return np.array([np.flatnonzero(image.any(1))[0], np.flatnonzero(image.any(0))[0]])


def test_changes_are_those_of_affnist(digits):
    before = Examples(digits.test.images[:300], digits.test.labels[:300])
    after = distorted(before)
    assert after.images.shape == (300, 40, 40, 1)
    np.testing.assert_array_equal(after.images, distorted(before).images)
    areas = after.images.sum(axis=(1, 2, 3)) / before.images.sum(axis=(1, 2, 3))  # ink, which is cut off nowhere
    assert 0.62 < areas.min() < 0.72
    assert 1.3 < areas.max() < 1.48  # 0.8² to 1.2²
    assert np.mean(areas) == pytest.approx(1.0, abs=0.03)
    corners = []
    for image in after.images[..., 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        corners.append((rows[0], 39 - rows[-1], columns[0], 39 - columns[-1]))
    corners = np.array(corners)
    assert (corners.min(axis=0) == 0).all()  # it may touch any border,
    assert (corners[:, [0, 2]].mean() - corners[:, [1, 3]].mean()) == pytest.approx(0, abs=1.5)  # and prefers none


def test_one_digit_is_turned_as_the_matrix_says():
    """A loop over pixels: where each came from, under the same random numbers."""
    image = np.zeros((28, 28), np.uint8)
    image[6:22, 12:16] = 200
    image[6:9, 12:20] = 255
    random = np.random.RandomState(7)
    got = affnist._distort(image, np.random.RandomState(7))
    angle = np.deg2rad(random.uniform(-20, 20))
    shear, (tall, wide) = random.uniform(-0.2, 0.2), random.uniform(0.8, 1.2, size=2)
    # Points (y, x) from the centre: stretched, sheared by the row, then turned clockwise in an image with y downwards.
    forward = np.array([[tall, 0], [shear * tall, wide]])
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.array([[cos, -sin], [sin, cos]]) @ forward
    y, x = np.mgrid[:80, :80] - 39.5
    back = np.linalg.inv(forward) @ np.stack([y, x]).reshape(2, -1) + 13.5
    canvas = np.round(ndimage.map_coordinates(image.astype(float), back, order=1)).astype(np.uint8).reshape(80, 80)
    assert got.sum() == canvas.sum()
    rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
    ink = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = got[np.ix_(np.flatnonzero(got.any(1)), np.flatnonzero(got.any(0)))]
    np.testing.assert_array_equal(inside, ink)


def test_train_is_padded_and_validation_moved_once(small, digits, capsys, tmp_path):
    data = load("affnist", data_dir=tmp_path)
    assert "note: affnist: there is no" in capsys.readouterr().err
    assert data.image_shape == (40, 40, 1)
    np.testing.assert_array_equal(data.train.images[:, 6:-6, 6:-6], digits.train.images)
    single = load("mnist_5k").validation
    moves = set()
    for one, moved in zip(
        np.pad(single.images[:40], ((0, 0), (6, 6), (6, 6), (0, 0))), data.validation.images, strict=False
    ):
        (dy, dx) = corner(moved[..., 0]) - corner(one[..., 0])
        np.testing.assert_array_equal(shifted(one, dy, dx), moved)
        moves |= {dy, dx}
    assert (min(moves), max(moves)) == (-6, 6)
    np.testing.assert_array_equal(data.test.images, load("affnist", data_dir=tmp_path).test.images)  # from the cache
    inverted = load("affnist", data_dir=tmp_path, transform="inverted")
    np.testing.assert_array_equal(inverted.validation.images, ~data.validation.images)


@pytest.mark.parametrize("columns_first", [False, True])
def test_the_published_file_is_read_upright_where_it_is_there(columns_first, small, digits, capsys, tmp_path):
    expected = distorted(Examples(digits.test.images[:200], digits.test.labels[:200]))
    images = expected.images[..., 0].transpose(0, 2, 1) if columns_first else expected.images[..., 0]
    struct = {"image": images.reshape(200, 1600).T, "label_int": expected.labels[None].astype(np.uint8)}
    (tmp_path / "affnist").mkdir()
    scipy.io.savemat(tmp_path / "affnist" / "test.mat", {"affNISTdata": struct})
    data = load("affnist", data_dir=tmp_path)
    assert "note: affnist: test is " in capsys.readouterr().err
    np.testing.assert_array_equal(data.test.images, expected.images)
    np.testing.assert_array_equal(data.test.labels, expected.labels)


def test_another_file_is_one_line(small, tmp_path):
    (tmp_path / "affnist").mkdir()
    for content in (b"", b"MATLAB 5.0 MAT-file" + bytes(200)):
        (tmp_path / "affnist" / "test.mat").write_bytes(content)
        with pytest.raises(DataError, match=r"test.mat cannot be read as affNIST's .*; replace it, or delete it"):
            load("affnist", data_dir=tmp_path)
