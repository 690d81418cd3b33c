"""Whether a training fits into what programs count in, and into the machine's memory: asked before it starts."""

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax

from capsnet_jax import models
from capsnet_jax.config import INT32, Config, ConfigError
from capsnet_jax.data import Dataset
from capsnet_jax.training.finetune import split_frozen
from capsnet_jax.training.optimizer import gradient_transform
from capsnet_jax.training.step import steps_per_epoch

CONTAINER = Path("/sys/fs/cgroup")  # where Linux tells a container's limits
CACHED = ("inactive_file", "active_file", "slab_reclaimable")  # is used, and given back when memory is asked for


class OutOfMemoryError(Exception):
    """More memory is needed than there is: one line with what needs how much, and the setting that lowers it."""


def check_limits(config: Config, runs: int, dataset: Dataset, params: dict[str, Any]) -> None:
    """Look whether runs of one structure can be trained side by side.

    Args:
        config: of one of them.
        runs: how many there are.
        dataset: what they are trained on.
        params: the shapes of one run's parameters.

    Raises:
        ConfigError: a batch larger than the training set, or more steps than int32 counts.
        OutOfMemoryError: more parameters than the machine has memory for.
    """
    train, steps = config.train, steps_per_epoch(config, dataset.train)
    if steps == 0:
        images = len(dataset.train.labels)
        raise ConfigError(
            f"train.batch_size={train.batch_size} is more than the {images} training images of {dataset.name}; lower it"
        )
    if steps * train.epochs > INT32[1]:
        raise ConfigError(
            f"train.epochs={train.epochs} of {steps:,} steps are more than {INT32[1]:,} steps, which programs count;"
            f" lower it to at most {INT32[1] // steps}"
        )
    # Parameters, the optimizer's moments, a mean if it is asked for; and the gradient, of one run at least.
    trained, _ = split_frozen(params, train.frozen)
    optimizer = gradient_transform(train, models.MODELS[config.model.name].head_layers)
    moments = jax.eval_shape(optimizer.init, trained)
    one = _bytes(params) * (2 if train.ema_epochs else 1) + _bytes(moments)
    needed, free = runs * one + _bytes(trained), free_memory()
    if needed > free:
        name, settings = config.model.name, config.model.settings
        sizes = [f"model.{f.name}" for f in dataclasses.fields(settings) if f.type in (int, tuple[int, ...])]
        remedy = f"lower {', '.join(sizes)}" if sizes else "take a smaller model.name"
        if one + _bytes(trained) <= free:
            remedy = "train fewer at once: lower --seeds, or sweep fewer values"
        raise OutOfMemoryError(
            f"{runs} × {name} needs {_size(needed)} for parameters, gradient and the optimizer's moments,"
            f" but {_size(free)} are free; {remedy}"
        )


def check_program(program: jax.stages.Compiled) -> None:
    """Look whether a compiled program's memory beside its arguments is free.

    Raises:
        OutOfMemoryError: it is not.
    """
    stats = program.memory_analysis()
    if stats is None:  # not every platform tells
        return
    needed, free = stats.temp_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes, free_memory()
    if needed > free:
        raise OutOfMemoryError(
            f"the compiled program needs {_size(needed)} to work in, but {_size(free)} are free;"
            " lower train.batch_size or the model's sizes, or take --across=map"
        )


def working_memory(program: jax.stages.Compiled) -> float:
    """Return the bytes that a compiled program works in beside its arguments and results; nan if it does not tell."""
    stats = program.memory_analysis()
    return math.nan if stats is None else float(stats.temp_size_in_bytes)


def told_as_out_of_memory(error: BaseException) -> OutOfMemoryError | None:
    """Return what a failed allocation was, in one line; None for any other error."""
    exhausted = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    if not (exhausted or isinstance(error, MemoryError)):
        return None
    reason = " ".join((str(error).strip() or "out of memory").split("\n")[0].split())
    return OutOfMemoryError(
        f"{reason}, but {_size(free_memory())} are free; lower train.batch_size, the model's sizes or --seeds"
    )


def free_memory() -> float:
    """Return the bytes that programs may still take, of the accelerator or the machine; infinity if none tells."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"] - stats["bytes_in_use"])
    free = [math.inf]
    with contextlib.suppress(OSError, KeyError, ValueError):
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free.append(1024 * sum(int(facts[name].split()[0]) for name in ("MemAvailable", "SwapFree")))
    with contextlib.suppress(OSError, KeyError, ValueError):  # "max" where a container has no limit of its own
        facts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
        limit, used = (int((CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used + sum(int(facts[name]) for name in CACHED))
    return float(min(free))


def _bytes(shapes: Any) -> int:
    """Return what arrays of these shapes take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _size(count: int | float) -> str:
    """Say a number of bytes."""
    return f"{count / 1e9:,.1f} GB"
