import numpy as np
import pytest

from capsnet_jax.data import DataError, Examples
from capsnet_jax.data.transform import TRANSFORMS, transform_images

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 2), dtype=np.uint8)


def test_every_pixel_is_moved_or_inverted():
    examples = Examples(IMAGES, np.arange(3, dtype=np.int32))
    rotated, inverted = transform_images(examples, "rotated"), transform_images(examples, "inverted")
    for n, row, column, channel in np.ndindex(IMAGES.shape):
        assert rotated.images[n, 3 - column, row, channel] == IMAGES[n, row, column, channel]
        assert inverted.images[n, row, column, channel] == 255 - int(IMAGES[n, row, column, channel])
    np.testing.assert_array_equal(transform_images(examples, "none").images, IMAGES)


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("labels", [np.arange(3, dtype=np.int32), np.eye(3, dtype=np.uint8)])
def test_labels_of_both_kinds_do_not_change(name, labels):
    np.testing.assert_array_equal(transform_images(Examples(IMAGES, labels), name).labels, labels)


def test_an_unknown_transform_names_the_known_ones():
    with pytest.raises(DataError, match=r"^transform must be one of none, inverted, rotated, not 'turned'$"):
        transform_images(Examples(IMAGES, np.arange(3, dtype=np.int32)), "turned")
