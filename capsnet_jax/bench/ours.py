"""This project as its users run it: the training loop's steps, and the model's outputs."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax import models, overrides
from capsnet_jax.bench.plain_jax import OnJax
from capsnet_jax.bench.workload import Workload
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import gather, to_float
from capsnet_jax.training import fit as training
from capsnet_jax.training.compile import aot_compile
from capsnet_jax.training.order import epoch_order
from capsnet_jax.training.parallel import make_mesh, place, resolve, stack
from capsnet_jax.training.step import TrainState, steps_per_epoch


class _Training(OnJax):
    """Steps of the training loop on images that live on the device, with augmentation, optimizer and metrics."""

    def __init__(self, workload: Workload):
        data, self._config = dataset(workload), overrides.build(workload.settings)
        self._fixed = stack([self._config] * workload.runs), jnp.arange(workload.runs)
        mesh = make_mesh(workload.runs, workload.batch, jax.devices()[: workload.devices])
        self._examples = place(data.train, mesh)
        self.states = place(initial_states(workload), mesh, per_run=True)
        self._sharing: dict[str, Any] = {"parallel": resolve(workload.parallel), "mesh": mesh}
        # The learning rate's schedule spans more steps than are ever timed.
        self._options: dict[str, Any] = {"classes": data.classes, "total": 1_000_000} | self._sharing

    def compile(self) -> float:
        self._program, _, seconds = training.compile_steps(*self._fixed, self.states, self._examples, **self._options)
        self._order_of = epoch_order(self._config.data, len(self._examples.labels), **self._sharing)
        self._order = self._order_of(self._fixed[1], 0)  # compiles it
        return seconds

    def run(self, start: int, stop: int) -> None:
        epoch = steps_per_epoch(self._config, self._examples)
        while start < stop:
            end = min(stop, (start // epoch + 1) * epoch)  # as in a fit, no call spans two epochs
            if start % epoch == 0:
                self._order = self._order_of(self._fixed[1], start // epoch)
            arguments = *self._fixed, self.states, self._examples, self._order, np.int32(start), np.int32(end)
            self.states, start = self._program(*arguments), end
        jax.block_until_ready(self.states)


class _Inference(OnJax):
    """The model's outputs (lengths or logits, reconstructions), batch after batch in one program, as in evaluation."""

    def __init__(self, workload: Workload):
        self._batch, states = workload.batch, initial_states(workload)
        self._examples = jax.device_put(dataset(workload).train)
        self.params, self._stats = jax.tree.map(lambda leaf: leaf[0], (states.params, states.stats))
        self.model = models.build(overrides.build(workload.settings), workload.classes)

    def compile(self) -> float:
        self._program, seconds = aot_compile(self._infer_all, self.params, self._examples, np.int32(0), np.int32(0))
        return seconds

    def run(self, start: int, stop: int) -> dict[str, jax.Array]:
        return jax.block_until_ready(self._program(self.params, self._examples, np.int32(start), np.int32(stop)))

    def _infer(self, params: Any, examples: Examples, step: jax.Array) -> dict[str, jax.Array]:
        first = step % (examples.labels.shape[0] // self._batch) * self._batch
        images = to_float(gather(examples, first + jnp.arange(self._batch)).images)
        out = models.apply(self.model, params, self._stats, images)
        return {name: out[name] for name in ("lengths", "logits", "reconstruction") if name in out}

    def _infer_all(self, params: Any, examples: Examples, start: jax.Array, stop: jax.Array) -> dict[str, jax.Array]:
        """Return the last batch's outputs. XLA can leave no batch out, as none is known to be the last."""
        shapes = jax.eval_shape(self._infer, params, examples, start)
        empty = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        return jax.lax.fori_loop(start, stop, lambda step, _: self._infer(params, examples, step), empty)


def build(workload: Workload, _weights: object) -> _Training | _Inference:
    """Return the subject at a workload; it starts from weights of its own."""
    return _Training(workload) if workload.phase == "training" else _Inference(workload)


def fit(workload: Workload, seeds: list[int]) -> float:
    """Train these seeds in one program; return the seconds of compilation, training and validation."""
    configs, data = [overrides.build(workload.settings)] * len(seeds), dataset(workload, workload.num_images // 10)
    clock = time.perf_counter()
    for progress in training.fit(configs, seeds, data, parallel=resolve(workload.parallel)):
        jax.block_until_ready(progress.states)
    return time.perf_counter() - clock


def dataset(workload: Workload, validation: int = 0) -> Dataset:
    """Return the workload's images as a data set, the last ones for validation."""
    images, labels = workload.images()
    cut = workload.num_images - validation
    first, last = (Examples(images[part], labels[part]) for part in (slice(cut), slice(cut, None)))
    return Dataset("synthetic", tuple(map(str, range(workload.classes))), train=first, validation=last, test=last)


def initial_states(workload: Workload) -> TrainState:
    """Return the stacked initial states of the workload's runs."""
    configs, parallel = [overrides.build(workload.settings)] * workload.runs, resolve(workload.parallel)
    return training.initial_states(configs, list(range(workload.runs)), dataset(workload), parallel=parallel)


def initial_weights(workload: Workload) -> dict[str, Any]:
    """Return the first run's initial parameters as NumPy arrays, for peers to start from."""
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), initial_states(workload).params)
