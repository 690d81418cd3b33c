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
import pytest
import safetensors.numpy

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
    unsigned = np.array(bits, f"uint{jnp.dtype(dtype).itemsize * 8}")
    return jax.device_put(unsigned.view(jnp.dtype(dtype)))


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
        jnp.zeros((0, 3)),
        (jnp.float32(-0.0), jnp.int32(-7), jnp.uint32(2**32 - 1), jnp.bool_(True), None, (), {}),
    ]
    return State(params, optimizer_state, Counters(jnp.int32(5), jnp.bool_(False)), others)


def bits(tree) -> list:
    return [(x.dtype, x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    (tmp_path / "lock").write_text("")
    (tmp_path / "params.safetensors").write_text("")
    assert restore(tmp_path, small(0)) is None


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("run"), 0, small(0), [])
    assert restore(Path("run"), small(0)).step == 0


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_remain(tmp_path, keep):
    for step in (1, 2, 9, 10):
        save(tmp_path, step, small(step), [], keep=keep)
    assert names(tmp_path) == sorted(["10.safetensors", "9.safetensors", "2.safetensors"][:keep])
    assert restore(tmp_path, small(0)).step == 10


def test_other_files_are_left_alone(two):
    (two / "lock").write_text("")
    (two / "results.json").write_text("{}")
    save(two, 3, small(3), [], keep=1)
    assert names(two) == ["3.safetensors", "lock", "results.json"]


def test_temporary_files_of_killed_saves_are_removed(two):
    (two / ".7.safetensors.12-ab.partial").write_text("part")
    assert restore(two, small(0)).step == 2
    save(two, 3, small(3), [])
    assert names(two) == ["2.safetensors", "3.safetensors"]


def damage_truncate(path: Path):
    os.truncate(path, path.stat().st_size // 2)


def damage_last_byte_gone(path: Path):
    os.truncate(path, path.stat().st_size - 1)


def damage_empty(path: Path):
    os.truncate(path, 0)


def damage_longer(path: Path):
    path.write_bytes(path.read_bytes() + b"x")


def damage_zeros(path: Path):
    path.write_bytes(bytes(path.stat().st_size))


def damage_history(path: Path):
    data = path.read_bytes()
    assert data.count(b'epoch\\": 1') == 1
    path.write_bytes(data.replace(b'epoch\\": 1', b'epoch\\": 5'))


def damage_names(path: Path):
    path.write_bytes(path.read_bytes().replace(b'"w"', b'"v"'))


def damage_no_digest(path: Path):
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, {"step": "2", "history": "[]"})


def damage_other_program(path: Path):
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)


def damage_folder(path: Path):
    path.unlink()
    path.mkdir()


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_passed_over_with_one_line(two, damage, caplog):
    path = two / "2.safetensors"
    damage(path)
    with caplog.at_level(logging.WARNING):
        restored = restore(two, small(0))
    assert restored.step == 1
    assert restored.history == [{"epoch": 0}]
    assert bits(restored.state) == bits(small(1))
    [message] = caplog.messages
    assert message.startswith(f"checkpoint {path} is damaged (")
    assert "\n" not in message


def test_every_bit_of_the_file_counts(tmp_path):
    state = {"a": jnp.float32(1.5), "b": jnp.arange(3, dtype=jnp.bfloat16), "c": jnp.array([True])}
    save(tmp_path, 1, state, [{"epoch": 1, "loss": 0.5}])
    path = tmp_path / "1.safetensors"
    data = path.read_bytes()
    assert restore(tmp_path, state).step == 1
    for position in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert restore(tmp_path, state) is None, f"bit {position} of {bytes(data)!r}"


def test_damaged_checkpoints_give_way_to_new_ones(two):
    save(two, 9, small(9), [])
    damage_truncate(two / "9.safetensors")
    assert restore(two, small(0)).step == 2
    save(two, 3, small(3), [])
    assert names(two) == ["2.safetensors", "3.safetensors"]
    damage_truncate(two / "3.safetensors")
    save(two, 3, small(3), [])  # the same step once more
    assert restore(two, small(0)).step == 3
    damage_truncate(two / "2.safetensors")
    damage_truncate(two / "3.safetensors")
    assert restore(two, small(0)) is None


