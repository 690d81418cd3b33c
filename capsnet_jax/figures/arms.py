"""The figures of an experiment that compares arms: each one's error, what it differs by, and its learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import learning_curves
from capsnet_jax.figures.forest import error_by_setting, has_pairs, paired_differences
from capsnet_jax.figures.grouping import Arms, Record, missing_arms


def compare_arms(
    records: Sequence[Record],
    by: Sequence[str],
    *,
    declared: Sequence[Mapping[str, object]],
    baseline: Mapping[str, object] | None = None,
    quantities: Mapping[str, str] | None = None,
) -> dict[str, Figure]:
    """Draw "test_error", "differences" from the baseline's, other quantities, and "learning_curves".

    Args:
        records: finished runs.
        by: the paths whose distinct values are the arms.
        declared: the experiment's arms, {path: value}. Each has its own colour, and those without a run are named.
        baseline: the arm that differences are from; None, or an arm without runs: they are not drawn.
        quantities: {name of a figure: name of what it shows in `Record.result`}; runs without it are left out.
    """
    arms = Arms(records, declared)
    drawn = {"test_error": error_by_setting(records, by, arms=arms)}
    if baseline is not None and has_pairs(records, by, baseline):
        drawn["differences"] = paired_differences(records, by, baseline=dict(baseline), arms=arms)
    for name, quantity in (quantities or {}).items():
        if having := [record for record in records if quantity in record.result]:
            drawn[name] = error_by_setting(having, by, quantity=quantity, arms=arms)
    drawn["learning_curves"] = learning_curves(records, by, arms=arms)
    return name_missing(drawn, records, declared)


def name_missing(
    drawn: dict[str, Figure], records: Sequence[Record], declared: Sequence[Mapping[str, object]]
) -> dict[str, Figure]:
    """Add to the caption of each figure which of the declared arms have no run."""
    for figure in drawn.values():
        style.add_to_caption(figure, missing_arms(records, declared))
    return drawn
