"""How fast are the classic conv nets beside torchvision's?

A training step (forward, backward, Adam) and inference, images of 224×224×3, 1000 classes, batch 8, float32, of every
network that torchvision has too. Goal: none to be slower than the faster of torchvision's two layouts.

    python launch.py --experiment=throughput_nets
    python launch.py --experiment=throughput_nets --set model.name=resnet50
    python launch.py --experiment=throughput_nets --sweep model.name=resnet18,densenet121 --sweep train.batch_size=1,8

Three processes a network and phase: ours, torchvision's in PyTorch's own layout, and with channels last in memory, both
run eagerly (`torch.compile` is not compared). They do blocks of steps on 256 synthetic images in turns, 10 seconds each
in training and 2 in inference, so that ratios are of neighbours in time: four rounds, and these three times with new
processes, as which memory a process happens to get may decide its speed for good. All three are in memory at once:
VGG's parameters, gradients and Adam's moments alone are 2.3 GB a process. Our training steps of the nets with many
layers take a minute and 2 to 3 GB to compile (GoogLeNet, DenseNet-121), which peak memory includes; a network that
fails is told, and the others are measured. All three get memory in large pages, as `launch.py` asks for them, which
makes torchvision's nets faster too. The machine should do nothing else.

torchvision is compared where it is installed (`pip install -e '.[peers]'`); it computes in float32 whatever is set. Our
step also counts errors and looks whether all is finite, as it does for users. An interrupted measurement goes on at the
group that was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from capsnet_jax.bench.workload import NETS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.bench.ledger import Row
    from capsnet_jax.config import Config

# Images are not shifted, as torchvision's are not; the rate is small, so that weights stay near where they start.
CONFIG: dict[str, object] = {"train.batch_size": 8, "train.learning_rate": 1e-4, "data.max_shift": 0}

SWEEP: list[dict[str, object]] = [{"model.name": name} for name in NETS]


def measure(settings: Sequence[Config], workdir: Path, stop: Callable[[], int | None]) -> None:
    """Measure what the workdir does not yet hold; see `capsnet_jax.bench`."""
    from capsnet_jax.bench import measure as bench
    from capsnet_jax.bench import nets

    bench.measure(settings, workdir, stop, nets)


def report(workdir: Path) -> tuple[str, list[Row]]:
    """The table for the terminal, and the rows that figures are drawn from; writes throughput_nets.csv."""
    from capsnet_jax.bench import ledger, net_ratios, nets
    from capsnet_jax.sweeps.files import write_text

    rows = ledger.Ledger(workdir, nets.EXPERIMENT).rows()
    if not rows:
        return "", []
    table = workdir / f"{nets.EXPERIMENT}.csv"
    write_text(table, ledger.to_csv(rows))
    words = "images/s; torchvision's is the faster of two layouts in every round; (least to greatest)"
    return f"{net_ratios.summary(rows)}\n({words})\n\n{table}", rows


def figures(records: Sequence[Row]) -> dict[str, Figure]:
    """Ours over torchvision's speed of every network, where it was measured."""
    from capsnet_jax import figures as draw
    from capsnet_jax.bench.net_ratios import compare

    return {"ratios": draw.speed_ratios(records)} if any(each.ratio for each in compare(records)) else {}
