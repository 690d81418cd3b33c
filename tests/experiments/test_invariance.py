from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.data import Dataset, Examples
from experiments import invariance
from tests.figures.synthetic import fake_record


class Centre:
    """A net whose hidden features are the mass and the centre of what it sees; dark or bright is the class."""

    def outputs(self, pictures):
        mass = jnp.sum(pictures, axis=(1, 2, 3))
        columns = jnp.arange(pictures.shape[2])
        centre = jnp.einsum("bhwc,w->b", pictures, columns) / jnp.maximum(mass, 1e-6)
        return {"hidden": jnp.stack([mass, centre], axis=1), "logits": jnp.stack([-mass, mass - 2 * 3.0], axis=1)}


@pytest.fixture(scope="module")
def seen():
    images = np.zeros((40, 21, 21, 1), np.uint8)
    labels = (np.arange(40) % 2).astype(np.int32)
    images[:, 10, 10] = 255  # mass 1: dark
    images[labels == 1, 9:12, 9:12] = 255  # mass 9: bright
    examples = Examples(images, labels)
    data = Dataset("dots", ("dark", "bright"), examples, examples, examples)
    return invariance.observe(SimpleNamespace(outputs=Centre().outputs, data=data))


def test_a_shift_leaves_the_mass_and_moves_the_centre(seen):
    assert seen["shift/amounts"].tolist() == list(invariance.AMOUNTS["shift"])
    np.testing.assert_allclose(seen["shift/error"], 0)
    # |Δ centre| over |(mass, centre)|, for masses of 1 and 9 around column 10.
    for shift, change in zip(seen["shift/amounts"], seen["shift/change"], strict=True):
        expected = shift * np.mean([1 / np.hypot(1, 10), 1 / np.hypot(9, 10)])
        assert change == pytest.approx(expected, abs=1e-4)
    assert seen["shift/read"] > 0.99  # the centre says it all


def test_half_the_size_has_a_quarter_of_the_mass(seen):
    """The bright square's mass falls from 9 to under 3, so it is taken for a dot."""
    assert seen["scale/error"][0] == 0
    assert seen["scale/error"][-1] == 50


def test_a_turn_cannot_be_read_off_what_it_does_not_change(seen):
    assert seen["rotation/change"].max() < 0.05
    assert seen["rotation/error"].max() == 0


def test_reading_off_is_of_images_that_were_not_fitted():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    amounts = np.array([0.0, 1.0, 2.0])
    noise = rng.normal(size=(3, 800, 20))
    assert abs(invariance.read_off(noise, amounts, labels)) < 0.1
    told = noise + 0.0
    told[:, :, 3] = amounts[:, None] * np.where(labels == 0, 1, -2)  # each class has its own direction
    assert invariance.read_off(told, amounts, labels) > 0.99


def test_a_unit_that_is_dead_in_the_fitted_images_spoils_nothing():
    rng = np.random.default_rng(0)
    labels, amounts = np.repeat([0], 400), np.array([0.0, 1.0, 2.0])
    features = rng.normal(size=(3, 400, 8))
    features[:, :, 3] = amounts[:, None]
    features[:, ::2, 5] = 1e-12 * rng.normal(size=(3, 200))
    assert invariance.read_off(features, amounts, labels) > 0.99


def test_the_curves_are_drawn():
    kinds = list(invariance.AMOUNTS)
    runs = {"capsnet_small": [], "cnn_small": []}
    for members in runs.values():
        for seed in range(2):
            arrays = {}
            for kind in kinds:
                amounts = np.array(invariance.AMOUNTS[kind])
                arrays |= {f"{kind}/amounts": amounts, f"{kind}/read": np.array(0.5)}
                arrays |= {f"{kind}/error": amounts + seed, f"{kind}/change": amounts / 10}
            members.append(arrays)
    figure = invariance.distortion_curves(runs, kinds, dataset="mnist")
    panels = np.array(figure.axes).reshape(3, 5)
    assert [axes.get_xlabel() for axes in panels[1]][:2] == ["shift [pixels]", "rotation [degrees]"]
    np.testing.assert_allclose(panels[0, 0].lines[0].get_ydata(), np.array(invariance.AMOUNTS["shift"]) + 0.5)
    assert [float(y) for line in panels[2, 0].lines[:1] for y in line.get_ydata()] == [0.5]
    assert panels[0, 2].xaxis_inverted()  # smaller is further from what was seen
    assert "n = 2 seeds" in figure.get_supxlabel()


def test_a_network_has_one_colour_whichever_networks_a_data_set_has(monkeypatch):
    arrays = {}
    for kind, amounts in invariance.AMOUNTS.items():
        arrays |= {f"{kind}/amounts": np.array(amounts), f"{kind}/read": np.array(0.5)}
        arrays |= {f"{kind}/error": np.array(amounts), f"{kind}/change": np.array(amounts)}
    monkeypatch.setattr(invariance, "observed", lambda record, name: arrays)
    records = [fake_record(model__name=name) for name in ("capsnet_small", "cnn_small")]
    records += [fake_record(model__name="cnn_small", data__dataset="fashion_mnist")]
    drawn = invariance.figures(records)
    both, one = ({line.get_label(): line.get_color() for line in figure.axes[0].lines} for figure in drawn.values())
    assert list(both) == ["capsnet_small", "cnn_small"]
    assert one == {"cnn_small": both["cnn_small"]}
    assert list(drawn) == ["curves-mnist", "curves-fashion_mnist"]
