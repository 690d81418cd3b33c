"""A trained network, back from its run's record or from released weights, and what is observed beside numbers."""

import dataclasses
import functools
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num, PyTree

from capsnet_jax import data, models
from capsnet_jax.config import Config, ConfigError
from capsnet_jax.data import Dataset, Description, Examples
from capsnet_jax.interpret.examples import to_pixels
from capsnet_jax.models import pretrained
from capsnet_jax.models.capsnet import CapsNet
from capsnet_jax.models.forward import Forward, Normalize
from capsnet_jax.models.pretrained import Weights
from capsnet_jax.models.state_dict import PretrainedError
from capsnet_jax.models.summary import Outline, outline
from capsnet_jax.overrides import build
from capsnet_jax.sweeps.best import best_run, config_of, has_params, params_of, runs_with_params
from capsnet_jax.sweeps.checkpoint import load_params
from capsnet_jax.sweeps.files import write_bytes
from capsnet_jax.sweeps.plan import load_data
from capsnet_jax.sweeps.records import Record

Observation = dict[str, np.ndarray]

log = logging.getLogger(__name__)

_apply = jax.jit(lambda forward, images: forward(images))


class LazyDataset(Dataset):
    """A data set whose images are loaded when they are first asked for; its description needs none."""

    described: Description
    load: Callable[[], Dataset]

    def __init__(self, name: str, described: Description, load: Callable[[], Dataset]):
        # The base class is frozen.
        vars(self).update(name=name, label_names=described.label_names, described=described, load=load)

    @functools.cached_property
    def loaded(self) -> Dataset:
        """The data set itself."""
        return self.load()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.described.image_shape

    @property
    def train(self) -> Examples:
        """The examples to learn from."""
        return self.loaded.train

    @property
    def validation(self) -> Examples:
        """The examples that runs are chosen by."""
        return self.loaded.validation

    @property
    def test(self) -> Examples:
        """The publisher's test split."""
        return self.loaded.test


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A trained network with what it was trained by and on.

    Attributes:
        config: the settings of its run.
        model: the Flax module.
        params: its parameters.
        stats: its batch norms' running statistics; {} in a model without.
        data: the data set, split as in the run; released weights come without images.
        record: of the run; None of released weights. That of an exported run has no metrics of its epochs.
        normalize: what pixels in [0, 1] go through first; None: nothing.
    """

    config: Config
    model: nn.Module
    params: PyTree
    stats: PyTree
    data: Dataset
    record: Record | None
    normalize: Normalize | None = None

    @property
    def name(self) -> str:
        """The run's name, or the model's."""
        return self.config.model.name if self.record is None else self.record.name

    @property
    def is_capsnet(self) -> bool:
        """Whether it is a CapsNet: capsules at positions, and class capsules that are as long as they are present."""
        return isinstance(self.model, CapsNet)

    @property
    def forward(self) -> Forward:
        """The network as a function of images in [0, 1] to {name: array}, as in evaluation."""
        return Forward(self.model, {"params": self.params, "batch_stats": self.stats}, self.normalize)

    def __call__(self, images: Float[Array, "batch height width channels"]) -> dict[str, Any]:
        """Return all outputs of the model, as `forward`."""
        return self.forward(images)

    def outputs(self, images: Num[Array | np.ndarray, "batch height width channels"]) -> dict[str, Any]:
        """Return all outputs of the model, layer by layer, as in evaluation.

        Args:
            images: pixels in [0, 1], or bytes as in the data set.
        """
        return _apply(self.forward, to_pixels(images))

    def couplings(self, images: Num[Array | np.ndarray, "batch height width channels"]) -> Array:
        """Return the couplings after the last routing iteration: float[batch, inputs, classes].

        Raises:
            ConfigError: the network does not route.
        """
        out = self.outputs(images)
        if "couplings" not in out:
            raise ConfigError(f"{self.config.model.name} does not route, so it has no couplings")
        return out["couplings"]

    def layers(self) -> dict[str, tuple[int, ...]]:
        """Return {name: shape without the batch axis} of its outputs, in the order in which it names them."""
        order: list[str] = []

        def named(images: Array) -> dict[str, Any]:
            outputs = self.forward(images)
            order.extend(outputs)
            return outputs

        shapes = jax.eval_shape(named, jax.ShapeDtypeStruct((1, *self.data.image_shape), "float32"))
        return {name: shapes[name].shape[1:] for name in order}

    def layers_with_positions(self) -> list[str]:
        """Return its layers whose activations have positions, in that order; a reconstruction is none."""
        return [name for name, shape in self.layers().items() if len(shape) == 3 and name != "reconstruction"]

    def outline(self) -> Outline:
        """Return its layers, parameters and FLOPs for one image."""
        return outline(self.config, self.data.image_shape, self.data.classes)


def restore(workdir: Path | str, name: str | None = None, *, experiment: str | None = None) -> Network:
    """Restore a finished run's network.

    Args:
        workdir: holds finished runs.
        name: of the run; None: the one of least validation error. Runs whose model, router or loss is not there any
            more are then left out, with a warning.
        experiment: whose runs those are; None: any.

    Raises:
        ConfigError: there is no such run with its parameters, or it cannot be built.
        CheckpointError: its parameters are damaged.
    """
    if name is None:
        return restore_record(best_run(Path(workdir), experiment))
    finished = runs_with_params(Path(workdir))
    if name not in finished:
        raise ConfigError(f"no run {name} with its parameters in {workdir}; there are: {', '.join(finished)}")
    return restore_record(finished[name])


def restore_record(record: Record) -> Network:
    """Restore the network of a record. Its data set need not be on this machine.

    Raises:
        ConfigError: its model, router or loss is not there any more, or has other settings now.
        CheckpointError: its parameters are missing or damaged.
    """
    config = config_of(record)
    settings = config.data
    described = data.describe(
        settings.dataset,
        label_key=settings.label or None,
        transform=settings.transform,
        image_size=settings.image_size,
    )
    dataset = LazyDataset(settings.dataset, described, functools.partial(load_data, settings))
    model = models.build(config, dataset.classes)
    like = jax.eval_shape(lambda: models.init(model, jax.random.key(0), dataset.image_shape))
    params, stats = load_params(params_of(record), *like)
    return Network(config, model, params, stats, dataset, record)


def load_released(name: str | Path) -> Network:
    """Load a net with the weights that somebody released, or a run that was exported.

    Args:
        name: "squeezenet", whose weights come with this package, a file of torchvision's weights, or a folder that
            `--export` wrote.

    Raises:
        ConfigError: there is no such net, file or folder, or it holds other things.
    """
    weights = pretrained.load(name)
    if weights.about is not None:
        return _restore_exported(Path(name), weights)
    # Weights are of one stem, whatever the size of the images.
    config = build({"model.name": weights.model, "model.stem": "imagenet"})

    def load() -> Dataset:
        raise ConfigError(f"{weights.model} came without the images that it learned from; name a picture of yours")

    described = Description(models.MODELS[weights.model].image_shape, weights.label_names)
    dataset = LazyDataset("imagenet", described, load)
    model = models.build(config, weights.classes)
    return Network(config, model, weights.params, weights.stats, dataset, None, weights.normalize)


def _restore_exported(folder: Path, weights: Weights) -> Network:
    """Restore the network of an exported run. Its data set need not be on this machine.

    Raises:
        PretrainedError: the parameters are not those of its model and settings.
    """
    about = weights.about
    assert about is not None, "it was exported"
    known = {name: about[name] for name in ("name", "settings", "seed", "command", "environment", "recorded")}
    result = {name: np.nan if value is None else float(value) for name, value in about["result"].items()}
    record = Record(metrics={}, result=result, workdir=folder, **known)
    config, described = config_of(record), Description(tuple(about["image_shape"]), weights.label_names)
    like = models.shapes(config, described.image_shape, weights.classes)
    wanted, found = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (like, (weights.params, weights.stats))
    )
    if odd := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
        raise PretrainedError(
            f"{folder}: its parameters are not those of its settings ({odd[0]} is {found.get(odd[0], 'missing')},"
            f" not {wanted.get(odd[0], 'there')}); export the run again"
        )
    dataset = LazyDataset(config.data.dataset, described, functools.partial(load_data, config.data))
    return Network(config, models.build(config, weights.classes), weights.params, weights.stats, dataset, record)


def save_observation(record: Record, name: str, observe: Callable[[Network], Observation]) -> None:
    """Save what `observe` returns of a finished run's network in the run's folder, unless it is there already.

    An observation from before the run was trained anew is replaced, and so is a damaged one.

    Args:
        record: of the run; one without parameters is passed over.
        name: of the file, without its suffix.
        observe: a value of OBSERVATIONS, or another function of a network.
    """
    path = record.folder / f"{name}.npz"
    if not has_params(record):
        return
    is_newer = path.exists() and path.stat().st_mtime_ns >= params_of(record).stat().st_mtime_ns
    if is_newer and load_observation(record, name) is not None:
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **observe(restore_record(record)))
    write_bytes(path, buffer.getvalue())


def load_observation(record: Record, name: str) -> Observation | None:
    """Load what `save_observation` saved; None where it saved nothing, or where that is damaged, with a warning."""
    path = record.folder / f"{name}.npz"
    try:
        with np.load(path) as arrays:
            return dict(arrays)  # which compares checksums
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file can raise anything
        log.warning("%s is damaged and left out (%s); its experiment's command makes it again", path, error)
        return None
