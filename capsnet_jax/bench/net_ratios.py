"""Our networks' speeds as multiples of torchvision's, round by round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from capsnet_jax.bench.ledger import Row
from capsnet_jax.bench.nets import PEERS
from capsnet_jax.bench.ratios import OURS, Spread, by_round, fastest, ratio, select, spread
from capsnet_jax.bench.workload import NETS
from capsnet_jax.report.tables import align

PHASES = ("training", "inference")


class Compared(NamedTuple):
    """One network at one setting in one phase.

    Attributes:
        label: the network, with its settings where it was measured at several.
        phase: "training" or "inference".
        ours: images/s.
        theirs: images/s of the faster of torchvision's layouts in every round; None if it was not measured.
        ratios: {torchvision's subject: ours over its speed in the same round}.
        ratio: ours over `theirs` in the same round; None if there is no such round.
    """

    label: str
    phase: str
    ours: Spread
    theirs: Spread | None
    ratios: dict[str, Spread]
    ratio: Spread | None


def compare(rows: Sequence[Row]) -> list[Compared]:
    """Every network and phase that was measured, the networks in the order of `NETS`."""
    found = []
    for case, label in labels(rows).items():
        for phase in PHASES:
            own = select(rows, case=case, quantity=phase)
            ours = by_round(select(own, subject=OURS))
            if not ours:
                continue
            each = {peer: by_round(select(own, subject=peer)) for peer in PEERS}
            quotients = {peer: quotient for peer, speeds in each.items() if (quotient := ratio(ours, speeds))}
            best = fastest(list(each.values()))
            theirs = spread(best.values()) if best else None
            found.append(Compared(label, phase, spread(ours.values()), theirs, quotients, ratio(ours, best)))
    return found


def labels(rows: Iterable[Row]) -> dict[str, str]:
    """{case: its network}, with the case's other settings where a network has several cases."""
    networks = {row.case: row.model for row in rows}
    counts = list(networks.values())
    order = sorted(networks, key=lambda case: list(NETS).index(networks[case]))

    def label(case: str) -> str:
        words = [word for word in case.split()[1:] if not word.startswith("model.name=")]
        return " ".join([networks[case], *words]) if counts.count(networks[case]) > 1 else networks[case]

    return {case: label(case) for case in order}


def geometric_mean(values: Sequence[float]) -> float:
    """Of ratios: that of the reciprocals is its reciprocal."""
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(rows: Sequence[Row]) -> str:
    """For the terminal: a line a network, medians of the speeds, and the ratios with their spread."""
    compared = {(each.label, each.phase): each for each in compare(rows)}
    table = [["", *(word for phase in PHASES for word in (phase, "torchvision", "ratio"))]]
    for label in dict.fromkeys(label for label, _ in compared):
        line = [label]
        for phase in PHASES:
            each = compared.get((label, phase))
            theirs = f"{each.theirs.median:.3g}" if each and each.theirs else ""
            line += [f"{each.ours.median:.3g}" if each else "", theirs, str(each.ratio) if each and each.ratio else ""]
        table.append(line)
    parts = [align(table, rule=True)]
    for phase in PHASES:
        medians = [each.ratio.median for each in compared.values() if each.phase == phase and each.ratio]
        if len(medians) > 1:
            parts.append(f"{phase}: {geometric_mean(medians):.3g}, geometric mean of {len(medians)} ratios")
    return "\n".join(parts)
