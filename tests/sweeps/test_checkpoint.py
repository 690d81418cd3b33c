import logging
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from capsnet_jax.sweeps import checkpoint
from capsnet_jax.sweeps.checkpoint import CheckpointError, load_params, restore, save, save_params


class Counters(NamedTuple):
    step: jax.Array
    done: jax.Array


@flax.struct.dataclass
class State:
    params: dict
    optimizer: optax.OptState
    counters: Counters
    others: list


def from_bits(bits: list[int], dtype: str) -> jax.Array:
    words = np.array(bits, f"uint{jnp.dtype(dtype).itemsize * 8}")
    return jax.device_put(words.view(jnp.dtype(dtype)))


def make_state() -> State:
    key = jax.random.key(0)
    params = {
        "conv": {"kernel": jax.random.normal(key, (3, 3, 1, 8)), "bias": jnp.zeros(8)},
        "a/b.c": jnp.full((2, 3), 0.1),
    }
    optimizer = optax.adam(optax.exponential_decay(1e-3, 2000, 0.96))
    gradients = jax.tree.map(lambda p: p * 0.3, params)
    _, optimizer_state = optimizer.update(gradients, optimizer.init(params))
    others = [
        jax.random.key_data(key),
        # -0, quiet and signalling NaN with payloads, both infinities, the smallest and largest subnormal
        from_bits([0x80000000, 0x7FC01234, 0xFF812345, 0x7F800000, 0xFF800000, 1, 0x807FFFFF], "float32"),
        from_bits([0x80000000] * 4, "float32"),
        from_bits([0x8000, 0x7E12, 0xFD01, 1], "float16"),
        from_bits([0x8000, 0x7FC1, 0xFF83, 1], "bfloat16"),
        jnp.array([-(2**31), 2**31 - 1], jnp.int32),
        jnp.array([0, 2**32 - 1], jnp.uint32),
        jnp.arange(256, dtype=jnp.uint8),
        jnp.array([[True], [False]]),
        (jnp.float32(-0.0), jnp.int32(-7), jnp.uint32(2**32 - 1), jnp.bool_(True), None),
    ]
    return State(params, optimizer_state, Counters(jnp.int32(5), jnp.bool_(False)), others)


def bits(tree) -> list:
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def small(step: int) -> dict:
    return {"w": jnp.full((64, 64), step, jnp.float32), "step": jnp.int32(step)}


@pytest.fixture
def two(tmp_path) -> Path:
    """A folder with checkpoints of steps 1 and 2."""
    for step in (1, 2):
        save(tmp_path, step, small(step), [{"epoch": i} for i in range(step)])
    return tmp_path


@pytest.mark.parametrize("abstract", [True, False])
def test_round_trip_is_equal_to_the_bit(tmp_path, abstract):
    state = make_state()
    history = [
        {"loss": 0.1 + 0.2, "error": float("nan"), "name": "é", "none": None},
        {"loss": -0.0, "x": [5e-324, float("inf"), -float("inf"), 1.7976931348623157e308, 1 / 3]},
    ]
    save(tmp_path / "made/where missing", 5, state, history)
    like = jax.eval_shape(lambda: state) if abstract else jax.tree.map(jnp.zeros_like, state)
    restored = restore(tmp_path / "made/where missing", like)
    assert restored.step == 5
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(restored.state))
    assert bits(restored.state) == bits(state)
    assert repr(restored.history) == repr(history)
    assert struct.pack("<d", restored.history[0]["loss"]) == struct.pack("<d", 0.1 + 0.2)


def test_restored_arrays_can_be_donated(two):
    restored = restore(two, small(0)).state
    after = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(restored)
    assert bits(after) == bits(small(3))
    assert bits(restore(two, small(0)).state) == bits(small(2))


def test_nothing_there(tmp_path):
    assert restore(tmp_path / "missing", small(0)) is None
    (tmp_path / "notes").mkdir()
    assert restore(tmp_path, small(0)) is None


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("run"), 0, small(0), [])
    assert restore(Path("run"), small(0)).step == 0


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_remain(tmp_path, keep):
    for step in (1, 2, 9, 10):
        save(tmp_path, step, small(step), [], keep=keep)
    assert names(tmp_path) == sorted(["10", "9", "2"][:keep])
    assert restore(tmp_path, small(0)).step == 10


