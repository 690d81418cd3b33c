"""Speed of the classic nets as multiples of torchvision's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

import capsnet_jax.figures.style as style
from capsnet_jax.bench.net_ratios import PHASES, Compared, compare

if TYPE_CHECKING:
    from capsnet_jax.bench.ledger import Row

# Torchvision's subjects, their names, colours and marks, and how far below its network's line each is.
_PEERS = {
    "torchvision": ("torchvision, PyTorch's own layout", style.ORANGE, "o", -0.15),
    "torchvision_channels_last": ("torchvision, channels last", style.VERMILLION, "s", 0.15),
}
_TICKS = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 20, 50, 100]


@style.styled
def speed_ratios(rows: Sequence[Row]) -> Figure:
    """Draws our speed over torchvision's in either layout, a line a network, a panel a phase.

    The number is the ratio to the faster layout, which is chosen in every round.

    Raises:
        ValueError: nothing was compared with torchvision.
    """
    compared = [each for each in compare(rows) if each.ratio]
    if not compared:
        raise ValueError("no row compares with torchvision")
    networks = list(dict.fromkeys(each.label for each in compared))
    phases = [phase for phase in PHASES if any(each.phase == phase for each in compared)]
    figure = style.new_figure(1.2 + 0.27 * len(networks))
    panels = figure.subplots(1, len(phases), squeeze=False, sharey=True)[0]
    for axes, phase in zip(panels, phases, strict=True):
        _panel(axes, [each for each in compared if each.phase == phase], networks)
        axes.set_xlabel(f"{phase}: our speed / torchvision's")
    style.legend(figure, panels)
    style.caption(figure, _caption(rows, compared))
    return figure


def _panel(axes: Axes, compared: Sequence[Compared], networks: Sequence[str]) -> None:
    for name, (label, colour, mark, below) in _PEERS.items():
        points = [(each.ratios[name], networks.index(each.label) + below) for each in compared if name in each.ratios]
        middle, lines = [point.median for point, _ in points], [line for _, line in points]
        reach = [[p.median - p.low for p, _ in points], [p.high - p.median for p, _ in points]]
        look = {"color": colour, "markersize": 4.5, "capsize": 2.5, "elinewidth": 1.2}
        axes.errorbar(middle, lines, xerr=reach, fmt=mark, label=label, **look)  # type: ignore[arg-type]
    axes.axvline(1, color=style.BLACK, linewidth=1, zorder=1)
    for each in compared:
        assert each.ratio is not None, "only networks that were compared are drawn"
        # Beside the panel: marks and bars have the panel for themselves.
        place = (1.01, networks.index(each.label))
        axes.annotate(f"{each.ratio.median:.2f}", place, xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set(xscale="log", ylim=(len(networks) - 0.4, -0.6))
    axes.margins(x=0.08)
    axes.set_yticks(range(len(networks)), networks)
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _caption(rows: Sequence[Row], compared: Sequence[Compared]) -> str:
    """Sizes, and how often was measured."""

    def span(values: Sequence[int]) -> str:
        low, high = min(values), max(values)
        return f"{low}" if low == high else f"{low} to {high}"

    sides = span([row.side for row in rows])
    rounds = span([each.ratio.n for each in compared if each.ratio])
    return (
        f"{sides}×{sides}×3 images, batch {span([row.batch for row in rows])}; in turns, median of n = {rounds} rounds,"
        " bar: least to greatest; number: to the layout that was faster in each round"
    )
