"""How fast is this project beside plain JAX and PyTorch, and how does its speed grow with the work?

Goal: on a CPU, batch 128, paper preset with the decoder, to train 3.5 times as fast as the faster of PyTorch eager and
compiled and to infer twice as fast; three routing iterations for 1.15 times the step of one, and seven for 1.4 times.
What was reached: `results/throughput.csv`.

    python launch.py --experiment=throughput --preset=paper

Takes about 13 minutes on 2 cores; the machine should do nothing else. Nothing is trained to an end: every subject does
blocks of steps on synthetic images, each in a process of its own, in turns, so that ratios are of neighbours in time.
PyTorch is compared where it is installed (`pip install -e '.[peers]'`); peers compute in float32 whatever is set. Each
setting that --set and --sweep give is measured for itself; seeds and --across have no meaning here. An interrupted
measurement goes on at the group that was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capsnet_jax.bench.plan import USUAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.bench.ledger import Row
    from capsnet_jax.config import Config

CONFIG: dict[str, object] = USUAL

SWEEP: list[dict[str, object]] = [{}]


def measure(settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Measure what the workdir does not yet hold; see `capsnet_jax.bench`."""
    from capsnet_jax.bench import measure as bench

    bench.measure(settings, workdir, stop)


def report(workdir: Path) -> tuple[str, list[Row]]:
    """The table for the terminal, and the rows that figures are drawn from; writes throughput.csv."""
    from capsnet_jax.bench import ledger, ratios
    from capsnet_jax.sweeps.files import write_text

    rows = ledger.Ledger(workdir).rows()
    if not rows:
        return "", []
    table = workdir / "throughput.csv"
    write_text(table, ledger.to_csv(rows))
    return f"{ratios.summary(rows)}\n(median, least to greatest)\n\n{table}", rows


def figures(records: Sequence[Row]) -> dict[str, Figure]:
    """Every subject's speed, memory and compile time, and the scaling curves, for each setting measured."""
    from capsnet_jax import figures as draw

    drawn = {}
    for number, case in enumerate(dict.fromkeys(row.case for row in records)):
        rows = [row for row in records if row.case == case]
        name = case.split()[0] + (f"-{number}" if number else "")
        if any(row.group in draw.COMPARED for row in rows):
            drawn[f"subjects-{name}"] = draw.throughput_by_subject(rows)
        if any(row.group in draw.CURVES for row in rows):
            drawn[f"scaling-{name}"] = draw.throughput_scaling(rows)
    return drawn
