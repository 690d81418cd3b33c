"""The loop around steps: runs of one structure trained side by side, in one compiled program.

They are stacked along a leading axis `runs`: `parallel="vmap"` batches every operation over them, `parallel="map"`
takes them in turn inside the program, which a CPU prefers.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from capsnet_jax.config import Config
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.training.evaluation import ObserveFn, make_evaluator, mean_metrics, observed_subset, to_floats
from capsnet_jax.training.hosts import ALONE, Hosts
from capsnet_jax.training.limits import working_memory
from capsnet_jax.training.order import epoch_order
from capsnet_jax.training.parallel import place, stack
from capsnet_jax.training.program import Program
from capsnet_jax.training.step import TrainState, init_state, steps_per_epoch, train_steps


class FitProgress(NamedTuple):
    """Where a fit stands after a chunk of steps.

    Attributes:
        step: steps done.
        total: steps to do.
        states: the runs' `TrainState`, stacked; valid until the next chunk is asked for.
        history: a dictionary for every finished epoch: {"epoch", "images_per_second", each metric: one value a run}.
        images_per_second: of all runs together, in this epoch and process, compilation and evaluation left out.
        compile_seconds: time that compiling the training program took.
        training_seconds: of all chunks in this process; neither compilation nor evaluation is in them.
        evaluation_seconds: of all evaluations in this process, compilation left out.
        memory: bytes that the training program works in beside its arguments and results; nan where it is not told.
    """

    step: int
    total: int
    states: TrainState
    history: list[dict[str, Any]]
    images_per_second: float
    compile_seconds: float
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    memory: float = math.nan


def fit(
    configs: list[Config],
    seeds: list[int],
    data: Dataset,
    *,
    parallel: str,
    mesh: Mesh | None = None,
    chunk_seconds: float = 2.0,
    start: tuple[int, TrainState, list[dict[str, Any]]] | None = None,
    observe_fn: ObserveFn | None = None,
    test_each_epoch: bool = False,
    hosts: Hosts = ALONE,
) -> Iterator[FitProgress]:
    """Train runs of one structure side by side, epoch after epoch.

    A pure function of its arguments that hands out its progress: every few seconds it yields, and whoever consumes it
    may save, report, or stop asking.

    Args:
        configs: one config a run, all of the same structure.
        seeds: one seed a run.
        data: train and validation are used; test is not looked at, unless `test_each_epoch`.
        parallel: "vmap" or "map".
        mesh: of devices (see `make_mesh`); None: one device.
        chunk_seconds: about how long a chunk of steps takes (see `next_chunk`).
        start: (step, states, history) to go on from; None starts anew.
        observe_fn: what to observe after each epoch beside the metrics; see `make_evaluator`.
        test_each_epoch: whether the history also has each epoch's error on the test set, "test_error_at_epoch"; nothing
          here goes by it.
        hosts: the processes that have the mesh's devices; each of them calls this, with the same arguments.

    Yields:
        `FitProgress` after every chunk; the last has step = total. Whichever process: its metrics, sums and `diverged`
        are of all runs, but `hosts.gather` alone brings together the other states.
    """
    config, stacked, seed_array = configs[0], stack(configs), jnp.asarray(seeds)
    steps = steps_per_epoch(config, data.train)
    total = steps * config.train.epochs
    train, validation = place((data.train, data.validation), mesh)
    step, states, history = start or (0, initial_states(configs, seeds, data, parallel=parallel, mesh=mesh), [])
    states = place(states, mesh, per_run=True)
    if step == total:
        yield FitProgress(step, total, _visible(states, hosts), history, math.nan, 0.0, 0.0, 0.0)
        return

    program, memory, compile_seconds = compile_steps(
        stacked, seed_array, states, train, classes=data.classes, total=total, parallel=parallel, mesh=mesh
    )
    order_of = epoch_order(config.data, len(train.labels), parallel=parallel, mesh=mesh)
    order = order_of(seed_array, step // steps)  # of the epoch to go on with; compiled here, before the clock starts
    evaluate: Any = None  # compiled at the end of the first epoch, so that a stop before it need not wait for it
    observed = place(observed_subset(data.validation), mesh)
    test: Any = place(data.test, mesh) if test_each_epoch else None
    evaluate_test = make_evaluator(data.classes, parallel, mesh)

    chunk, done, busy = 1, 0, 0.0  # the next chunk's steps; this epoch's steps and seconds in this process
    training_seconds = evaluation_seconds = 0.0
    while step < total:
        end = min(step + chunk, (step // steps + 1) * steps)
        clock = time.perf_counter()
        if step % steps == 0:
            order = order_of(seed_array, step // steps)
        states = program(stacked, seed_array, states, train, order, np.int32(step), np.int32(end))
        jax.block_until_ready(states)
        seconds = time.perf_counter() - clock
        done, busy, training_seconds = done + end - step, busy + seconds, training_seconds + seconds
        speed = len(configs) * config.train.batch_size * done / busy
        chunk = hosts.agree(next_chunk(end - step, seconds, chunk_seconds))
        visible = _visible(states, hosts)
        step = end
        if step % steps == 0:
            means = mean_metrics(visible.sums, steps * config.train.batch_size)
            metrics = {f"train_{name}": values for name, values in means.items()}
            examined = (stacked, *states.eval_params, validation, observed, np.float32(step / total))
            if evaluate is None:
                evaluate = make_evaluator(data.classes, parallel, mesh, observe_fn)
                evaluate.compile(*examined)
            clock = time.perf_counter()
            evaluated = hosts.everywhere(evaluate(*examined)[0])
            metrics |= {f"validation_{name}": values for name, values in evaluated.items()}
            if test_each_epoch:
                tested = hosts.everywhere(evaluate_test(stacked, *states.eval_params, test, test, examined[-1])[0])
                metrics["test_error_at_epoch"] = tested["error"]
            row = {n: to_floats(jnp.where(visible.diverged < 0, values, jnp.nan)) for n, values in metrics.items()}
            evaluation_seconds += time.perf_counter() - clock
            history = [*history, {"epoch": step // steps, "images_per_second": speed} | row]
            done, busy = 0, 0.0
        yield FitProgress(
            step, total, visible, history, speed, compile_seconds, training_seconds, evaluation_seconds, memory
        )


def _visible(states: TrainState, hosts: Hosts) -> TrainState:
    """Return states whose few numbers, sums and `diverged`, each process has of all runs."""
    sums, diverged = hosts.everywhere((states.sums, states.diverged))
    return states._replace(sums=sums, diverged=diverged)


def next_chunk(steps: int, seconds: float, chunk_seconds: float) -> int:
    """Return how many steps the next chunk has, when the last `steps` took `seconds`.

    As many as take `chunk_seconds`. If these are few, up to eight steps that take up to five times as long. The first
    step of a chunk gets new memory, which costs a CPU a quarter of a conv net's step.
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
    parallel: str,
    mesh: Mesh | None = None,
) -> tuple[Program, float, float]:
    """Compile `train_steps` of stacked runs.

    Returns:
        The program, to which states are donated; the bytes that it works in on each device; and the seconds taken.
    """
    steps, axes = partial(train_steps, classes=classes, total=total), (0, 0, 0, None, 0, None, None)
    program = Program(steps, axes, parallel=parallel, mesh=mesh, donate=(2,))
    order, bound = jnp.zeros((len(seeds), len(examples.labels)), jnp.int32), np.int32(0)
    compiled, seconds = program.compile(configs, seeds, states, examples, order, bound, bound)
    return program, working_memory(compiled), seconds


def initial_states(
    configs: list[Config], seeds: list[int], data: Dataset, *, parallel: str, mesh: Mesh | None = None
) -> TrainState:
    """Draw the stacked states before the first step."""
    return Program(_init(data), (0, 0), parallel=parallel, mesh=mesh, once=True)(stack(configs), jnp.asarray(seeds))


def abstract_states(configs: list[Config], seeds: list[int], data: Dataset) -> TrainState:
    """Return shapes and types of `initial_states`, without running anything.

    Raises:
        ValueError: the images are too small for the model's kernels.
    """
    return jax.eval_shape(jax.vmap(_init(data)), stack(configs), jnp.asarray(seeds))


def _init(data: Dataset) -> Callable[..., TrainState]:
    return partial(init_state, image_shape=data.image_shape, classes=data.classes)