def test_other_programs_can_read_a_checkpoint(tmp_path):
    state = make_state()
    save(tmp_path, 5, state, [{"epoch": 1}])
    arrays = safetensors.numpy.load_file(tmp_path / "5.safetensors")
    np.testing.assert_array_equal(arrays["params/conv/kernel"], state.params["conv"]["kernel"])
    assert {"counters/step", "optimizer/0/mu/conv/bias", "others/10/0"} <= arrays.keys()
    with safetensors.safe_open(tmp_path / "5.safetensors", framework="np") as file:
        assert file.metadata()["step"] == "5"
        assert file.metadata()["history"] == '[{"epoch": 1}]'


def test_two_arrays_of_one_path_are_the_callers_mistake(tmp_path):
    with pytest.raises(ValueError, match="same path"):
        save(tmp_path, 1, {"a/b": jnp.zeros(1), "a": {"b": jnp.ones(1)}}, [])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("like", "text"),
    [
        (
            {"w": jnp.zeros((64, 32)), "step": jnp.int32(0)},
            "w is float32[64, 64] there, float32[64, 32] here",
        ),
        ({"w": jnp.zeros((64, 64)), "step": jnp.uint32(0)}, "step is int32[] there, uint32[] here"),
        ({"v": jnp.zeros((64, 64)), "step": jnp.int32(0)}, "v is nothing there, float32[64, 64] here"),
        ({"step": jnp.int32(0)}, "w is float32[64, 64] there, nothing here"),
    ],
)
def test_checkpoint_of_another_tree_is_an_error(two, like, text):
    with pytest.raises(CheckpointError) as error:
        restore(two, like)
    assert str(error.value) == f"{two / '2.safetensors'} is of another model or setting: {text}; use another workdir"


def test_failing_writer_leaves_the_last_good_one(two, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in two.iterdir()}
    for name in ("fsync", "replace"):
        for step in (2, 3):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                with pytest.raises(
                    CheckpointError, match=rf"{step}.safetensors was not saved \(.*No space left on device.*make room"
                ):
                    save(two, step, small(step), [])
    assert {path: path.read_bytes() for path in two.iterdir()} == before


