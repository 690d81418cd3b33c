"""This project as its users run it: the training loop of `train.fit`, and the model's outputs."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from capsnet_jax import config, models
from capsnet_jax.bench import memory
from capsnet_jax.bench.workload import Workload
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import take, to_float
from capsnet_jax.training import step as train
from capsnet_jax.training.compile import compile_now
from capsnet_jax.training.parallel import chosen, stack

FIT_IMAGES = (4500, 500)  # training and validation split of mnist_5k
_TOTAL = 1_000_000  # steps that the learning rate's schedule spans: more than are ever timed


def build(workload: Workload) -> Training | Inference:
    """The subject at a workload."""
    return Training(workload) if workload.phase == "training" else Inference(workload)


class Training:
    """Steps of `train.train_steps` on images that live on the device, augmentation, Adam and metrics inside."""

    def __init__(self, workload: Workload):
        """Data and the runs' initial states, on the device."""
        self._configs = [config.unflatten(workload.settings)] * workload.runs
        self._seeds = list(range(workload.runs))
        self._data = dataset(workload)
        self._across = chosen(workload.across)
        self._examples = jax.device_put(self._data.train)
        self.states = initial_states(workload)
        self._step = 0

    def prepare(self) -> float:
        """Compile as `train.fit` does; returns the seconds that it took."""
        self._fixed = (stack(self._configs), jax.numpy.asarray(self._seeds))
        self._program, seconds = train.compile_steps(
            *self._fixed,
            self.states,
            self._examples,
            classes=self._data.classes,
            total=_TOTAL,
            across=self._across,
        )
        self._orders = train.orders(self._examples, across=self._across)
        self._order = self._orders(self._fixed[1], 0)  # compiles it
        return seconds

    def run(self, steps: int) -> None:
        """Train that many steps more and wait for them; one call of the program spans no two epochs."""
        end, epoch = self._step + steps, train.steps_per_epoch(self._configs[0], self._examples)
        while self._step < end:
            stop = min(end, (self._step // epoch + 1) * epoch)
            if self._step % epoch == 0:
                self._order = self._orders(self._fixed[1], self._step // epoch)
            bounds = (np.int32(self._step), np.int32(stop))
            self.states = self._program(*self._fixed, self.states, self._examples, self._order, *bounds)
            self._step = stop
        jax.block_until_ready(self.states)

    def peak(self) -> int:
        """Peak memory, bytes."""
        return memory.jax_peak()


class Inference:
    """Class capsules' lengths and reconstructions, batch after batch in one program, as `evaluation.evaluate` goes."""

    def __init__(self, workload: Workload):
        """Data and weights, on the device."""
        self._batch = workload.batch
        self._examples = jax.device_put(dataset(workload).train)
        states = initial_states(workload)
        self._params, self._stats = jax.tree.map(lambda leaf: leaf[0], (states.params, states.stats))
        self._model = models.build(config.unflatten(workload.settings), workload.classes)
        self._step = 0

    def prepare(self) -> float:
        """Compile; returns the seconds that it took."""
        batches = self._examples.labels.shape[0] // self._batch

        def infer(params: Any, examples: Examples, step: jax.Array) -> dict[str, jax.Array]:
            held = take(examples, step % batches * self._batch + jax.numpy.arange(self._batch))
            out = models.apply(self._model, params, self._stats, to_float(held.images))
            return {name: out[name] for name in ("lengths", "logits", "reconstruction") if name in out}

        def infer_all(params: Any, examples: Examples, start: jax.Array, stop: jax.Array) -> dict[str, jax.Array]:
            """The last batch's outputs; no batch's can be left out, as none is known to be the last."""
            shapes = jax.eval_shape(infer, params, examples, start)
            empty = jax.tree.map(lambda shape: jax.numpy.zeros(shape.shape, shape.dtype), shapes)
            return jax.lax.fori_loop(start, stop, lambda step, _: infer(params, examples, step), empty)

        bound = np.int32(0)
        self._program, seconds = compile_now(infer_all, self._params, self._examples, bound, bound)
        return seconds

    def run(self, steps: int) -> None:
        """Compute that many batches and wait for them."""
        end = self._step + steps
        jax.block_until_ready(self._program(self._params, self._examples, np.int32(self._step), np.int32(end)))
        self._step = end

    def peak(self) -> int:
        """Peak memory, bytes."""
        return memory.jax_peak()


def fit(workload: Workload, seeds: list[int]) -> float:
    """Seconds of a whole `train.fit` of those seeds in one program: compilation, training and validation."""
    train_images, validation_images = FIT_IMAGES
    data = dataset(workload, train_images, validation_images)
    configs = [config.unflatten(workload.settings)] * len(seeds)
    clock = time.perf_counter()
    for at in train.fit(configs, seeds, data, across=chosen(workload.across)):
        jax.block_until_ready(at.states)
    return time.perf_counter() - clock


def dataset(workload: Workload, training: int | None = None, validation: int = 0) -> Dataset:
    """Synthetic images as the project's own data set; by default as many to train on as the workload has."""
    images: Any  # NumPy's, as in every Dataset
    labels: Any
    training = workload.count if training is None else training
    images, labels = workload.images(training + validation)
    whole, held = (Examples(images[part], labels[part]) for part in (slice(training), slice(training, None)))
    names = tuple(map(str, range(workload.classes)))
    return Dataset("synthetic", names, train=whole, validation=held, test=held)


def initial_states(workload: Workload) -> train.TrainState:
    """The stacked initial states of the workload's runs."""
    configs = [config.unflatten(workload.settings)] * workload.runs
    return train.initial_states(configs, list(range(workload.runs)), dataset(workload), across=chosen(workload.across))


def save_weights(workload: Workload, path: str) -> None:
    """Write the first run's initial weights, for peers to start from."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf[0]), initial_states(workload).params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named: dict[str, Any] = {"/".join(part.key for part in where): leaf for where, leaf in leaves}
    np.savez(path, **named)
