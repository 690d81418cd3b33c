"""A function of one run as a program of many."""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from capsnet_jax.training.compile import aot_compile
from capsnet_jax.training.parallel import BATCH, RUNS, mesh_of, place

# How a CPU's program is compiled that is called once: drawing the initial state takes a fifth of the time, and its
# numbers are the same to the bit.
QUICKLY: dict[str, bool | str] = {"xla_backend_optimization_level": "1"}


class Program:
    """A function of one run as a program of many, which are stacked along the leading axis of what is mapped.

    In a mesh each row of devices takes its part of the runs, by a program of its own, which is that of one device. One
    program for all devices would round otherwise, and a run must be equal to the bit wherever it is trained. Where the
    devices are those of several processes, each calls the programs of those rows that it has devices of.
    """

    def __init__(
        self,
        function: Callable,
        axes: tuple[int | None, ...],
        *,
        parallel: str,
        mesh: Mesh | None = None,
        donate: tuple[int, ...] = (),
        once: bool = False,
    ):
        """Make the program; it is compiled when it is first called, or by `compile`.

        Args:
            function: of one run.
            axes: for each argument 0 where each run has its own, None where all share it.
            parallel: "vmap" batches every operation over the runs; "map" takes them in turn, inside the program.
            mesh: of `make_mesh`; None: one device.
            donate: positions of the arguments whose memory the results may take.
            once: whether it is only called once, so that compiling it costs more than running it.
        """
        mapped = jax.vmap(function, in_axes=axes) if parallel == "vmap" else _in_turn(function, axes)
        self._mapped = _whole(mapped)
        self._axes, self._mesh, self._donate = axes, mesh, donate
        options = QUICKLY if once and jax.default_backend() == "cpu" else None
        program = jax.jit(self._mapped, donate_argnums=donate, compiler_options=options)
        self._rows: list[Any] = [None] if mesh is None else [row for row in mesh.devices if _has_own(row)]
        self._programs: Sequence[Any] = [program] * len(self._rows)

    def compile(self, *arguments: Any) -> tuple[jax.stages.Compiled, float]:
        """Compile ahead of time for arguments of these shapes.

        Returns:
            The program of this process's first row, and the seconds that all took.

        Raises:
            OutOfMemoryError: the program needs more memory than is free.
        """
        clock = time.perf_counter()

        def compile_row(row: np.ndarray | None, local: Sequence[Any]) -> jax.stages.Compiled:
            with _shared_by(row):
                return aot_compile(self._mapped, *local, donate=self._donate)[0]

        with ThreadPoolExecutor(len(self._rows)) as pool:
            self._programs = list(pool.map(compile_row, self._rows, self._split(arguments)))
        return self._programs[0], time.perf_counter() - clock

    def __call__(self, *arguments: Any) -> Any:
        """Call the program; what is mapped and all results have a leading axis of runs."""
        results = []
        for row, program, local in zip(self._rows, self._programs, self._split(arguments), strict=True):
            with _shared_by(row):  # no row waits for another
                results.append(program(*local))
        if self._mesh is None:
            return results[0]
        return jax.tree.map(partial(_join, NamedSharding(self._mesh, PartitionSpec(RUNS))), *results)

    def _split(self, arguments: Sequence[Any]) -> list[list[Any]]:
        """Return the arguments of each row, on its devices. Nothing is copied that lies there already."""
        mesh = self._mesh
        if mesh is None:
            return [list(arguments)]
        placed = [place(a, mesh, per_run=axis == 0) for a, axis in zip(arguments, self._axes, strict=True)]
        return [jax.tree.map(partial(_part, devices=row), placed) for row in self._rows]


def _has_own(row: np.ndarray) -> bool:
    return any(device.process_index == jax.process_index() for device in row)


def _shared_by(row: np.ndarray | None) -> contextlib.AbstractContextManager[Any]:
    """Let `split_batch` mean the devices of a row, if there are several."""
    if row is None or len(row) == 1:
        return contextlib.nullcontext()
    return jax.set_mesh(mesh_of(row[None]))


def _whole(function: Callable) -> Callable:
    """Let each device that shares a run have all of the results."""

    def whole(*arguments: Any) -> Any:
        results = function(*arguments)
        if BATCH not in jax.sharding.get_abstract_mesh().shape:
            return results
        return jax.lax.with_sharding_constraint(results, PartitionSpec())

    return whole


def _in_turn(function: Callable, axes: tuple[int | None, ...]) -> Callable:
    """Map a function over runs, one after the other."""

    def in_turn(*arguments: Any) -> Any:
        stacked = [a for a, axis in zip(arguments, axes, strict=True) if axis == 0]

        def one_run(mapped: list[Any]) -> Any:
            # Without barriers XLA merges slicing and stacking with the function, in another way for one run than for
            # several. Sums then round differently, but a run must be equal to the bit whatever runs beside it.
            mapped = list(jax.lax.optimization_barrier(mapped))
            result = function(*(mapped.pop(0) if axis == 0 else a for a, axis in zip(arguments, axes, strict=True)))
            return jax.lax.optimization_barrier(result)

        return jax.lax.map(one_run, stacked)

    return in_turn


def _part(leaf: jax.Array, devices: np.ndarray) -> jax.Array:
    """Return what the devices of a row have of an array."""
    shards = {shard.device: shard.data for shard in leaf.addressable_shards}
    local = [shards[device] for device in devices if device in shards]
    if len(devices) == 1:
        return local[0]
    return jax.make_array_from_single_device_arrays(
        local[0].shape, NamedSharding(mesh_of(devices[None]), PartitionSpec()), local
    )


def _join(sharding: NamedSharding, *parts: jax.Array) -> jax.Array:
    """Make one array of the parts of this process's rows, without copying; each row has as many runs."""
    shape = (parts[0].shape[0] * sharding.mesh.shape[RUNS], *parts[0].shape[1:])
    shards = [shard.data for part in parts for shard in part.addressable_shards]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)