@pytest.mark.parametrize("limit", [0, 100, 2000])
def test_file_system_that_refuses_leaves_the_last_good_one(two, limit, capfd):
    """Real failing writes: no file may grow beyond `limit` bytes."""
    noise = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "step": jnp.int32(3)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            save(two, 3, noise, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert names(two) == ["1.safetensors", "2.safetensors"]
    assert bits(restore(two, small(0)).state) == bits(small(2))


def test_full_disk_is_one_line_before_anything_is_written(two, monkeypatch, capfd):
    left_by_kill = two / ".7.safetensors.0a1b2c3d.partial"
    left_by_kill.write_text("part")
    usage = shutil.disk_usage(two)

    def nearly_full(_folder):
        assert not left_by_kill.exists()  # it gave its room back first
        return usage._replace(free=3 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(CheckpointError) as error:
        save(two, 3, {"w": jnp.zeros(2**20)}, [])
    assert str(error.value) == (
        f"{two / '3.safetensors'} was not saved (4 MiB to write, 3 MiB free): what was saved before is untouched; "
        "make room or make the folder writable, then run the same command again"
    )
    assert names(two) == ["1.safetensors", "2.safetensors"]
    assert capfd.readouterr() == ("", "")


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="was not saved"):
        save(tmp_path / "file", 1, small(1), [])
    assert (tmp_path / "file").read_text() == "mine"


STATS = {"norm1": {"mean": jnp.full(8, 0.5), "var": jnp.arange(8, dtype=jnp.float32)}}


@pytest.mark.parametrize("stats", [{}, STATS])
def test_params_are_whole_or_absent(tmp_path, monkeypatch, stats):
    path = tmp_path / "run/params.safetensors"
    params = make_state().params
    with pytest.raises(CheckpointError, match="is missing: add --rerun to the command"):
        load_params(path, params, stats)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_params(path, params, stats)
    assert names(tmp_path / "run") == []
    save_params(path, jax.tree.map(jnp.zeros_like, params), {})
    save_params(path, params, stats)
    assert names(tmp_path / "run") == ["params.safetensors"]
    loaded = load_params(path, *jax.eval_shape(lambda: (params, stats)))
    assert jax.tree.structure(loaded) == jax.tree.structure((params, stats))
    assert bits(loaded) == bits((params, stats))
    with pytest.raises(CheckpointError, match=r"params/conv/kernel is float32\[3, 3, 1, 8\] there, nothing here"):
        load_params(path, {"a/b.c": params["a/b.c"], "conv": {"bias": params["conv"]["bias"]}}, stats)
    damage_truncate(path)
    with pytest.raises(
        CheckpointError, match=r"params.safetensors is damaged \(.*the command that trained it mends it"
    ):
        load_params(path, params, stats)


def test_params_with_statistics_are_not_those_of_a_model_without(tmp_path):
    path, params = tmp_path / "params.safetensors", {"w": jnp.ones(2)}
    save_params(path, params, STATS)
    assert sorted(safetensors.numpy.load_file(path)) == ["params/w", "stats/norm1/mean", "stats/norm1/var"]
    with pytest.raises(CheckpointError, match=r"stats/norm1/mean is float32\[8\] there, nothing here"):
        load_params(path, params, {})
    save_params(path, params, {})
    with pytest.raises(CheckpointError, match=r"stats/norm1/mean is nothing there, float32\[8\] here"):
        load_params(path, params, STATS)


def test_other_code_does_not_go_on_from_a_checkpoint(tmp_path, caplog):
    state = {"w": np.ones(2, np.float32)}
    save(tmp_path, 1, state, [], code={"a.py": "1"})
    save(tmp_path, 2, state, [], code={"a.py": "2"})
    assert restore(tmp_path, state, code={"a.py": "2"}).step == 2
    assert restore(tmp_path, state, code={"a.py": "1"}).step == 1
    assert caplog.messages == [
        f"checkpoint {tmp_path}/2.safetensors is of other code or settings than now: passed over"
    ]
    assert restore(tmp_path, state) is None


VICTIM = """
import itertools, os, pathlib, signal, sys
import numpy as np
from capsnet_jax.sweeps import checkpoint, files

folder, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
state = lambda step: {"w": np.full((300, 300), step, np.float32), "step": np.int32(step)}
print("ready", flush=True)
restored = checkpoint.restore(folder, state(0))
step = restored.step if restored else 0
if moment != "any":
    files.remove_abandoned(folder)
    owner = pathlib.Path if moment == "unlink" else os
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


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path):
    generator = random.Random(0)
    moments = [("any", generator.uniform(0.2, 0.6)) for _ in range(7)]
    moments[3:3] = [("fsync", 0.0), ("fsync", 0.0), ("replace", 0.0), ("unlink", 0.0)]
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
    assert names(tmp_path) == sorted([f"{last}.safetensors", f"{last + 1}.safetensors"])


@pytest.mark.slow
def test_a_full_size_state_saves_in_seconds(tmp_path):
    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.block_until_ready({str(i): jax.random.normal(key, (6_804_224,)) for i, key in enumerate(keys)})
    start = time.perf_counter()
    save(tmp_path, 1, state, [])
    assert time.perf_counter() - start < 5
    assert bits(restore(tmp_path, state).state) == bits(state)


def test_history_that_is_not_json_is_the_callers_mistake(tmp_path):
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path, 1, small(1), [{"loss": jnp.float32(1)}])
    assert names(tmp_path) == []
