import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from capsnet_jax.training.parallel import make_mesh, mesh_shape


@pytest.mark.parametrize(
    ("runs", "batch_size", "devices", "rows", "columns"),
    [(4, 128, 4, 4, 1), (3, 128, 8, 3, 2), (10, 128, 8, 5, 1), (1, 128, 8, 1, 8), (1, 96, 5, 1, 4), (7, 15, 4, 1, 3)],
)
def test_runs_are_spread_first_and_then_their_batches(runs, batch_size, devices, rows, columns):
    assert mesh_shape(runs, batch_size, devices) == (rows, columns)


@pytest.mark.parametrize(("runs", "batch_size", "devices"), [(1, 128, 1), (3, 5, 2)])
def test_one_device_alone_is_no_mesh(runs, batch_size, devices):
    assert mesh_shape(runs, batch_size, devices) == (1, 1)
    assert make_mesh(runs, batch_size, jax.devices()[:1]) is None


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The leaves of each case of `many_devices`."""
    path = tmp_path_factory.mktemp("devices") / "states.npz"
    # With the loops that users have: the older ones of these tests do not keep programs of one and four runs the same.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    subprocess.run([sys.executable, "-m", "tests.training.many_devices", path], check=True, env=environment)
    leaves = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            leaves.setdefault(name.rpartition("/")[0], []).append(arrays[name])
    return leaves


@pytest.mark.slow
@pytest.mark.parametrize("case", ["4 runs, 4 devices", "4 runs, continued on 1 device"])
def test_a_run_is_equal_to_the_bit_wherever_it_is_trained(found, case):
    for leaf, expected in zip(found[case], found["4 runs, 1 device"], strict=True):
        np.testing.assert_array_equal(leaf, expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["2 runs", "batch norm"])
def test_devices_that_share_batches_lead_to_the_same_within_rounding(found, case):
    for leaf, expected in zip(found[f"{case}, 8 devices"], found[f"{case}, 1 device"], strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-5)