def test_temporary_folders_of_killed_saves_are_removed(two):
    for name in (".7.ab.partial", ".7.ab.partial.orbax-checkpoint-tmp", ".params.replaced.partial"):
        (two / name / "state").mkdir(parents=True)
    assert restore(two, small(0)).step == 2
    save(two, 3, small(3), [])
    assert names(two) == ["2", "3"]


def damage_truncate(folder: Path):
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def damage_empty(folder: Path):
    os.truncate(largest(folder), 0)


def damage_delete(folder: Path):
    largest(folder).unlink()


def damage_one_bit(folder: Path):
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 1
    largest(folder).write_bytes(data)


def damage_history(folder: Path):
    file = folder / "history/metadata"
    file.write_text(file.read_text().replace("0", "5"))


def damage_digests(folder: Path):
    os.truncate(folder / checkpoint.DIGESTS, 40)


def damage_no_digests(folder: Path):
    (folder / checkpoint.DIGESTS).unlink()


def damage_stray_file(folder: Path):
    (folder / "state/d/stray").write_text("x")


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_passed_over_with_one_line(two, damage, caplog):
    damage(two / "2")
    with caplog.at_level(logging.WARNING):
        restored = restore(two, small(0))
    assert restored.step == 1
    assert restored.history == [{"epoch": 0}]
    assert bits(restored.state) == bits(small(1))
    [message] = caplog.messages
    assert message.startswith(f"checkpoint {two / '2'} is damaged (")
    assert "\n" not in message


def test_damaged_checkpoints_give_way_to_new_ones(two):
    save(two, 9, small(9), [])
    damage_delete(two / "9")
    assert restore(two, small(0)).step == 2
    save(two, 3, small(3), [])
    assert names(two) == ["2", "3"]
    damage_delete(two / "3")
    save(two, 3, small(3), [])  # the same step once more
    assert restore(two, small(0)).step == 3
    damage_delete(two / "2")
    damage_delete(two / "3")
    assert restore(two, small(0)) is None


@pytest.mark.parametrize(
    ("like", "text"),
    [
        (
            {"w": jnp.zeros((64, 32)), "step": jnp.int32(0)},
            "['w'] is float32[64, 64] there, float32[64, 32] here",
        ),
        ({"w": jnp.zeros((64, 64)), "step": jnp.uint32(0)}, "['step'] is int32[] there, uint32[] here"),
        ({"v": jnp.zeros((64, 64)), "step": jnp.int32(0)}, "['v'] is nothing there, float32[64, 64] here"),
        ({"step": jnp.int32(0)}, "['w'] is float32[64, 64] there, nothing here"),
    ],
)
def test_checkpoint_of_another_tree_is_an_error(two, like, text):
    with pytest.raises(CheckpointError) as error:
        restore(two, like)
    assert str(error.value) == f"{two / '2'} is of another model or setting: {text}; use another workdir"


