"""How fast are the classic conv nets beside torchvision's?

A training step (forward, backward, Adam) and inference, images of 224×224×3, 1000 classes, batch 8, float32, of every
net that torchvision has too. Goal: none to be slower than the faster of torchvision's two layouts. Nets of capsules,
which torchvision lacks, are measured alone, with the images and classes of their papers.

    python launch.py --experiment=throughput_nets
    python launch.py --experiment=throughput_nets --set model.name=resnet50
    python launch.py --experiment=throughput_nets --sweep model.name=resnet18,densenet121 --sweep train.batch_size=1,8

Three subjects a net and phase: ours, torchvision's in PyTorch's own layout, and with channels last in memory, both run
eagerly (`torch.compile` is not compared). They work on 256 synthetic images in blocks of 10 seconds in training and 2
in inference: four rounds, and these three times with new processes. All three are in memory at once: VGG's parameters,
gradients and Adam's moments alone are 2.3 GB a process. Our training steps of the nets with many layers take a minute
and 2 to 3 GB to compile (GoogLeNet, DenseNet-121), which peak memory includes. All three get memory in large pages, as
`launch.py` asks for them, which makes torchvision's nets faster too. The machine should do nothing else.

torchvision is compared where it is installed (`pip install -e '.[peers]'`); it computes in float32, on a GPU in TF32,
whatever is set. Our step also counts errors and checks that all is finite, as it does for users.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from capsnet_jax import figures as draw
from capsnet_jax import overrides
from capsnet_jax.bench import measure as bench
from capsnet_jax.bench import records
from capsnet_jax.bench.measure import Group
from capsnet_jax.bench.workload import NETS, OURS, Workload
from capsnet_jax.config import Config, check_word
from capsnet_jax.models import MODELS
from experiments.throughput import FREE, case, check, slug, spread, to_csv

# Images are not shifted, as torchvision's are not; the rate is small, so that weights stay near where they start.
__all__ = ["CONFIG", "SWEEP", "figures", "measure", "report", "requires", "to_csv"]

CONFIG: dict[str, object] = {
    "train.batch_size": 8,
    "train.learning_rate": 1e-4,
    "train.ema_epochs": 0.0,
    "data.max_shift": 0,
}

ALONE = ("efficient_capsnet", "matrix_capsnet", "matrix_capsnet_full")  # torchvision has none of them
SWEEP: list[dict[str, object]] = [{"model.name": name} for name in (*NETS, *ALONE)]

SUBJECTS = (OURS, "torchvision", "torchvision_channels_last")
IMAGES = 256  # 32 steps, so that an epoch's end, which ends a call too, seldom falls into a block
ROUNDS, STARTS = 4, 3
SECONDS = {"inference": 2.0, "training": 10.0}  # that a block takes: several steps of the slowest nets


def requires(setting: Config, data: None) -> None:
    """Raise a ConfigError where a setting cannot be measured; it says the remedy."""
    check_word("throughput_nets: model.name", setting.model.name, (*NETS, *ALONE))
    check("throughput_nets", setting, CONFIG, FREE, IMAGES)


def measure(settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Measure what the workdir does not yet have; see `capsnet_jax.bench.measure`."""
    cases = {case(setting, CONFIG): groups(setting) for setting in settings}
    bench.measure(workdir / "throughput_nets.jsonl", cases, stop)


def report(workdir: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the text for the terminal and the records that figures are drawn from."""
    frame = records.load(workdir / "throughput_nets.jsonl")
    if frame.empty:
        return "", []
    legend = "images/s; torchvision's is the faster of two layouts in every round; (least to greatest)"
    return f"{summary(frame)}\n({legend})", frame.to_dict("records")


def figures(measured: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Draw our speed over torchvision's of every net, for each machine where both were measured."""
    frame = pd.DataFrame(measured, columns=records.COLUMNS)
    machines = frame[~frame["model"].isin(ALONE)].groupby("machine", sort=False)
    return {
        f"ratios-{slug(machine)}": draw.speed_ratios(rows)
        for machine, rows in machines
        if draw.net_speeds(rows)["ratio theirs"].notna().any()
    }


def groups(setting: Config) -> list[Group]:
    """Return the two comparisons of a setting. Inference comes first: it is compiled in less memory."""
    name, entry = setting.model.name, MODELS[setting.model.name]
    side, _, channels = entry.image_shape
    ours = Workload(OURS, "training", overrides.flatten(setting), entry.classes, side, channels, IMAGES)
    subjects = (OURS,) if name in ALONE else SUBJECTS
    return [
        Group(
            *(phase, "blocks", tuple(dataclasses.replace(ours, subject=s, phase=phase) for s in subjects)),
            *(ROUNDS, seconds, STARTS),
        )
        for phase, seconds in SECONDS.items()
    ]


def summary(frame: pd.DataFrame) -> str:
    """Return a line a net for each machine: medians of the speeds, and the ratios with their spread."""
    parts = []
    for machine, rows in frame.groupby("machine", sort=False):
        speeds = draw.net_speeds(rows)
        table = pd.DataFrame(index=speeds.index.unique("net").rename(machine))
        means = []
        for phase in dict.fromkeys(
            phase for phase in ("training", "inference") if phase in speeds.index.unique("phase")
        ):
            nets = speeds.xs(phase, level="phase").groupby("net", sort=False)
            ratios = {net: values["ratio theirs"].dropna() for net, values in nets}
            table[phase] = nets[OURS].median().map("{:.3g}".format)
            table[f"{phase}, torchvision"] = nets["theirs"].median().dropna().map("{:.3g}".format)
            table[f"{phase}, ratio"] = pd.Series({net: spread(values) for net, values in ratios.items() if len(values)})
            medians = [values.median() for values in ratios.values() if len(values)]
            if len(medians) > 1:
                mean = np.exp(np.mean(np.log(medians)))  # geometric: that of the reciprocals is its reciprocal
                means.append(f"{phase}: {mean:.3g}, geometric mean of {len(medians)} ratios")
        parts += [table.to_string(na_rep=""), *means, ""]
    return "\n".join(parts).rstrip()
