import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax import overrides
from capsnet_jax.data.arrays import Examples
from capsnet_jax.data.augment import gather_shifted, shift
from capsnet_jax.data.transform import background
from capsnet_jax.training.order import WINDOW, epoch_order, file_order

IMAGES, SHIFTS = 20_000, 25


def in_turn(max_shift):
    return overrides.build({"data.shift_order": "in_turn", "data.max_shift": max_shift}).data


def test_an_epoch_reads_the_next_records_of_the_file_once_each():
    orders = epoch_order(in_turn(2), 60, parallel="map")
    for epoch in (0, 1, 24, 25, 640):
        first, second = orders(jnp.array([3, 4]), epoch)
        expected = epoch % SHIFTS * 60 + np.arange(60)
        np.testing.assert_array_equal(np.sort(first), expected)
        np.testing.assert_array_equal(np.sort(second), expected)
        assert not np.array_equal(first, second)
    whole = np.concatenate([orders(jnp.array([3]), epoch)[0] for epoch in range(SHIFTS)])
    np.testing.assert_array_equal(np.sort(whole), np.arange(60 * SHIFTS))


def test_a_batch_has_as_few_digits_as_one_of_a_queue():
    """A plain queue of 5,000 records, of which a random one leaves for each that comes."""
    order = np.asarray(file_order(jax.random.key(0), jnp.int32(0), IMAGES, SHIFTS)) // SHIFTS
    ours = [len(set(batch)) for batch in order[: len(order) // 128 * 128].reshape(-1, 128)]

    draw, file = random.Random(0), itertools.count()
    queue, left = [next(file) for _ in range(WINDOW)], []
    for _ in range(IMAGES):
        place = draw.randrange(WINDOW)
        left.append(queue[place] // SHIFTS)
        queue[place] = next(file)
    theirs = [len(set(left[start : start + 128])) for start in range(0, IMAGES - 127, 128)][50:]

    assert 100 < np.mean(theirs) < 120  # of a batch in random order 127.6 are distinct, of 20,000
    assert abs(np.mean(ours) - np.mean(theirs)) < 3


def test_records_are_images_with_each_of_their_shifts():
    images = np.random.RandomState(0).randint(1, 255, (3, 6, 5, 1), dtype=np.uint8)
    examples = Examples(jnp.asarray(images), jnp.arange(3))
    batch = gather_shifted(examples, jnp.arange(27), max_shift=1)
    np.testing.assert_array_equal(batch.labels, np.repeat(np.arange(3), 9))
    moves = list(itertools.product((-1, 0, 1), repeat=2))
    for record, image in enumerate(np.asarray(batch.images)):
        down, right = moves[record % 9]
        expected = np.zeros((6, 5, 1), np.uint8)
        for row, column in np.ndindex(6, 5):
            if 0 <= row - down < 6 and 0 <= column - right < 5:
                expected[row, column] = images[record // 9, row - down, column - right]
        np.testing.assert_array_equal(image, expected)
    assert len({bytes(image) for image in np.asarray(batch.images)}) == 27
    inverted = gather_shifted(Examples(~examples.images, examples.labels), jnp.arange(27), 1, background("inverted"))
    np.testing.assert_array_equal(inverted.images, ~batch.images)
    np.testing.assert_array_equal(shift(examples.images, jnp.zeros((3, 2), int), 1), images)
