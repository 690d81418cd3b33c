"""Parameters drawn by NumPy: the initialisers of JAX take seconds to compile, and few tests are about them."""

import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax import models


def random_params(model, image_shape: tuple[int, ...]) -> dict:
    """Of a size at which activations neither vanish nor grow; biases are small and not 0."""
    return random_variables(model, image_shape)[0]


def random_variables(model, image_shape: tuple[int, ...]) -> tuple[dict, dict]:
    """The same, with running statistics for batch norms: any means, and variances around 1."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        scale = 0.3 if path[-1].key == "W" else np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0.05
        return jnp.asarray(scale * generator.standard_normal(leaf.shape, np.float32))

    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0), image_shape))
    return jax.tree_util.tree_map_with_path(draw, shapes)
