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
    environment.drop_jax_settings()
    assert sorted(os.environ) == sorted(kept)


def test_a_platform_that_is_not_there_is_named(monkeypatch):
    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda':\nno such device (set JAX_PLATFORMS='' to …)")

    monkeypatch.setattr("jax.devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ConfigError) as raised:
        environment.check_devices()
    assert str(raised.value) == (
        "JAX finds no device for JAX_PLATFORMS='cuda' (Unable to initialize backend 'cuda':); unset it, or say cpu"
    )
