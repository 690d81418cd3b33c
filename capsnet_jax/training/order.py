"""In which order an epoch takes the examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from capsnet_jax.config import Data
from capsnet_jax.training.program import Program
from capsnet_jax.training.step import run_key

WINDOW = 5000  # records in the released code's queue, from which it draws at random


def epoch_order(
    data: Data, images: int, *, parallel: str, mesh: Mesh | None = None
) -> Callable[[Int[Array, "runs"], int], Int[Array, "runs images"]]:
    """Make the program that gives each seed's order of an epoch; sorting takes long, so once a pass.

    Args:
        data: which order. With `shift_order="in_turn"` it is one of records, as `augment.gather_shifted` takes them.
        images: how many the training split has.
        parallel: "vmap" or "map".
        mesh: of devices; None: one device.
    """

    def order(seed: Array, epoch: Array) -> Array:
        key = jax.random.fold_in(run_key(seed, "order"), epoch)
        if data.shift_order == "in_turn":
            return file_order(key, epoch, images, (2 * data.max_shift + 1) ** 2)
        return jax.random.permutation(key, images)

    return Program(order, (0, None), parallel=parallel, mesh=mesh)


def file_order(key: PRNGKeyArray, epoch: Int[Array, ""], images: int, shifts: int) -> Int[Array, "images"]:
    """Read the next records of a file that has every image once for each shift, one behind the other.

    An epoch has as many records as there are images, so a pass through the file takes as many epochs as there are
    shifts. Records wait in a queue of `WINDOW`, so few digits are in a batch: of 128, about 110. What would be left in
    the queue at the end of an epoch comes at its beginning, so that it has each of its records once.

    Source: mnist_input_record.py of the released code of Sabour, Frosst and Hinton 2017.
    """
    wait = WINDOW * jax.random.exponential(key, (images,))  # of a record in a queue that is drawn from at random
    records = jnp.argsort((jnp.arange(images) + wait) % images)
    return (epoch % shifts) * images + records
