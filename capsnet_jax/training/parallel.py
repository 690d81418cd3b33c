"""How runs of one structure share a program and devices.

Devices form a mesh of rows and columns. Runs are spread over the rows, along "runs"; the devices of a row share each
batch of its runs, along "batch".
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from capsnet_jax.config import Config

RUNS, BATCH = "runs", "batch"


def stack(configs: list[Config]) -> Config:
    """Stack configs of one structure, each leaf float32[runs]."""
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *configs)


def resolve(parallel: str) -> str:
    """Return how runs share a program, "map" or "vmap"; "auto" is what the platform does best.

    A CPU is as fast on one run as on several, and batched products over runs cost it locality.
    """
    if parallel != "auto":
        return parallel
    return "map" if jax.default_backend() == "cpu" else "vmap"


def make_mesh(runs: int, batch_size: int, devices: Sequence[jax.Device]) -> Mesh | None:
    """Arrange devices for the runs of a program as `mesh_shape` says; None for one device alone."""
    rows, columns = mesh_shape(runs, batch_size, len(devices))
    if rows * columns == 1:
        return None
    return mesh_of(np.array(devices[: rows * columns]).reshape(rows, columns))


def mesh_shape(runs: int, batch_size: int, devices: int) -> tuple[int, int]:
    """Return as many rows as share the runs evenly, and as many columns as share their batches evenly.

    Args:
        runs: how many are trained side by side.
        batch_size: of each of them.
        devices: how many there are; those that are not needed stay idle.
    """
    rows = _largest_divisor(runs, devices)
    return rows, _largest_divisor(batch_size, devices // rows)


def place(tree: PyTree, mesh: Mesh | None, *, per_run: bool = False) -> PyTree:
    """Put arrays on all devices of a mesh, or, with a leading axis of runs, on those of each run's row.

    Where the devices are those of several processes, each has the same arrays, and puts its own devices' part there.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec(RUNS) if per_run else PartitionSpec())
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(partial(_place_own, sharding), tree)


def split_batch(tree: PyTree) -> PyTree:
    """Split arrays along their leading axis, a batch, over the devices that share a run, if that is even.

    For use inside a program.
    """
    sharers = jax.sharding.get_abstract_mesh().shape.get(BATCH, 1)

    def split(leaf: jax.Array) -> jax.Array:
        if sharers == 1 or leaf.shape[0] % sharers:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, PartitionSpec(BATCH))

    return jax.tree.map(split, tree)


def mesh_of(devices: np.ndarray) -> Mesh:
    """Make a mesh of rows and columns of devices."""
    return Mesh(devices, (RUNS, BATCH), axis_types=(AxisType.Auto, AxisType.Auto))


def _place_own(sharding: NamedSharding, leaf: jax.typing.ArrayLike) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def _largest_divisor(number: int, most: int) -> int:
    return max(divisor for divisor in range(1, most + 1) if number % divisor == 0)
