"""Several processes, mostly of several machines, that train the same runs together.

JAX spreads a program over the devices of all processes. All else goes by process 0, which every other one keeps a
connection to: process 0 decides and writes, the others follow. When a process dies its connection breaks, and then all
others end. JAX would notice too, but only after a while, and by aborting with pages of its insides.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from capsnet_jax.training.link import Link, Message


class Hosts:
    """This process among those that train together; alone if nothing is said."""

    def __init__(self, process: int = 0, links: Mapping[int, Link] | None = None):
        """Name the process, and its links by the number of the process on the other side."""
        self.process = process
        self._links = dict(links or {})
        self._own_signal: Callable[[], int | None] = lambda: None
        self._told_signal = self._leaving = False
        for number, link in self._links.items():
            link.watch(self._on_end(number), self._on_loss(number))

    @property
    def others(self) -> bool:
        """Whether there are other processes."""
        return bool(self._links)

    def among(self, mesh: Mesh | None) -> "Hosts":
        """Return those of the processes that have devices of a mesh; this one must be among them."""
        members = set() if mesh is None else {device.process_index for device in mesh.devices.flat}
        part = Hosts(self.process)
        part._links = {number: link for number, link in self._links.items() if number in members}
        part._own_signal = self._own_signal
        return part

    def heed(self, stop: Callable[[], int | None]) -> Callable[[], int | None]:
        """Make `stop` that of all processes: process 0 learns of the signals of others, and decides."""
        if not self._links:
            return stop
        self._own_signal = stop
        if self.process:
            return stop
        return lambda: stop() or next((link.signum for link in self._links.values() if link.signum), None)

    def agree(self, value: Any = None) -> Any:
        """Return what process 0 says, which is JSON; what others give does not count."""
        if self.process:
            return self._receive(0).value
        for link in self._links.values():
            link.send("value", value)
        return value

    def broadcast(self, tree: PyTree) -> PyTree:
        """Return the arrays of process 0; those of others only tell the structure."""
        if not self._links:
            return tree
        if self.process:
            return jax.tree.unflatten(jax.tree.structure(tree), self._receive(0).arrays)
        tree = jax.device_get(tree)
        for link in self._links.values():
            link.send("value", None, jax.tree.leaves(tree))
        return tree

    def gather(self, tree: PyTree) -> PyTree:
        """Return arrays that are spread over the processes: whole at process 0, elsewhere as they were.

        All have to call it, in the same order as everything else here.
        """
        if not self._links:
            return tree
        leaves, structure = jax.tree.flatten(tree)
        own = [_own_shards(leaf) for leaf in leaves]
        if self.process:
            places = [[place for place, _ in shards] for shards in own]
            self._links[0].send("value", places, [data for shards in own for _, data in shards])
            return tree
        whole = [np.empty(leaf.shape, leaf.dtype) if _is_spread(leaf) else np.asarray(leaf) for leaf in leaves]
        for array, shards in zip(whole, own, strict=True):
            _fill(array, shards)
        for number in self._links:
            message = self._receive(number)
            arrays = iter(message.arrays)
            for array, places in zip(whole, message.value, strict=True):
                _fill(array, [(place, next(arrays)) for place in places])
        return jax.tree.unflatten(structure, whole)

    def everywhere(self, tree: PyTree) -> PyTree:
        """Return arrays that are spread over the processes, whole in each; it waits for all."""
        return self.broadcast(self.gather(tree))

    def end_others(self, code: int, line: str = "") -> None:
        """Let the others leave with an exit code and a line."""
        self._leaving = True
        for link in self._links.values():
            link.send("end", [code, line])

    def _receive(self, number: int) -> Message:
        return self._links[number].receive(self._tell_signal)

    def _tell_signal(self) -> None:
        if self.process and not self._told_signal and (signum := self._own_signal()):
            self._told_signal = True
            self._links[0].send("signal", signum)

    def _on_end(self, number: int) -> Callable[[int, str], None]:
        def end(code: int, line: str) -> None:
            if self._leaving:
                return  # with its own code and line
            if not self.process:
                self.end_others(code)
                line = f"process {number} failed; its own line says why"
            leave(code, line)

        return end

    def _on_loss(self, number: int) -> Callable[[], None]:
        def lose() -> None:
            if not self._leaving:
                line = f"process {number} is gone; the same command continues"
                if not self.process:
                    self.end_others(3, line)
                leave(3, line)

        return lose


ALONE = Hosts()


def leave(code: int, line: str) -> None:
    """End the process at once, whatever it waits for."""
    if line:
        print(line, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _own_shards(leaf: Any) -> list[tuple[list[list[int]], np.ndarray]]:
    """Return what this process has of an array and no other one sends: where it belongs, and the numbers."""
    if not _is_spread(leaf):
        return []
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [
        ([list(part.indices(size)[:2]) for part, size in zip(s.index, leaf.shape, strict=True)], np.asarray(s.data))
        for s in shards
    ]


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def _fill(array: np.ndarray, shards: list[tuple[list[list[int]], np.ndarray]]) -> None:
    for place, data in shards:
        array[tuple(slice(*bounds) for bounds in place)] = data
