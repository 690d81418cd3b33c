"""Sizes by hand: an array of 2²⁸ float32 is 1.07 GB."""

import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.training import limits
from capsnet_jax.training.compile import aot_compile
from capsnet_jax.training.limits import OutOfMemoryError, check_limits, told_as_out_of_memory

EXAMPLES = Examples(np.zeros((1000, 1, 1, 1), np.uint8), np.zeros(1000, np.int32))
DATA = Dataset("mine", ("0",) * 10, EXAMPLES, EXAMPLES, EXAMPLES)
PARAMS = {"layer": {"kernel": jax.ShapeDtypeStruct((2**14, 2**14), jnp.float32)}}  # 1.074 GB


@pytest.fixture
def free(monkeypatch):
    def have(count):
        monkeypatch.setattr(limits, "free_memory", lambda: float(count))

    have(math.inf)
    return have


def test_steps_that_int32_does_not_count(free):
    """1000 images in batches of 100 are 10 steps an epoch, and 2³¹ − 1 = 2,147,483,647."""
    most = overrides.build({"train.batch_size": 100, "train.epochs": 214_748_364})
    check_limits(most, 1, DATA, PARAMS)
    with pytest.raises(ConfigError, match=r"^train\.epochs=214748365 of 10 steps .* lower it to at most 214748364$"):
        check_limits(overrides.override(most, {"train.epochs": 214_748_365}), 1, DATA, PARAMS)
    with pytest.raises(ConfigError, match=r"^train\.batch_size=1001 is more than the 1000 training images of mine;"):
        check_limits(overrides.override(most, {"train.batch_size": 1001}), 1, DATA, PARAMS)


def test_more_parameters_than_memory(free):
    """Parameters, two moments and a gradient are 4.295 GB for one run, and 3.221 GB more for each other."""
    settings = overrides.build({})
    free(4.30e9)
    check_limits(settings, 1, DATA, PARAMS)
    with pytest.raises(OutOfMemoryError, match=r"^2 × capsnet_small needs 7\.5 GB .* 4\.3 GB are free; train fewer"):
        check_limits(settings, 2, DATA, PARAMS)
    free(4.29e9)
    with pytest.raises(OutOfMemoryError, match=r"^1 × .* needs 4\.3 GB .*; lower model\.channels, model\.kernel, "):
        check_limits(settings, 1, DATA, PARAMS)
    with pytest.raises(OutOfMemoryError, match=r"needs 5\.4 GB .*; take a smaller model\.name$"):
        check_limits(overrides.build({"model.name": "vgg_a", "train.ema_epochs": 1}), 1, DATA, PARAMS)


def test_what_has_no_moments_or_no_gradient_needs_less(free):
    """SGD keeps the parameters and a gradient, 2.147 GB; a frozen layer has neither moments nor a gradient."""
    free(2.14e9)
    for changes, needed in (({"train.optimizer": "sgd"}, "2.1"), ({"train.frozen": "layer"}, None), ({}, "4.3")):
        settings = overrides.build(changes)
        if needed is None:
            check_limits(settings, 1, DATA, PARAMS)
            continue
        with pytest.raises(OutOfMemoryError, match=rf"needs {needed} GB "):
            check_limits(settings, 1, DATA, PARAMS)


def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch):
    """What is cached is given back when memory is asked for."""
    monkeypatch.setattr(limits, "CONTAINER", tmp_path)
    monkeypatch.setattr(limits.jax, "local_devices", lambda: [SimpleNamespace(memory_stats=lambda: None)])
    stat = "anon 1800\ninactive_file 700\nactive_file 90\nslab_reclaimable 8\n"
    for name, text in {"max": "5000\n", "current": "3000\n", "stat": stat}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert limits.free_memory() == 2798
    (tmp_path / "memory.max").write_text("max\n")
    assert limits.free_memory() > 2700


def test_a_program_that_needs_more_than_there_is(free):
    """The outer product of 1000 numbers, 4 MB, is made before it is multiplied with itself."""

    def product(x):
        outer = jnp.outer(x, jnp.sin(x))
        return jnp.sum(jnp.sin(outer @ outer))

    aot_compile(product, jnp.ones(1000))
    free(3.9e6)
    with pytest.raises(OutOfMemoryError, match=r"GB to work in, but 0\.0 GB are free; lower train\.batch_size"):
        aot_compile(product, jnp.ones(1000))


def test_failed_allocations_are_told_in_one_line():
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jnp.zeros(2**46, jnp.int8).block_until_ready()  # 70 TB
    told = str(told_as_out_of_memory(raised.value))
    assert told.startswith(f"RESOURCE_EXHAUSTED: Out of memory allocating {2**46} bytes")
    assert "lower train.batch_size" in told
    assert "\n" not in told
    assert str(told_as_out_of_memory(MemoryError())).startswith("out of memory, but ")
    assert told_as_out_of_memory(ValueError("RESOURCE_EXHAUSTED")) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="where Linux tells")
def test_what_is_free_is_less_than_what_there_is():
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < limits.free_memory() <= total + 2**40
