"""Do more routing iterations make a better CapsNet?

Claim: with reconstruction, MNIST test error falls from 0.29 ± 0.011 % with 1 iteration to 0.25 ± 0.005 % with 3
(Sabour, Frosst and Hinton 2017, Table 1); without, 0.34 ± 0.032 % and 0.35 ± 0.036 %, no difference.

    python launch.py --experiment=routing_iterations
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capsnet_jax.settings import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7}

SWEEP = grid({"routing.iterations": (1, 2, 3, 5, 7)})


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Learning curves, and test error against iterations."""
    from capsnet_jax import figures as draw
    from capsnet_jax.records import differing

    path = "routing.iterations"
    others = [other for other in differing(records) if other != path]
    return {
        "learning_curves": draw.learning_curves(records, by=[path, *others]),
        "error_against_iterations": draw.error_against(records, path, by=others),
    }
