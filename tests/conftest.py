"""All tests run with implicit rank promotion an error, and the numerical core's annotations checked at every call.

`capsnet_jax.config` is left out of the checking: it takes whole numbers for floats, which beartype does not.
"""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

# Compiling is most of what tests do. At this level XLA computes the same, in half the time for code as small as here.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import pytest
from jaxtyping import install_import_hook

# JAX 0.10's older way to write loops is compiled in half the time again, to the same but for rounding. Commands that
# tests start have the newer one, as users have.
NEWER_LOOPS = "xla_cpu_use_fusion_emitters"
HAS_OLDER = jax.__version__.startswith("0.10.")
if HAS_OLDER:  # read when the first program is compiled
    os.environ["XLA_FLAGS"] += f" --{NEWER_LOOPS}=false"

# A shell that starts tests in the background has SIGINT ignored, and nohup SIGHUP. Commands that tests start, and send
# signals to, would inherit that.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) == signal.SIG_IGN:
        signal.signal(_signal, signal.SIG_DFL)

gc.set_threshold(100_000)  # tracing makes many small objects that live: looking for rubbish often takes a tenth of it
jax.config.update("jax_numpy_rank_promotion", "raise")
ROOMS = ("data", "interpret", "losses", "models", "ops", "routing", "training")
CHECKED = [f"capsnet_jax.{room}" for room in ROOMS]
install_import_hook(CHECKED, "beartype.beartype")


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that all of the run's processes share; the one that makes it removes it."""
    if "CAPSNET_JAX_TESTS" not in os.environ:
        os.environ["CAPSNET_JAX_TESTS"] = tempfile.mkdtemp(prefix="capsnet_jax-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop("CAPSNET_JAX_TESTS")))


@pytest.fixture
def on_cpu() -> Iterator[None]:
    """For claims that are about the CPU alone, on whichever platform tests run."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.fixture
def as_compiled_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """For claims that different programs are equal to the bit, which the older loops do not keep."""
    compile_ = jax.stages.Lowered.compile
    if HAS_OLDER:
        monkeypatch.setattr(jax.stages.Lowered, "compile", lambda lowered: compile_(lowered, {NEWER_LOOPS: True}))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: gzip writes the time into its own, so workers would name one test differently."""
    return argname if isinstance(val, bytes) else None
