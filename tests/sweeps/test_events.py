"""What TensorBoard reads, taken apart with tensorboardX's protocol buffers."""

import io
import math
import os
import struct
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from capsnet_jax import overrides
from capsnet_jax.data import Dataset, Examples
from capsnet_jax.sweeps import events
from capsnet_jax.sweeps.events import EventWriter, GroupEvents
from tests import tiny


def read(folder) -> list[Event]:
    """Every event of a folder's one file, with its checksums checked."""
    [path] = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        for part, checksum in ((data[:8], data[8:12]), (data[12 : 12 + length], data[12 + length : 16 + length])):
            plain = crc32c(part)
            assert struct.unpack("<I", checksum)[0] == ((plain >> 15 | plain << 17) + 0xA282EAD8) % 2**32
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(folder) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, pytest.approx(value.simple_value))
        for event in read(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def test_a_run_tells_its_settings_and_finite_metrics(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.out.tfevents.1.stale").write_bytes(b"of an interrupted process")
    writer = EventWriter(tmp_path / "run", {"model.decoder": [8, 4], "loss.reconstruction": True, "seed": 3})
    writer.epoch({"epoch": 2, "train_loss": 0.25, "test_error_at_1": 4.0, "train_error": float("nan")})
    writer.within({"train_loss": 0.5}, 17)
    writer.finish()
    version, start, settings, *_ = read(tmp_path / "run")
    assert version.file_version == "brain.Event:2"
    assert start.session_log.status == SessionLog.START
    assert all(abs(event.wall_time - time.time()) < 60 for event in (version, start, settings))
    plugin = HParamsPluginData.FromString(settings.summary.value[0].metadata.plugin_data.content)
    told = plugin.session_start_info.hparams
    assert told["model.decoder"].string_value == "[8, 4]"
    assert told["loss.reconstruction"].bool_value is True
    assert told["seed"].number_value == 3
    assert scalars(tmp_path / "run") == [
        ("train/loss", 2, 0.25),
        ("test/error_at_1", 2, 4.0),
        ("within_epochs/train_loss", 17, 0.5),
    ]


def test_no_run_keeps_a_file_or_a_thread(tmp_path):
    before = len(os.listdir("/dev/fd")), threading.active_count()
    writers = [EventWriter(tmp_path / str(run), {"seed": run}) for run in range(40)]
    for writer in writers:
        writer.epoch({"epoch": 1, "train_loss": 1.0})
    assert (len(os.listdir("/dev/fd")), threading.active_count()) == before


SCHEDULE = {"train.schedule": "cosine", "train.warmup": 0.2, "train.min_learning_rate": 0.0}
CONFIGS = [overrides.build(tiny.SETTINGS | SCHEDULE | {"train.learning_rate": rate}) for rate in (0.01, 0.02)]
PIXELS = np.random.default_rng(0).integers(0, 256, (96, 28, 28, 1), np.uint8)
PART = Examples(PIXELS, np.arange(96) % 10)  # three batches
DATA = Dataset("noise", tuple("0123456789"), PART, PART, PART)


def state_at(step: int, losses: list[float], diverged: list[int], history: list[dict], params=()) -> SimpleNamespace:
    states = SimpleNamespace(
        sums={"loss": jnp.asarray(losses)}, diverged=jnp.asarray(diverged), eval_params=(params, {})
    )
    return SimpleNamespace(step=step, states=states, history=history)


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A function that makes the events of two runs; the clock of points within an epoch is `group.now`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 1e9))
    folders = clock.folders = [tmp_path / "0", tmp_path / "1"]
    clock.start = lambda history: GroupEvents(folders, CONFIGS, [0, 0], DATA, history, parallel="map")
    return clock


def row(epoch: int, *losses: float) -> dict:
    return {"epoch": epoch, "train_loss": list(losses)}


def learning_rate(run: int, step: int) -> float:
    """By hand, of nine steps: a linear warm-up for 1.8, and half a cosine for the others."""
    decay = 0.5 * (1 + math.cos(math.pi * max(step - 1.8, 0) / 7.2))
    return (0.01, 0.02)[run] * decay * min(1, (step + 1) / 1.8)


