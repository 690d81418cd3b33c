"""TensorBoard's event files of runs that are being trained, made without TensorFlow.

A file is open only while something is appended to it, so hundreds of runs side by side need no file or thread each.
"""

import io
import math
import os
import platform
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PyTree, UInt8
from PIL import Image

from capsnet_jax import models
from capsnet_jax.config import Config
from capsnet_jax.data import Dataset
from capsnet_jax.data.augment import to_float
from capsnet_jax.overrides import flatten
from capsnet_jax.sweeps.files import make_folder
from capsnet_jax.training.evaluation import to_floats
from capsnet_jax.training.fit import FitProgress
from capsnet_jax.training.parallel import stack
from capsnet_jax.training.program import Program
from capsnet_jax.training.schedule import learning_rate
from capsnet_jax.training.step import steps_per_epoch

# tensorboardX would import PyTorch where it is installed, for 3 seconds and nothing that is used here.
_hides_torch = sys.modules.setdefault("torch", None) is None  # type: ignore[arg-type]
try:
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import hparams
finally:
    if _hides_torch:
        del sys.modules["torch"]

WITHIN_SECONDS = 30.0  # between points within an epoch
RECONSTRUCTED = 8  # validation images

Rows = Sequence[dict[str, Any]]


class EventWriter:
    """Write one run's event file.

    An epoch's metrics stand over the epoch, points within epochs (`within_epochs/…`) over the training step.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        """Start the run's file anew.

        Args:
            folder: of the run.
            settings: what TensorBoard's HPARAMS tab shows beside the last metrics.
        """
        make_folder(folder)
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{platform.node()}"
        self._append(Event(file_version="brain.Event:2"))
        self._append(Event(session_log=SessionLog(status=SessionLog.START)))  # an open page drops the stale file's
        columns = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in settings.items()}
        _, start, _ = hparams(columns, {})  # without the experiment's: TensorBoard then makes columns of all the runs'
        self._append(Event(summary=start))

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's metrics; its `train_loss` becomes `train/loss`."""
        metrics = {name.replace("_", "/", 1): value for name, value in row.items() if name != "epoch"}
        self._scalars(metrics, row["epoch"])

    def within(self, metrics: Mapping[str, float], step: int) -> None:
        """Append metrics of some steps within an epoch, the last of them number `step`."""
        self._scalars({f"within_epochs/{name}": value for name, value in metrics.items()}, step)

    def image(self, name: str, pixels: UInt8[np.ndarray, "height width channels"], epoch: int) -> None:
        """Append a picture of 1 or 3 channels."""
        height, width, channels = pixels.shape
        png = io.BytesIO()
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(png, "png")
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue())
        self._append(Event(step=epoch, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def finish(self) -> None:
        """Wait until the file is on the disk."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())

    def _scalars(self, metrics: Mapping[str, float], step: int) -> None:
        """Append those metrics that are finite."""
        values = [Summary.Value(tag=name, simple_value=v) for name, v in metrics.items() if math.isfinite(v)]
        if values:
            self._append(Event(step=step, summary=Summary(value=values)))

    def _append(self, event: Event) -> None:
        """Append a record: length, checksum of the length, event, checksum of the event."""
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        with self._path.open("ab") as file:
            file.write(length + checksums[0] + data + checksums[1])


class GroupEvents:
    """Write the event files of runs that are trained together."""

    def __init__(
        self,
        folders: Sequence[Path],
        configs: list[Config],
        seeds: list[int],
        data: Dataset,
        history: Rows,
        parallel: str,
        mesh: Mesh | None = None,
    ):
        """Start the files, and bring them to exactly `history` after an interruption.

        Args:
            folders: of the runs.
            configs: one a run, all of one structure.
            seeds: one a run.
            data: what they are trained on.
            history: of the epochs that are done; see `FitProgress`.
            parallel: "vmap" or "map".
            mesh: of devices; None: one device.
        """
        settings = [flatten(config) | {"seed": seed} for config, seed in zip(configs, seeds, strict=True)]
        self._writers = [EventWriter(folder, flat) for folder, flat in zip(folders, settings, strict=True)]
        self._configs, self._data, self._parallel, self._mesh = stack(configs), data, parallel, mesh
        self._steps, self._batch_size = steps_per_epoch(configs[0], data.train), configs[0].train.batch_size
        schedule = partial(learning_rate, total=self._steps * configs[0].train.epochs)
        self._learning_rates = jax.jit(jax.vmap(schedule, in_axes=(0, None)))
        self._epochs = 0
        self._add_epochs(history)

    def update(self, at: FitProgress) -> None:
        """Append what is new after a chunk of steps: epochs, or a point within an epoch every 30 s."""
        if len(at.history) > self._epochs:
            self._add_epochs(at.history[self._epochs :])
        elif time.monotonic() - self._last_point > WITHIN_SECONDS:
            self._add_point(at)

    def finish(self, at: FitProgress, results: Rows) -> None:
        """Append the test set's metrics and, where there is a decoder, its reconstructions; see to it that all lasts.

        Args:
            at: where the fit ended.
            results: a dictionary for each run; what begins with `test_` is taken, but nothing of single iterations.
        """
        epoch = at.step // self._steps
        pictures = self._reconstructions(at)
        for i, (writer, result) in enumerate(zip(self._writers, results, strict=True)):
            tested = {n: value for n, value in result.items() if n.startswith("test_") and "_at_" not in n}
            writer.epoch({"epoch": epoch} | tested)
            if pictures is not None and at.states.diverged[i] < 0:
                writer.image("reconstructions", pictures[i], epoch)
            writer.finish()

    def _add_epochs(self, rows: Rows) -> None:
        for row in rows:
            rates = self._rates(row["epoch"] * self._steps, np.isfinite(row["train_loss"]))
            for i, writer in enumerate(self._writers):
                writer.epoch(select_run([row | {"train_learning_rate": rates}], i)[0])
        self._epochs += len(rows)
        self._begin_stretch(0, np.zeros(len(self._writers)))

    def _add_point(self, at: FitProgress) -> None:
        """Append the mean loss of the steps since the last point, and the learning rate of the last one."""
        images = at.step % self._steps * self._batch_size
        sums, healthy = np.asarray(at.states.sums["loss"], float), np.asarray(at.states.diverged) < 0
        losses = np.where(healthy, (sums - self._sums) / (images - self._images), np.nan)
        for writer, loss, rate in zip(self._writers, losses, self._rates(at.step, healthy), strict=True):
            writer.within({"train_loss": loss, "learning_rate": rate}, at.step)
        self._begin_stretch(images, sums)

    def _begin_stretch(self, images: int, sums: Float[np.ndarray, "runs"]) -> None:
        """Note how many images of this epoch each run has seen, and its losses on them, summed."""
        self._images, self._sums, self._last_point = images, sums, time.monotonic()

    def _rates(self, steps: int, healthy: Bool[np.ndarray, "runs"]) -> list[float]:
        """Return the learning rate of the last of so many steps; NaN for a run that stands still."""
        return to_floats(jnp.where(healthy, self._learning_rates(self._configs.train, np.int32(steps - 1)), jnp.nan))

    def _reconstructions(self, at: FitProgress) -> UInt8[np.ndarray, "runs height width channels"] | None:
        """Return validation images in a row and below them what each run's decoder makes of them; None without one."""
        images = np.asarray(self._data.validation.images[:RECONSTRUCTED])
        classes = self._data.classes
        if not len(images) or not getattr(models.build(self._configs, classes), "reconstruction", False):
            return None

        def reconstruct(config: Config, params: PyTree, stats: PyTree, images: Array) -> Array:
            return models.apply(models.build(config, classes), params, stats, to_float(images))["reconstruction"]

        program = Program(reconstruct, (0, 0, 0, None), parallel=self._parallel, mesh=self._mesh, once=True)
        decoded = np.nan_to_num(program(self._configs, *at.states.eval_params, images))  # of a run that diverged
        decoded = np.round(255 * np.clip(decoded, 0, 1)).astype(np.uint8)
        pairs = np.concatenate([np.broadcast_to(images, decoded.shape), decoded], axis=2)  # one below the other
        strip = np.concatenate(list(np.moveaxis(pairs, 1, 0)), axis=2)
        return strip if strip.shape[-1] in (1, 3) else strip[..., :1]


def select_run(history: Rows, run: int) -> list[dict[str, Any]]:
    """Return one run's rows of a history whose metrics hold one value a run."""
    return [{n: v[run] if isinstance(v, list) else v for n, v in row.items()} for row in history]
