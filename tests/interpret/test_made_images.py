from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from capsnet_jax import overrides
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.interpret import made_images
from capsnet_jax.interpret.network import Network


class Multiples(nn.Module):
    """Channel n is n + 1 times the image."""

    @nn.compact
    def __call__(self, pixels):
        maps = pixels * jnp.arange(1.0, 24.0)[None, None, None]
        return {"maps": maps, "logits": maps.mean(axis=(1, 2))[:, :2]}


def test_of_ten_channels_the_strongest_image_is_set_against_the_one_that_is_made(monkeypatch):
    images = np.random.default_rng(0).integers(0, 200, (5, 4, 3, 1), np.uint8)
    examples = Examples(images, np.zeros(5, np.int32))
    data = Dataset("noise", ("dark", "bright"), examples, examples, examples)
    net = Network(overrides.build({"model.name": "cnn_small"}), Multiples(), {}, {}, data, record=None)
    monkeypatch.setattr(
        made_images, "visualize", lambda net, goal, **_: SimpleNamespace(scores=100 + np.asarray(goal.index)[:, 0])
    )
    observed = made_images.observe_made_images(net)
    units = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    assert str(observed["layer"]) == "maps"
    assert observed["units"].tolist() == units
    assert observed["made"].tolist() == [100 + unit for unit in units]
    np.testing.assert_allclose(observed["found"], (np.array(units) + 1) * images.max() / 255, rtol=1e-6)
