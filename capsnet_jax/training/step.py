"""Training as pure functions of state and data, for one run or for many side by side.

A *run* is one config and one seed. Runs whose configs share their structure (see `config`) train together in one
compiled program, stacked along a leading axis `runs`: `across="vmap"` batches every operation over them,
`across="map"` takes them in turn inside the program, which a CPU prefers.

Every random number is derived from the run's seed and the step, so the state carries no key, and a run that is cut
at any step and continued from its state is equal to the bit to one that was not.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.data.augment import random_flip, random_shift, take, to_float
from capsnet_jax.losses import total_loss
from capsnet_jax.training import finetune as partition
from capsnet_jax.training import optimizer
from capsnet_jax.training.compile import compile_now
from capsnet_jax.training.evaluation import METRICS, judge, means, plain, probed
from capsnet_jax.training.parallel import over_runs, stack
from capsnet_jax.training.schedule import averaging_weight, learning_rate


class TrainState(NamedTuple):
    """What a step reads and replaces.

    Attributes:
        params: the model's parameters.
        opt_state: the optimizer's moments, of the parameters that are trained.
        sums: each metric summed over the examples of the current epoch so far.
        diverged: the first step whose loss or result was not finite, else -1. From then on the state stands still,
          so it always holds finite numbers.
        stats: batch norm's running statistics; {} in a model without.
        average: params and stats, averaged over the last steps; () where that is not asked for.
    """

    params: PyTree
    opt_state: PyTree
    sums: dict[str, Float[Array, ""]]
    diverged: Int[Array, ""]
    stats: PyTree = {}  # noqa: RUF012 - never changed in place
    average: PyTree = ()

    @property
    def judged(self) -> tuple[PyTree, PyTree]:
        """The params and stats that are evaluated and kept."""
        return self.average or (self.params, self.stats)


class Progress(NamedTuple):
    """Where a fit stands after a chunk of steps.

    Attributes:
        step: steps done.
        total: steps to do.
        states: the runs' `TrainState`, stacked; valid until the next chunk is asked for.
        history: a dictionary for every finished epoch: {"epoch", "images_per_second", each metric: one value a run}.
        images_per_second: of all runs together, in this epoch and process, compilation and evaluation left out.
        compile_seconds: time that compiling the training program took.
    """

    step: int
    total: int
    states: TrainState
    history: list[dict[str, Any]]
    images_per_second: float
    compile_seconds: float


def init_state(config: Config, seed: Int[Array, ""], image_shape: tuple[int, ...], classes: int) -> TrainState:
    """The state before the first step."""
    params, stats = models.init_all(models.build(config, classes), _key(seed, "init"), image_shape)
    trained, _ = partition.split(params, config.train.frozen)
    sums = {name: jnp.zeros(()) for name in METRICS}
    average = jax.tree.map(jnp.zeros_like, (params, stats)) if config.train.average else ()
    return TrainState(params, optimizer.directions(config.train).init(trained), sums, jnp.int32(-1), stats, average)


def train_step(
    config: Config,
    seed: Int[Array, ""],
    state: TrainState,
    batch: Examples,
    step: Int[Array, ""],
    *,
    classes: int,
    total: int,
) -> TrainState:
    """One step on a batch of uint8 images, augmented here.

    Args:
        config: settings; its leaves may be traced.
        seed: of the run.
        state: to be replaced.
        batch: images uint8[batch, height, width, channels] and labels int32[batch].
        step: number of this step, from 0.
        classes: number of classes.
        total: steps that the schedule spans.

    Returns:
        The next state; the old one with `diverged` set where the loss or the next state is not finite.
    """
    shift_key, dropout_key = jax.random.split(jax.random.fold_in(_key(seed, "steps"), step))
    images = random_shift(shift_key, batch.images, config.data.shift)
    if config.data.flip:
        images = random_flip(jax.random.fold_in(shift_key, 1), images)
    images = to_float(images)
    model = models.build(config, classes)
    trained, fixed = partition.split(state.params, config.train.frozen)

    def loss_of(trained: PyTree) -> tuple[Array, tuple[dict[str, Array], PyTree]]:
        out, stats = models.apply_in_training(
            model,
            trained | fixed,
            state.stats,
            images,
            batch.labels,
            dropout=dropout_key,
            frozen=partition.names_of(config.train.frozen),
        )
        loss, parts = total_loss(out, images, batch.labels, config.loss)
        return loss, (parts, stats)

    (loss, (parts, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(trained)
    rate = learning_rate(config.train, step, total)
    # A step moves a parameter by a few rates at most, so with these everything in the next state is finite.
    squares = jnp.stack([jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves((gradient, stats))])
    finite = jnp.all(jnp.isfinite(squares)) & jnp.isfinite(loss) & jnp.isfinite(1e3 * rate) & (state.diverged < 0)

    def moves() -> TrainState:
        directions = optimizer.directions(config.train)
        direction, opt_state = directions.update(gradient, state.opt_state)
        direction = optimizer.decayed(direction, trained, config.train.weight_decay)
        if config.transfer.source != "none":
            slower = partition.scale_taken(config.transfer, trained)
            direction, _ = slower.update(direction, slower.init(trained))
        params = jax.tree.map(lambda p, d: p - rate * d, trained, direction) | fixed
        sums = {name: state.sums[name] + jnp.sum(parts[name]) for name in METRICS}
        average = ()
        if config.train.average:
            weight = averaging_weight(config.train, step, total)
            average = optax.incremental_update((params, stats), state.average, weight)
        return TrainState(params, opt_state, sums, state.diverged, stats, average)

    def stays() -> TrainState:
        return state._replace(diverged=jnp.where(state.diverged < 0, step, state.diverged))

    # A choice between the two states' numbers instead would cost a CPU another pass over some of them.
    return jax.lax.cond(finite, moves, stays)


def train_steps(
    config: Config,
    seed: Int[Array, ""],
    state: TrainState,
    examples: Examples,
    order: Int[Array, "images"],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    *,
    classes: int,
    total: int,
) -> TrainState:
    """Steps `start` to `stop`, all of one epoch and in its `order` of the examples, as one loop on the device.

    The loop's bounds are arguments of the program, so chunks of any length share one compilation and, as no step
    knows where its chunk began, lead to the same state to the bit.
    """
    size = config.train.batch_size
    steps = steps_per_epoch(config, examples)
    begins = (start % steps == 0) & (state.diverged < 0)
    state = state._replace(sums={name: jnp.where(begins, 0, value) for name, value in state.sums.items()})

    def body(step: Array, state: TrainState) -> TrainState:
        indices = jax.lax.dynamic_slice(order, (step % steps * size,), (size,))
        return train_step(config, seed, state, take(examples, indices), step, classes=classes, total=total)

    return jax.lax.fori_loop(start, stop, body, state)


def orders(examples: Examples, *, across: str) -> Callable[[Int[Array, "runs"], int], Int[Array, "runs images"]]:
    """The program that gives each seed's order of the examples in an epoch. Sorting takes long, so it runs once."""

    def order(seed: Array, epoch: Array) -> Array:
        return jax.random.permutation(jax.random.fold_in(_key(seed, "order"), epoch), examples.labels.shape[0])

    return jax.jit(over_runs(order, (0, None), across=across))


