import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from capsnet_jax import overrides
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.transform import TRANSFORMS
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.distortions import AMOUNTS, distorted_features, features_of, read_off
from capsnet_jax.interpret.network import Network


class Centre(nn.Module):
    """A net whose hidden features are the mass and the centre of what it sees; dark or bright is the class."""

    @nn.compact
    def __call__(self, pixels):
        mass = jnp.sum(pixels, axis=(1, 2, 3))
        columns = jnp.arange(pixels.shape[2])
        centre = jnp.einsum("bhwc,w->b", pixels, columns) / jnp.maximum(mass, 1e-6)
        return {"hidden": jnp.stack([mass, centre], axis=1), "logits": jnp.stack([-mass, mass - 2 * 3.0], axis=1)}


class Inverted(Centre):
    """The same net, for inverted images."""

    def __call__(self, pixels):
        return super().__call__(1 - pixels)


def network(labels, transform="none"):
    """On 40 images, dark and bright in turn."""
    images = np.zeros((40, 21, 21, 1), np.uint8)
    images[:, 10, 10] = 255  # mass 1: dark
    images[1::2, 9:12, 9:12] = 255  # mass 9: bright
    examples = Examples(TRANSFORMS[transform](images), labels)
    data = Dataset("dots", ("dark", "bright"), examples, examples, examples)
    config = overrides.build({"model.name": "cnn_small", "data.transform": transform})
    return Network(config, Inverted() if transform == "inverted" else Centre(), {}, {}, data, record=None)


CLASSES = (np.arange(40) % 2).astype(np.int32)


@pytest.fixture(scope="module", autouse=True)
def few_amounts():
    """The first, a middle and the last of each kind: every one is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, amounts in AMOUNTS.items():
            patch.setitem(AMOUNTS, kind, (amounts[0], amounts[len(amounts) // 2], amounts[-1]))
        yield


@pytest.fixture(scope="module")
def observed(few_amounts):
    return OBSERVATIONS["distortions"](network(CLASSES))


def test_a_shift_leaves_the_mass_and_moves_the_centre(observed):
    assert observed["shift/amounts"].tolist() == list(AMOUNTS["shift"])
    np.testing.assert_allclose(observed["shift/error"], 0)
    # |Δ centre| over |(mass, centre)|, for masses of 1 and 9 around column 10.
    for shift, change in zip(observed["shift/amounts"], observed["shift/change"], strict=True):
        expected = shift * np.mean([1 / np.hypot(1, 10), 1 / np.hypot(9, 10)])
        assert change == pytest.approx(expected, abs=1e-4)
    assert observed["shift/read"] > 0.99  # the centre says it all


@pytest.mark.parametrize(("kind", "amount"), [("shift", 6.0), ("rotation", 30.0), ("elastic", 2.0)])
def test_what_moves_into_inverted_images_is_their_background(kind, amount):
    features, error = distorted_features(network(CLASSES), kind, amount)
    inverted, same = distorted_features(network(CLASSES, "inverted"), kind, amount)
    np.testing.assert_allclose(inverted, features, atol=1e-3)
    assert error == same


def test_half_the_size_has_a_quarter_of_the_mass(observed):
    """The bright square's mass falls from 9 to under 3, so it passes for a dot."""
    assert observed["scale/error"][0] == 0
    assert observed["scale/error"][-1] == 50


def test_a_turn_cannot_be_read_off_what_it_does_not_change(observed):
    assert observed["rotation/change"].max() < 0.05
    assert observed["rotation/error"].max() == 0


def test_reading_off_is_of_images_that_were_not_fitted():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    amounts = np.array([0.0, 1.0, 2.0])
    noise = rng.normal(size=(3, 800, 20))
    assert abs(read_off(noise, amounts, labels)) < 0.1
    noted = noise + 0.0
    noted[:, :, 3] = amounts[:, None] * np.where(labels == 0, 1, -2)  # each class has its own direction
    assert read_off(noted, amounts, labels) > 0.99


def test_what_is_read_off_is_not_what_was_fitted():
    """30 fitted rows of 60 dimensions of noise are fitted perfectly, and tell nothing of others."""
    few = np.random.default_rng(1).normal(size=(3, 20, 60))
    assert read_off(few, np.array([0.0, 1.0, 2.0]), np.zeros(20, int)) < 0.3


def test_a_unit_that_is_dead_in_the_fitted_images_spoils_nothing():
    rng = np.random.default_rng(0)
    labels, amounts = np.repeat([0], 400), np.array([0.0, 1.0, 2.0])
    features = rng.normal(size=(3, 400, 8))
    features[:, :, 3] = amounts[:, None]
    features[:, ::2, 5] = 1e-12 * rng.normal(size=(3, 200))
    assert read_off(features, amounts, labels) > 0.99


@pytest.mark.slow
def test_several_classes_at_once_are_scored_as_sets(observed):
    """Rows with one class each are the same labels; rows with both classes are never wrong, and count as the first."""
    rows = np.eye(2, dtype=np.uint8)[CLASSES]
    same = OBSERVATIONS["distortions"](network(rows))
    for name, array in observed.items():
        np.testing.assert_allclose(same[name], array, err_msg=name)
    both = OBSERVATIONS["distortions"](network(np.ones((40, 2), np.uint8)))
    assert max(both[f"{kind}/error"].max() for kind in AMOUNTS) == 0


def test_features_are_the_true_classs_capsule_or_the_last_hidden_layer(net):
    targets = jnp.eye(10)[jnp.array([3, 7])]
    out = net.outputs(net.data.test.images[:2])
    features = features_of(out, targets)
    np.testing.assert_array_equal(features, np.asarray(out["capsules"])[[0, 1], [3, 7]])
    np.testing.assert_array_equal(features_of({"average": jnp.ones((2, 5))}, targets), np.ones((2, 5)))
    np.testing.assert_array_equal(features_of({"logits": 3 * jnp.ones((2, 10))}, targets), 3 * np.ones((2, 10)))


def test_nothing_is_read_off_where_every_class_has_one_image():
    assert np.isnan(read_off(np.random.default_rng(0).random((3, 2, 4)), np.arange(3.0), np.arange(2)))
