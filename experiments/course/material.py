"""What pages look at: photographs, digits, a net that has seen ImageNet, and two nets that are trained in a moment."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from capsnet_jax import data
from capsnet_jax.config import PRESETS
from capsnet_jax.interpret.network import Network, load_released, restore
from capsnet_jax.overrides import build
from capsnet_jax.report import seen_photographs
from capsnet_jax.report.seen_photographs import Photographs
from capsnet_jax.sweeps import run
from capsnet_jax.sweeps.plan import Plan
from capsnet_jax.sweeps.records import Run
from experiments import hops

DIGITS: dict[str, object] = {"train.epochs": 8}
STORIES: dict[str, object] = hops.CONFIG | {"data.dataset": "babi_2", "model.hops": 3, "train.epochs": 60}


class Material:
    """What pages share; each part is made when a page first asks for it.

    Attributes:
        workdir: where the trained nets are, and the page will be.
    """

    def __init__(self, workdir: Path, stop: Callable[[], int | None] = lambda: None):
        self.workdir, self._stop = workdir, stop

    @functools.cached_property
    def squeezenet(self) -> Network:
        """A net that has seen ImageNet."""
        return load_released("squeezenet")

    @functools.cached_property
    def photographs(self) -> Photographs:
        """A portrait, a temple and a flower."""
        return seen_photographs.load(self.squeezenet)

    @functools.cached_property
    def digits(self) -> np.ndarray:
        """One test image of each of the embedded digits: float32[10, 28, 28, 1]."""
        test = data.load("mnist_5k").test
        labels = np.asarray(test.labels)
        return np.asarray(test.images)[[int(np.argmax(labels == k)) for k in range(10)]] / np.float32(255)

    @functools.cached_property
    def capsnet(self) -> Network:
        """A CapsNet of 3,600 digits: a few seconds of training."""
        return self._trained(DIGITS)

    @functools.cached_property
    def memory_network(self) -> Network:
        """A memory network of 900 questions about stories."""
        return self._trained(STORIES)

    def _trained(self, settings: Mapping[str, object]) -> Network:
        """Return a net of the small preset; it is an ordinary run of the workdir, and trained if it is not there."""
        wanted = Run(build({**PRESETS["small"], **settings}), seed=0)
        plan = Plan(self.workdir, "auto", lambda run: "python launch.py --course --workdir=WORKDIR", self._stop)
        run.train_all([wanted], plan, run.load_and_check([wanted]))
        return restore(self.workdir, wanted.name)
