import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.data import DATASETS, DataError, Examples, load
from capsnet_jax.data import pairs as module
from capsnet_jax.data.pairs import by_class, draw_pairs, draw_partners, fixed_pairs
from tests.data.test_augment import shifted

LABELS = np.array([2, 0, 1, 0, 0, 2, 1, 0, 2, 2], np.int32)
KEY, BASE_KEY = jax.random.key(3), jax.random.key(4)
SHIFT = 2

draw = jax.jit(draw_pairs, static_argnames=("max_shift",))


def some_examples():
    """Ten images of noise in 6x6 with a border of two."""
    images = np.random.default_rng(0).integers(1, 256, (10, 6, 6, 1), np.uint8)
    return Examples(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), LABELS)


def drawn(key=KEY, indices=range(10)):
    examples = jax.tree.map(jnp.asarray, some_examples())
    return draw(key, BASE_KEY, examples, by_class(examples.labels, 3), jnp.array(list(indices)), max_shift=SHIFT)


def test_pairs_are_those_of_a_loop():
    """The same random numbers, from which a loop over pixels makes partners, shifts, sums, targets and originals."""
    images, _ = some_examples()
    got = jax.tree.map(np.asarray, drawn())
    partner_key, top_key, _ = jax.random.split(KEY, 3)
    # What `random_shift` draws: how far each window's corner lies from the padded image's.
    corners = np.asarray(jax.random.randint(top_key, (10, 2), 0, 2 * SHIFT + 1))
    for index, label in enumerate(LABELS):
        others = [p for k in range(3) if k != label for p in np.flatnonzero(k == LABELS)]  # sorted by class
        draws = jax.random.randint(partner_key, (10,), 0, jnp.asarray(10 - np.bincount(LABELS)[LABELS]))
        partner = others[int(draws[index])]
        base_shift = jax.random.randint(jax.random.fold_in(BASE_KEY, index), (2,), -SHIFT, SHIFT + 1)
        base = shifted(images[index], *map(int, base_shift))
        top = shifted(images[partner], *(SHIFT - corners[index]))
        merged = [[min(int(base[y, x, 0]) + int(top[y, x, 0]), 255) for x in range(10)] for y in range(10)]
        np.testing.assert_array_equal(got.images[index, :, :, 0], merged)
        assert got.labels[index].tolist() == [int(k in (label, LABELS[partner])) for k in range(3)]
        in_order = [base, top] if label < LABELS[partner] else [top, base]
        np.testing.assert_array_equal(got.originals[index], in_order)


def test_a_base_keeps_its_shift_and_a_top_does_not():
    images, _ = some_examples()
    # With a border of two pixels of nothing, np.roll is a shift.
    moves = [(dy, dx) for dy in range(-SHIFT, SHIFT + 1) for dx in range(-SHIFT, SHIFT + 1)]
    found = {np.roll(image, move, (0, 1)).tobytes(): (n, move) for n, image in enumerate(images) for move in moves}
    bases, tops = set(), set()
    for step in range(12):
        got = jax.tree.map(np.asarray, drawn(jax.random.key(step)))
        for index, label in enumerate(LABELS):
            lower, higher = (found[image.tobytes()] for image in got.originals[index])
            base, top = (lower, higher) if LABELS[lower[0]] == label else (higher, lower)
            assert base[0] == index
            assert sorted((label, LABELS[top[0]])) == np.flatnonzero(got.labels[index]).tolist()
            bases.add(base)
            tops.add(top[1])
    assert len(bases) == 10
    assert len({move for _, move in bases}) > 5
    assert len(tops) > 20  # of 25


def test_partners_are_of_other_classes_and_uniform():
    where = by_class(jnp.asarray(LABELS), 3)
    for label in range(3):
        partners = np.asarray(draw_partners(jax.random.key(label), jnp.full(4000, label), where))
        others = np.flatnonzero(label != LABELS)
        assert set(partners) == set(others)
        expected = 4000 / len(others)
        chi_square = np.sum((np.bincount(partners, minlength=10)[others] - expected) ** 2 / expected)
        assert chi_square < 26  # 7 degrees of freedom at most: fewer than one key in a thousand


def boxes():
    """The boxes of 2,000 digits: 20x20 in 36x36."""
    images = np.zeros((2000, 36, 36, 1), np.uint8)
    images[:, 8:28, 8:28] = 200
    return Examples(images, np.arange(2000, dtype=np.int32) % 2)


def overlap(merged):
    """The mean share of a box that the other one covers."""
    return np.mean(np.asarray(merged) == 255) * 36 * 36 / 400


def test_boxes_overlap_as_counted():
    """By 72.6 % on average if both move by up to 4 pixels."""
    fixed = fixed_pairs(boxes(), classes=2, max_shift=4, name="boxes")
    assert overlap(fixed.images) == pytest.approx(0.726, abs=0.01)


@pytest.mark.slow
def test_boxes_overlap_as_counted_in_training():
    examples = jax.tree.map(jnp.asarray, boxes())
    where = by_class(examples.labels, 2)
    for max_shift, share in ((4, 0.726), (6, 0.616)):
        got = draw(KEY, BASE_KEY, examples, where, jnp.arange(2000), max_shift=max_shift)
        assert overlap(got.images) == pytest.approx(share, abs=0.01)


def test_fixed_pairs_show_each_image_with_another_class_and_are_always_the_same():
    examples = some_examples()
    fixed = fixed_pairs(examples, classes=3, max_shift=SHIFT, name="noise")
    assert (fixed.images.dtype, fixed.labels.dtype) == (np.uint8, np.uint8)
    assert fixed.labels.sum(axis=1).tolist() == [2] * 10
    for index, merged in enumerate(fixed.images):
        assert fixed.labels[index, LABELS[index]] == 1
        # Where the base alone is brighter than the sum, it would not be in it.
        span = range(-SHIFT, SHIFT + 1)
        assert any((shifted(examples.images[index], dy, dx) <= merged).all() for dy in span for dx in span)
    again = fixed_pairs(examples, classes=3, max_shift=SHIFT, name="noise")
    np.testing.assert_array_equal(fixed.images, again.images)
    one = Examples(examples.images[LABELS == 1], LABELS[LABELS == 1])
    with pytest.raises(DataError, match=r"^noise shows one class only"):
        fixed_pairs(one, classes=3, max_shift=SHIFT, name="noise")
    none = Examples(examples.images[:0], LABELS[:0])
    assert fixed_pairs(none, classes=3, max_shift=SHIFT, name="noise").labels.shape == (0, 3)


def test_a_set_of_pairs_is_one_line(monkeypatch):
    entry = DATASETS["multi_mnist"]._replace(base="mnist_5k")
    monkeypatch.setitem(DATASETS, "multi_5k", entry)
    data = load("multi_5k", train_size=1000)
    assert data.image_shape == entry.dimensions[0] == (36, 36, 1)
    assert (data.train.labels.shape, data.validation.labels.shape, data.test.labels.shape) == (
        (1000,),
        (400, 10),
        (1000, 10),
    )
    np.testing.assert_array_equal(data.test.images, load("multi_5k", validation_fraction=0.0).test.images)
    single = load("mnist_5k", train_size=1000)
    np.testing.assert_array_equal(data.train.images[:, 4:-4, 4:-4], single.train.images)
    assert data.train.images.sum() == single.train.images.sum()
    assert data.test.labels[np.arange(1000), single.test.labels].all()
    with pytest.raises(DataError, match="leave it out"):
        load("multi_5k", transform="inverted")
    assert module.PAD == 4
