import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from capsnet_jax.models.forward import from_flax

IMAGES = jnp.asarray(np.random.default_rng(0).random((2, 5, 5, 1), np.float32))


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return 2 * x, {"tripled": 3 * x}


class Named(nn.Module):
    @nn.compact
    def __call__(self, images):
        _, more = Pair(name="pair")(images)
        Pair(name="again")(images)
        return {"logits": nn.Dense(3, name="dense")(more["tripled"].reshape(len(images), -1))}


class Nameless(nn.Module):
    @nn.compact
    def __call__(self, images):
        dense = nn.Dense(3, name="dense")
        return dense(dense(images.reshape(len(images), -1)[:, :3]))


def outputs(module):
    return from_flax(module, module.init(jax.random.key(0), IMAGES))(IMAGES)


def test_what_returns_several_arrays_has_a_name_for_each():
    out = outputs(Named())
    assert set(out) == {"logits", "dense", "pair.0", "pair.1.tripled", "again.0", "again.1.tripled"}
    np.testing.assert_array_equal(out["pair.0"], 2 * IMAGES)
    np.testing.assert_array_equal(out["again.1.tripled"], 3 * IMAGES)
    np.testing.assert_array_equal(out["logits"], out["dense"])


def test_a_module_called_twice_has_two_outputs():
    out = outputs(Nameless())
    assert set(out) == {"dense", "dense#2", "output"}
    np.testing.assert_array_equal(out["dense#2"], out["output"])
