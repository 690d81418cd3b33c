"""Compiling is most of this folder's time, and what is tested does not hang on how fast the program is."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def compile_quickly():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
