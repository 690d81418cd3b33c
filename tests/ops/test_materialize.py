import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.materialize import materialize


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("barrier", "times"), [(materialize, 1), (lambda x: x, 2)])
def test_is_computed_once(barrier, times):
    """However it is viewed. Without `materialize`, XLA computes it for each view."""

    def views(x):
        x = barrier(jnp.tan(x))
        return [jnp.pad(x, pads) for pads in around]

    around = [((0, 0), (1, 1), (0, 0)), ((0, 0), (0, 0), (2, 1))]
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    compiled = jax.jit(views).lower(x).compile()
    assert compiled.as_text().count(" tan(") == times
    for got, pads in zip(compiled(x), around, strict=True):
        np.testing.assert_allclose(got, np.pad(np.tan(x), pads), rtol=1e-6)
