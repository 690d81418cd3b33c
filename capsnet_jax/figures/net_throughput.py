"""Speed of the classic nets as multiples of torchvision's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import capsnet_jax.figures.style as style
from capsnet_jax.bench.workload import NETS, OURS

if TYPE_CHECKING:  # to import pandas takes half a second, and most figures need none
    import pandas as pd

PHASES = ("training", "inference")
# torchvision's subjects, their names, colours and marks, and how far below its net's line each is.
_PEERS = {
    "torchvision": ("torchvision, PyTorch's own layout", style.ORANGE, "o", -0.15),
    "torchvision_channels_last": ("torchvision, channels last", style.VERMILLION, "s", 0.15),
}


def net_speeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the speeds of one machine's measurements, a row a (net, phase, round), the nets in the order of `NETS`.

    Columns: each subject's images/s; "theirs", that of torchvision's faster layout in that round; "ratio …", ours over
    each of them. A net that was measured at several settings is named with its settings.
    """
    speeds = rows[rows["quantity"].isin(PHASES)]
    order = {name: index for index, name in enumerate(NETS)}
    speeds = speeds.assign(net=_labels(speeds)).sort_values("model", key=lambda names: names.map(order), kind="stable")
    wide = speeds.pivot_table(index=["net", "quantity", "round"], columns="subject", values="value", sort=False)
    wide = wide.rename_axis(index=["net", "phase", "round"], columns=None).reindex(columns=[OURS, *_PEERS])
    wide["theirs"] = wide[list(_PEERS)].max(axis=1)
    for peer in (*_PEERS, "theirs"):
        wide[f"ratio {peer}"] = wide[OURS] / wide[peer]
    return wide.dropna(subset=OURS)


def _labels(rows: pd.DataFrame) -> pd.Series:
    several = rows.groupby("model")["case"].transform("nunique") > 1
    settings = (
        rows["case"]
        .str.split()
        .str[1:]
        .map(lambda parts: [part for part in parts if not part.startswith("model.name=")])
    )
    return rows["model"].where(~several, rows["model"] + " " + settings.str.join(" ")).str.strip()


@style.styled
def speed_ratios(rows: pd.DataFrame) -> Figure:
    """Draw our speed over torchvision's in either layout, a line a net, a panel a phase.

    The number is the ratio to the faster layout, which is chosen in every round.

    Args:
        rows: measurements of one machine.

    Raises:
        ValueError: nothing was compared with torchvision.
    """
    speeds = net_speeds(rows).dropna(subset="ratio theirs")
    if speeds.empty:
        raise ValueError("no measurement compares with torchvision")
    nets = list(speeds.index.unique("net"))
    phases = [phase for phase in PHASES if phase in speeds.index.unique("phase")]
    figure = style.new_figure(1.2 + 0.27 * len(nets))
    panels = figure.subplots(1, len(phases), squeeze=False, sharey=True)[0]
    for axes, phase in zip(panels, phases, strict=True):
        _panel(axes, speeds.xs(phase, level="phase"), nets)
        axes.set_xlabel(f"{phase}: our speed / torchvision's")
    style.legend(figure, panels)
    side, counts = _span(rows["side"]), _span(speeds.groupby(["net", "phase"]).size())
    style.caption(
        figure,
        f"{rows['machine'].iloc[0]}; {side}×{side}×3 images, batch {_span(rows['batch'])}; in turns, median of n ="
        f" {counts} rounds, bar: least to greatest; number: to the layout that was faster in each round; black line:"
        " equal speed",
    )
    return figure


def _panel(axes: Axes, speeds: pd.DataFrame, nets: list[str]) -> None:
    for peer, (label, colour, mark, below) in _PEERS.items():
        points = speeds[f"ratio {peer}"].dropna().groupby("net", sort=False).agg(["median", "min", "max"])
        lines = [nets.index(net) + below for net in points.index]
        reach = [points["median"] - points["min"], points["max"] - points["median"]]
        look = {"color": colour, "markersize": 4.5, "capsize": 2.5, "elinewidth": 1.2}
        axes.errorbar(points["median"], lines, xerr=reach, fmt=mark, label=label, **look)  # type: ignore[arg-type]
    axes.axvline(1, color=style.BLACK, linewidth=1, zorder=1)
    for net, ratio in speeds.groupby("net")["ratio theirs"].median().items():
        # Beside the panel: marks and bars have the panel for themselves.
        position = (1.01, nets.index(str(net)))
        axes.annotate(f"{ratio:.2f}", position, xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.set(xscale="log", ylim=(len(nets) - 0.4, -0.6))
    axes.margins(x=0.08)
    axes.set_yticks(range(len(nets)), nets)
    style.log_ticks(axes.xaxis)
    axes.xaxis.set_minor_locator(NullLocator())


def _span(values: pd.Series) -> str:
    return f"{values.min()}" if values.min() == values.max() else f"{values.min()} to {values.max()}"