def test_points_within_an_epoch_are_means_since_the_last_one(group):
    told = group.start([])
    for seconds, at in (
        (10, state_at(1, [32.0, 64.0], [-1, -1], [])),  # too early
        (31, state_at(2, [96.0, 64.0], [-1, 1], [])),  # the second run stands still
        (40, state_at(3, [0.0, 0.0], [-1, 1], [row(1, 2.0, float("nan"))])),
        (69, state_at(4, [8.0, 64.0], [-1, 1], [row(1, 2.0, float("nan"))])),  # 29 s after the epoch
        (75, state_at(5, [32.0, 64.0], [-1, 1], [row(1, 2.0, float("nan"))])),
    ):
        group.now = seconds
        told.update(at)
    assert scalars(group.folders[0]) == [
        ("within_epochs/train_loss", 2, 96 / 64),
        ("within_epochs/learning_rate", 2, learning_rate(0, 1)),
        ("train/loss", 1, 2.0),
        ("train/learning_rate", 1, learning_rate(0, 2)),
        ("within_epochs/train_loss", 5, 32 / 64),
        ("within_epochs/learning_rate", 5, learning_rate(0, 4)),
    ]
    assert scalars(group.folders[1]) == []


def test_points_are_of_the_steps_since_the_last(group):
    told = group.start([])
    for seconds, at in ((31, state_at(1, [32.0, 64.0], [-1, -1], [])), (62, state_at(2, [40.0, 96.0], [-1, -1], []))):
        group.now = seconds
        told.update(at)
    losses = [[value for tag, _, value in scalars(folder) if tag.endswith("loss")] for folder in group.folders]
    assert losses == [[1.0, 8 / 32], [2.0, 32 / 32]]


def test_after_an_interruption_the_file_holds_exactly_the_history(group):
    whole = group.start([])
    for epochs in (1, 2):
        whole.update(state_at(3 * epochs, [0.0, 0.0], [-1, -1], [row(1, 0.5, 0.25), row(2, 0.125, 0.75)][:epochs]))
    before = [folder.joinpath(os.listdir(folder)[0]).read_bytes() for folder in group.folders]
    assert len(scalars(group.folders[0])) == 4
    group.start([row(1, 0.5, 0.25), row(2, 0.125, 0.75)])
    assert [folder.joinpath(os.listdir(folder)[0]).read_bytes() for folder in group.folders] == before


def test_in_the_end_come_test_metrics_and_reconstructions(group, monkeypatch):
    """The decoder here darkens, by a parameter that each run has for itself."""
    monkeypatch.setattr(events.models, "apply", lambda _, params, stats, images: {"reconstruction": params * images})
    at = state_at(9, [0.0, 0.0], [-1, -1], [], jnp.asarray([0.5, 0.25]))
    group.start([]).finish(at, [{"test_error": 4.0 + run, "test_error_at_1": 9.0, "parameters": 5} for run in (0, 1)])
    for run, folder in enumerate(group.folders):
        assert scalars(folder) == [("test/error", 3, 4.0 + run)]
        [image] = [v.image for e in read(folder) for v in e.summary.value if v.tag == "reconstructions"]
        strip = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        assert strip.shape == (image.height, image.width) == (2 * 28, 8 * 28)
        for i in range(8):
            above, below = strip[:28, 28 * i : 28 * (i + 1)], strip[28:, 28 * i : 28 * (i + 1)]
            assert np.array_equal(above, PIXELS[i, :, :, 0])
            np.testing.assert_allclose(below, above * (0.5, 0.25)[run], atol=0.51)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_run_that_diverged_has_no_reconstructions(group, monkeypatch):
    monkeypatch.setattr(events.models, "apply", lambda _, params, stats, images: {"reconstruction": params * images})
    at = state_at(9, [0.0, 0.0], [-1, 4], [], jnp.asarray([0.5, np.inf]))
    group.start([]).finish(at, [{"test_error": 1.0}, {"test_error": float("nan")}])
    tags = [[value.tag for event in read(folder)[3:] for value in event.summary.value] for folder in group.folders]
    assert tags == [["test/error", "reconstructions"], []]


def test_a_net_without_decoder_has_no_reconstructions(group):
    net = overrides.build({"model.name": "cnn_small", "train.batch_size": 32})
    told = GroupEvents(group.folders[:1], [net], [0], DATA, [], parallel="map")
    told.finish(state_at(3, [0.0], [-1], []), [{"test_error": 1.0}])
    assert {value.tag for event in read(group.folders[0]) for value in event.summary.value} == {
        "_hparams_/session_start_info",
        "test/error",
    }


@pytest.mark.slow
def test_pytorch_is_not_imported_where_it_is_installed(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('imported')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    subprocess.run([sys.executable, "-c", "import experiments.cli.study"], env=environment, check=True)