def test_failing_writer_leaves_the_last_good_one(two, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in two.rglob("*") if path.is_file()}
    for owner, name in ((ocp.Checkpointer, "save"), (checkpoint, "_flush"), (Path, "rename")):
        for step in (2, 3):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(
                    CheckpointError, match=rf"{step} was not saved \(.*No space left on device.*make room"
                ):
                    save(two, step, small(step), [])
    assert names(two) == ["1", "2"]
    assert {path: path.read_bytes() for path in two.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # TensorStore's, after the error
@pytest.mark.parametrize("limit", [0, 100, 2000])
def test_file_system_that_refuses_leaves_the_last_good_one(two, limit):
    """Real failing writes, down in Orbax's C++: no file may grow beyond `limit` bytes."""
    noise = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "step": jnp.int32(3)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            save(two, 3, noise, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert [name for name in names(two) if not name.startswith(".")] == ["1", "2"]
    assert bits(restore(two, small(0)).state) == bits(small(2))


def test_full_disk_is_one_line_before_anything_is_written(two, monkeypatch, capfd):
    left_by_kill = two / ".7.0a1b2c3d.partial"
    left_by_kill.mkdir()
    usage = shutil.disk_usage(two)

    def nearly_full(_folder):
        assert not left_by_kill.exists()  # it gave its room back first
        return usage._replace(free=3 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(CheckpointError) as error:
        save(two, 3, {"w": jnp.zeros(2**20)}, [])
    assert str(error.value) == (
        f"{two / '3'} was not saved (4 MiB to write, 3 MiB free): what was saved before is untouched; "
        "make room or make the folder writable, then run the same command again"
    )
    assert names(two) == ["1", "2"]
    assert capfd.readouterr() == ("", "")


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="was not saved"):
        save(tmp_path / "file", 1, small(1), [])
    assert (tmp_path / "file").read_text() == "mine"


def test_params_are_whole_or_absent(tmp_path, monkeypatch):
    folder = tmp_path / "run/params"
    params = make_state().params
    with pytest.raises(CheckpointError, match="holds no whole parameters"):
        load_params(folder, params)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_digests", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_params(folder, params)
    assert names(tmp_path / "run") == []
    save_params(folder, jax.tree.map(jnp.zeros_like, params))
    save_params(folder, params)
    assert names(tmp_path / "run") == ["params"]
    assert bits(load_params(folder, jax.eval_shape(lambda: params))) == bits(params)
    with pytest.raises(CheckpointError, match=r"\['conv'\]\['kernel'\] is float32\[3, 3, 1, 8\] there, nothing here"):
        load_params(folder, {"a/b.c": params["a/b.c"], "conv": {"bias": params["conv"]["bias"]}})
    damage_truncate(folder)
    with pytest.raises(CheckpointError, match="run the training again"):
        load_params(folder, params)


VICTIM = """
import itertools, os, pathlib, shutil, signal, sys
import numpy as np
from capsnet_jax.sweeps import checkpoint

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
state = lambda step: {"w": np.full((300, 300), step, np.float32), "step": np.int32(step)}
print("ready", flush=True)
found = checkpoint.restore(folder, state(0))
step = found.step if found else 0
if moment != "any":
    checkpoint._remove_partial(folder)
    owner = {"fsync": os, "rename": pathlib.Path, "rmtree": shutil}[moment]
    setattr(owner, moment, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
for step in itertools.count(step + 1):
    checkpoint.save(folder, step, state(step), [{"epoch": i, "loss": i / 7} for i in range(step)])
"""


def killed(folder: Path, moment: str, delay: float) -> None:
    command = [sys.executable, "-c", VICTIM, folder, moment]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "ready\n"
        if moment == "any":
            time.sleep(delay)
            process.kill()
    assert process.returncode == -signal.SIGKILL


def test_killed_at_any_moment(tmp_path):
    generator = random.Random(0)
    moments = [("any", generator.uniform(0.2, 0.6)) for _ in range(7)]
    moments[3:3] = [("fsync", 0.0), ("rename", 0.0), ("rmtree", 0.0)]
    interrupted_saves = last = 0
    for moment, delay in moments:
        killed(tmp_path, moment, delay)
        interrupted_saves += any(name.startswith(".") for name in names(tmp_path))
        restored = restore(tmp_path, {"w": jnp.zeros((300, 300)), "step": jnp.int32(0)})
        step = restored.step if restored else 0
        if restored:
            assert np.all(restored.state["w"] == step)
            assert restored.state["step"] == step
            assert restored.history == [{"epoch": i, "loss": i / 7} for i in range(step)]
        assert step >= last
        last = step
    assert last > 3
    assert interrupted_saves >= 3
    save(tmp_path, last + 1, small(0), [])
    assert names(tmp_path) == sorted([str(last), str(last + 1)])


def test_orbax_is_quiet_and_leaves_nothing_running(tmp_path):
    code = """
import pathlib, sys
from absl import logging
import numpy as np
from capsnet_jax.sweeps import checkpoint
logging.use_absl_handler()
logging.set_verbosity(logging.DEBUG)
state = {"w": np.zeros(3, np.float32)}
checkpoint.save(pathlib.Path(sys.argv[1]), 1, state, [])
assert checkpoint.restore(pathlib.Path(sys.argv[1]), state).step == 1
assert logging.get_verbosity() == logging.DEBUG
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)
    lines = [line for line in done.stderr.splitlines() if "orbax" in line.lower() or "heckpoint" in line]
    assert (done.returncode, done.stdout, lines) == (0, "", [])


def test_a_full_size_state_saves_in_seconds(tmp_path):
    keys = jax.random.split(jax.random.key(0), 3)
    state = {str(i): jax.random.normal(key, (6_804_224,)) for i, key in enumerate(keys)}
    start = time.perf_counter()
    save(tmp_path, 1, state, [])
    assert time.perf_counter() - start < 5
    assert bits(restore(tmp_path, state).state) == bits(state)


def test_history_that_is_not_json_is_the_callers_mistake(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path, 1, small(1), [{"loss": jnp.float32(1)}])
    assert names(tmp_path) == []
