"""How did depth, parameters and computing go with the error on ImageNet, from 2010 to 2017?

Nothing is trained: errors are published ones, parameters and FLOPs are counted here, exactly, from our own models.

    python launch.py --experiment=ilsvrc_evolution

Takes 20 seconds: every network is traced, none is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.config import Config

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = [{}]

# Top-5 errors in percent of torchvision's pretrained networks, one central crop of 224×224 (its documentation, 0.8).
TOP5 = {
    "alexnet_single": 20.91,
    "vgg_a": 11.37,
    "vgg_b": 10.75,
    "vgg_d": 9.62,
    "vgg_e": 9.12,
    "googlenet_bn": 10.47,
    "resnet18": 10.92,
    "resnet34": 8.58,
    "resnet50": 7.13,
    "resnet101": 6.44,
    "resnet152": 5.94,
    "densenet121": 7.83,
    "densenet169": 7.00,
    "densenet201": 6.43,
}


def measure(settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Count what the workdir does not yet hold."""
    import json

    from capsnet_jax.models.summary import outline
    from capsnet_jax.sweeps.interrupt import Interrupted
    from capsnet_jax.sweeps.records import write_json

    path = _counts(workdir)
    found = json.loads(path.read_text()) if path.exists() else {}
    for name, error in TOP5.items():
        if name in found:
            continue
        if signum := stop():
            raise Interrupted(signum)
        counted = outline(name)
        found[name] = {"top5_error": error, "parameters": counted.parameters, "flops": counted.flops}
        write_json(path, found)
        print(f"{name}: {counted.parameters:,} parameters, {counted.flops / 1e9:.2f} GFLOP for one image", flush=True)


def report(workdir: Path) -> tuple[str, list[dict[str, Any]]]:
    """The table for the terminal, and its rows; writes ilsvrc_evolution.csv."""
    import csv
    import io
    import json

    from capsnet_jax.report.tables import align
    from capsnet_jax.sweeps.records import write_text

    if not _counts(workdir).exists():
        return "", []
    rows = [{"model": name} | counts for name, counts in json.loads(_counts(workdir).read_text()).items()]
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path = workdir / "ilsvrc_evolution.csv"
    write_text(path, text.getvalue())
    lines = [["model", "top-5 error %", "parameters", "GFLOP for one image"]]
    for row in rows:
        error, flops = f"{row['top5_error']:.2f}", f"{row['flops'] / 1e9:.2f}"
        lines.append([row["model"], error, f"{row['parameters']:,}", flops])
    return f"{align(lines, rule=True)}\n(errors as published, counts as built)\n\n{path}", rows


def figures(records: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """The challenge's winners by year and depth, and error against parameters and FLOPs."""
    from capsnet_jax import figures as draw

    return {"winners": draw.ilsvrc_winners(), "cost": draw.error_against_cost(records)}


def _counts(workdir: Path) -> Path:
    return workdir / "ilsvrc_evolution.json"
