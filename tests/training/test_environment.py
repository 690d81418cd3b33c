import os

import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.training import environment


def test_only_what_changes_no_number_is_kept(monkeypatch):
    kept = [
        "JAX_PLATFORMS",
        "JAX_COMPILATION_CACHE_DIR",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "JAX_LOG_COMPILES",
    ]
    kept += ["JAX_CUDA_VISIBLE_DEVICES", "JAX_TRACEBACK_FILTERING", "XLA_FLAGS", "MY_JAX_ENABLE_X64"]
    dropped = [
        "JAX_ENABLE_X64",
        "JAX_DISABLE_JIT",
        "JAX_DEBUG_NANS",
        "JAX_DEFAULT_MATMUL_PRECISION",
        "JAX_DEFAULT_PRNG_IMPL",
    ]
    dropped += ["JAX_RANDOM_SEED_OFFSET", "JAX_NUMPY_RANK_PROMOTION", "JAX_THREEFRY_PARTITIONABLE", "JAX_OF_THE_FUTURE"]
    monkeypatch.setattr(os, "environ", dict.fromkeys([*kept, *dropped], "1"))
    assert environment.drop_jax_settings() == dropped
    assert sorted(os.environ) == sorted(kept)


@pytest.mark.parametrize("number", ["two", "0", "", "1.5"])
def test_a_number_of_devices_that_is_none_is_one_line(number, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", number)
    assert environment.mistake() == f"JAX_NUM_CPU_DEVICES={number} is no number from 1; change it, or unset it"
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    assert environment.mistake() is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError("Unable to initialize 'cuda'. (set JAX_PLATFORMS='' to choose)\nmore"),
            " (Unable to initialize 'cuda'.)",
        ),
        (AssertionError(), ""),
    ],
)
def test_a_platform_that_is_not_there_is_named(error, reason, monkeypatch):
    def fail():
        raise error

    monkeypatch.setattr("jax.local_devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ConfigError) as raised:
        environment.find_devices()
    assert str(raised.value) == f"JAX finds no device for JAX_PLATFORMS='cuda'{reason}; unset it, or say cpu"


def test_no_more_devices_are_used_than_there_are():
    [device] = environment.find_devices(1)
    assert (device,) == environment.find_devices()
    with pytest.raises(
        ConfigError, match=r"^--devices=2: JAX finds only 1 \(cpu\); JAX_NUM_CPU_DEVICES=N makes N of a CPU$"
    ):
        environment.find_devices(2)
