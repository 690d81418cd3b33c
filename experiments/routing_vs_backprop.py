"""What does routing add to backpropagation?

Claim: on Fashion-MNIST a CapsNet reaches 92.3 % validation accuracy "without backpropagation" and 92.4 % with it (a
slide of 2017, one seed, 50 epochs; its figure is redrawn here). The slide does not define its arms. Most likely the
gradient is stopped through the inner routing iterations in the one and passes through all of them in the other.
Beside those two stand the arms that tell routing from backpropagation alone: one iteration, so uniform couplings;
static couplings that backpropagation learns, and static random ones; W frozen at random while the rest is trained; and
everything frozen but the decoder, so that routing alone decides. And each of the routed networks is tested with other
iterations than it was trained with.

    python launch.py --experiment=routing_vs_backprop --dataset=fashion_mnist
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"routing.probe": 7}


def _arm(name: str = "dynamic", iterations: int = 3, gradient: str = "full", frozen: str = "none") -> dict[str, object]:
    return {
        "routing.name": name,
        "routing.iterations": iterations,
        "routing.gradient": gradient,
        "train.frozen": frozen,
    }


SWEEP = [
    _arm(),
    _arm(gradient="stop"),
    _arm(iterations=1),
    _arm("learned"),
    _arm("random"),
    _arm(frozen="digit"),
    _arm(frozen="conv1+primary+digit"),
]


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Test error of each arm, learning curves, and the slide's figure where both of its arms were run."""
    from capsnet_jax import figures as draw
    from capsnet_jax.sweeps.records import compared

    arms = list(SWEEP[0])
    by = compared(records, arms)
    drawn = {
        "error_by_arm": draw.error_by_setting(records, by=by),
        "learning_curves": draw.learning_curves(records, by=by),
    }
    if len({record.seed for record in records}) < len(records):
        drawn["paired"] = draw.compare_arms(records, by=by, reference=SWEEP[0])
    usual = {"routing.name": "dynamic", "routing.iterations": 3, "train.frozen": "none"}
    dynamic = [record for record in records if all(record.settings[path] == value for path, value in usual.items())]
    for dataset in dict.fromkeys(record.settings["data.dataset"] for record in records):
        own = [record for record in dynamic if record.settings["data.dataset"] == dataset]
        # The slide's two columns are two settings; where a sweep compares more, they would mix.
        if set(compared(own)) == {"routing.gradient"}:
            without, with_ = ([r for r in own if r.settings["routing.gradient"] == g] for g in ("stop", "full"))
            reference = draw.SLIDE_POINTS if dataset == "fashion_mnist" else None
            drawn[f"slide_{dataset.replace('/', '_')}"] = draw.routing_against_backprop(without, with_, reference)
    return drawn