def steps_per_epoch(config: Config, examples: Examples) -> int:
    """Whole batches in a pass; the order is new in every epoch, so the odd images left out change."""
    return examples.labels.shape[0] // config.train.batch_size


def fit(
    configs: list[Config],
    seeds: list[int],
    data: Dataset,
    *,
    across: str,
    chunk_seconds: float = 2.0,
    start: tuple[int, TrainState, list[dict[str, Any]]] | None = None,
) -> Iterator[Progress]:
    """Train runs of one structure side by side, epoch after epoch.

    A pure function of its arguments that hands out its progress: every few seconds it yields, and whoever consumes it
    may save, report, or stop asking.

    Args:
        configs: one config a run, all of the same structure.
        seeds: one seed a run.
        data: train and validation are used, test is not looked at.
        across: "vmap" or "map".
        chunk_seconds: how long the device is left to itself, about (see `next_chunk`).
        start: (step, states, history) to go on from; None starts anew.

    Yields:
        `Progress` after every chunk; the last has step = total.
    """
    config, stacked, seed_array = configs[0], stack(configs), jnp.asarray(seeds)
    steps = steps_per_epoch(config, data.train)
    total = steps * config.train.epochs
    train, validation = jax.device_put((data.train, data.validation))
    step, states, history = start or (0, initial_states(configs, seeds, data, across=across), [])
    states = jax.device_put(states)
    if step == total:
        yield Progress(step, total, states, history, math.nan, 0.0)
        return

    program, compile_seconds = compile_steps(
        stacked, seed_array, states, train, classes=data.classes, total=total, across=across
    )
    shuffled = orders(train, across=across)
    order = shuffled(seed_array, step // steps)  # of the epoch to go on with; compiled here, before the clock starts
    validate = judge(data.classes, across)
    looked_at = probed(validation)

    chunk, done, busy = 1, 0, 0.0  # the next chunk's steps; this epoch's steps and seconds in this process
    while step < total:
        end = min(step + chunk, (step // steps + 1) * steps)
        clock = time.perf_counter()
        if step % steps == 0:
            order = shuffled(seed_array, step // steps)
        states = program(stacked, seed_array, states, train, order, np.int32(step), np.int32(end))
        jax.block_until_ready(states)
        seconds = time.perf_counter() - clock
        done, busy = done + end - step, busy + seconds
        rate = len(configs) * config.train.batch_size * done / busy
        chunk = next_chunk(end - step, seconds, chunk_seconds)
        step = end
        if step % steps == 0:
            metrics = {f"train_{n}": v for n, v in means(states.sums, steps * config.train.batch_size).items()}
            held_out = validate(stacked, *states.judged, validation, looked_at)
            metrics |= {f"validation_{n}": v for n, v in held_out.items()}
            row = {n: plain(jnp.where(states.diverged < 0, values, jnp.nan)) for n, values in metrics.items()}
            history = [*history, {"epoch": step // steps, "images_per_second": rate} | row]
            done, busy = 0, 0.0
        yield Progress(step, total, states, history, rate, compile_seconds)


def next_chunk(steps: int, seconds: float, chunk_seconds: float) -> int:
    """Steps to leave the device to itself for, when the last `steps` took `seconds`.

    As many as take `chunk_seconds`, and if these are few, up to eight in up to five times as long: a program's memory
    is new to it in its first step, which costs a CPU a quarter of a conv net's.
    """
    fitting = chunk_seconds * steps / seconds
    return max(1, round(fitting), min(8, round(5 * fitting)))


def compile_steps(
    configs: Config,
    seeds: Int[Array, "runs"],
    states: TrainState,
    examples: Examples,
    *,
    classes: int,
    total: int,
    across: str,
) -> tuple[Callable[..., TrainState], float]:
    """`train_steps` of stacked runs, compiled for such arguments; the states are donated. And the seconds it took."""
    axes = (0, 0, 0, None, 0, None, None)
    steps = over_runs(partial(train_steps, classes=classes, total=total), axes, across=across)
    order, bound = jnp.zeros((len(seeds), len(examples.labels)), jnp.int32), np.int32(0)
    return compile_now(steps, configs, seeds, states, examples, order, bound, bound, donate=(2,))


def initial_states(configs: list[Config], seeds: list[int], data: Dataset, *, across: str) -> TrainState:
    """The stacked states before the first step."""
    init = partial(init_state, image_shape=data.image_shape, classes=data.classes)
    return jax.jit(over_runs(init, (0, 0), across=across))(stack(configs), jnp.asarray(seeds))


def abstract_states(configs: list[Config], seeds: list[int], data: Dataset) -> TrainState:
    """Shapes and types of `initial_states`, computed without running anything.

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    return jax.eval_shape(partial(initial_states, configs, seeds, data, across="vmap"))


def _key(seed: Int[Array, ""], purpose: str) -> Array:
    """The run's key for one purpose, so that no two purposes share random numbers."""
    return jax.random.fold_in(jax.random.key(seed), ("init", "order", "steps").index(purpose))
