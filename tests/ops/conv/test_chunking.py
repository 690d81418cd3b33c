import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.conv.chunking import chunked_map, chunked_sum, largest_divisor


@pytest.mark.parametrize("n", [1, 6, 7, 12])
@pytest.mark.parametrize("limit", [-1, 0, 1, 4, 5, 100])
def test_largest_divisor(n, limit):
    assert largest_divisor(n, limit) == max([d for d in range(1, n + 1) if n % d == 0 and d <= limit], default=1)


@pytest.mark.parametrize("chunks", [1, 2, 4, 7, 12])
def test_map_and_sum_are_over_every_chunk(chunks):
    """Whatever number of chunks one turn of the loop takes."""
    a, b = (jnp.asarray(np.random.default_rng(i).standard_normal((chunks, 3, 2)), jnp.float32) for i in range(2))
    np.testing.assert_allclose(jax.jit(lambda a: chunked_map(lambda x: x.T**2, a))(a), a.swapaxes(1, 2) ** 2, rtol=1e-6)
    total = jax.jit(lambda a, b: chunked_sum(lambda x, y: x.T @ y, a, b))(a, b)
    np.testing.assert_allclose(total, np.einsum("nij,nik->jk", np.float64(a), np.float64(b)), atol=1e-5)
