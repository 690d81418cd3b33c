"""What the rows say: medians with their spread, and ratios of what was measured in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from capsnet_jax.bench.ledger import Row
from capsnet_jax.report.tables import align

OURS = "capsnet_jax"


class Spread(NamedTuple):
    """n values by their median, least and greatest."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """As 4.21 (4.10 to 4.35, n = 5)."""
        if self.n == 1:
            return f"{self.median:.3g} (n = 1)"
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, n = {self.n})"


def spread(values: Iterable[float]) -> Spread:
    """The spread of at least one value."""
    values = list(values)
    return Spread(statistics.median(values), min(values), max(values), len(values))


def select(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """The rows whose fields are as wanted."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())]


def by_round(rows: Iterable[Row]) -> dict[int, float]:
    """Value by round of rows that differ in nothing else."""
    return {row.round: row.value for row in rows}


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> Spread | None:
    """Quotients of the rounds that both have; None if there are none."""
    quotients = [above[number] / below[number] for number in above if below.get(number)]
    return spread(quotients) if quotients else None


def fastest(candidates: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """In every round the greatest value."""
    rounds = {number for values in candidates for number in values}
    return {number: max(values[number] for values in candidates if number in values) for number in rounds}


def ratios(rows: Sequence[Row], case: str) -> dict[str, Spread]:
    """The comparisons of one case by name, as far as they were measured; above 1 favours this project.

    Costs (step time over iterations, memory, compile seconds) are the exception: the smaller the better.
    """
    own = select(rows, case=case)
    preset = case.split()[0]

    def speed(group: str, subject: str = OURS, **where: object) -> dict[int, float]:
        where = {"preset": preset} | where
        quantity = "inference" if group == "inference" else "training"
        return by_round(select(own, group=group, subject=subject, quantity=quantity, **where))

    def torch(group: str) -> dict[int, float]:
        return fastest([speed(group, peer) for peer in ("pytorch", "pytorch_compiled")])

    def single(quantity: str, subject: str = OURS) -> dict[int, float]:
        return by_round(select(own, quantity=quantity, subject=subject, preset=preset, group=quantity.split("_")[0]))

    def steps(iterations: int) -> dict[int, float]:
        return speed("iterations", iterations=iterations)

    together, alone = (by_round(select(own, group="seeds", quantity=f"fit_{how}")) for how in ("together", "alone"))
    seeds = next((row.runs for row in select(own, group="seeds")), 0)
    found = {
        "training speed / faster of PyTorch": ratio(speed("training"), torch("training")),
        "inference speed / faster of PyTorch": ratio(speed("inference"), torch("inference")),
        "training speed / plain JAX": ratio(speed("training"), speed("training", "plain_jax")),
        "inference speed / plain JAX": ratio(speed("inference"), speed("inference", "plain_jax")),
        "training memory / PyTorch eager": ratio(single("training_memory"), single("training_memory", "pytorch")),
        "inference memory / PyTorch eager": ratio(single("inference_memory"), single("inference_memory", "pytorch")),
        "step time r = 3 / r = 1": ratio(steps(1), steps(3)),
        "step time r = 7 / r = 1": ratio(steps(1), steps(7)),
        "training speed small / paper": ratio(speed("training", preset="small"), speed("training", preset="paper")),
        f"{seeds} seeds of small alone / in one program, time": ratio(alone, together),
    }
    compiled = {
        f"compile time, {how} [s]": [
            r.value for r in select(own, subject=OURS, preset=preset, quantity=f"compile_{how}")
        ]
        for how in ("cold", "warm")
    }
    return {name: value for name, value in found.items() if value} | {
        name: spread(values) for name, values in compiled.items() if values
    }


_COLUMNS: dict[str, Callable[[Row], bool]] = {
    "training images/s": lambda row: row.quantity == "training" and row.group == "training",
    "inference images/s": lambda row: row.quantity == "inference",
    "training MB": lambda row: row.quantity == "training_memory" and row.group == "training",
    "inference MB": lambda row: row.quantity == "inference_memory",
    "compile cold s": lambda row: row.quantity == "compile_cold",
    "compile warm s": lambda row: row.quantity == "compile_warm",
}


def summary(rows: Sequence[Row]) -> str:
    """For the terminal, case by case: medians of every subject, and the ratios with their spread."""
    parts = []
    for case in dict.fromkeys(row.case for row in rows):
        own = select(rows, case=case)
        compared = [row for row in own if row.group in ("training", "inference", "compile")]
        table = [["", *_COLUMNS]]
        for subject, preset in dict.fromkeys((row.subject, row.preset) for row in compared):
            of_it = select(compared, subject=subject, preset=preset)
            cells = [[row.value for row in of_it if belongs(row)] for belongs in _COLUMNS.values()]
            table.append([f"{subject}, {preset}", *(f"{statistics.median(c):,.4g}" if c else "" for c in cells)])
        lines = [[name, str(value)] for name, value in ratios(rows, case).items()]
        parts.append("\n\n".join(filter(None, [case, align(table) if compared else "", align(lines)])))
    return "\n\n".join(parts)
