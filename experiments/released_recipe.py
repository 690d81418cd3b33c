"""What of the released CapsNet's recipe makes it as good as it is?

The paper errs on 0.25 % of MNIST's test images (Sabour, Frosst and Hinton 2017, Table 1). The code that its authors
released does five things that the paper does not tell: conv1's part in the primary capsules is divided by the number of
their types; class capsules have a bias inside the routing; the margin loss is a twentieth, so that the reconstruction
weighs twenty times more; all 25 shifts of a digit come one behind the other; and kernels and biases start otherwise.
`--preset=released` has all of them. Here one is taken away at a time, and all.

    python launch.py --experiment=released_recipe --dataset=mnist --seeds=3

The net is the small one, and trains for 60 epochs in place of 640; the learning rate falls in proportion. The paper's:

    python launch.py --experiment=released_recipe --dataset=mnist --set model.name=capsnet --sweep train.epochs=640
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.config import PRESETS
from capsnet_jax.figures.arms import compare_arms
from capsnet_jax.figures.grouping import Record, compared_paths
from capsnet_jax.figures.labels import MODEL

# Path → as released, as everyone else has it.
INGREDIENTS: dict[str, tuple[object, object]] = {
    "model.divide_primary": (True, False),
    "routing.bias": (True, False),
    "loss.form": ("official", "paper"),
    "data.shift_order": ("in_turn", "random"),
    "model.start": ("released", "he"),
}

CONFIG: dict[str, object] = PRESETS["released"] | {
    MODEL: "capsnet_small",
    "train.epochs": 60,
    "eval.test_each_epoch": True,
}

BASELINE: dict[str, object] = {path: released for path, (released, _) in INGREDIENTS.items()}

SWEEP: list[dict[str, object]] = [
    BASELINE,
    *(BASELINE | {path: usual} for path, (_, usual) in INGREDIENTS.items()),
    {path: usual for path, (_, usual) in INGREDIENTS.items()},
]

CAPTIONS = {
    "test_error": "test error after the last epoch, with the released recipe and without one or all of its ingredients",
    "differences": "test error less that of the whole recipe",
    "learning_curves": "each metric by epoch",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw errors, their differences from the whole recipe, and learning curves."""
    return compare_arms(records, compared_paths(records, [MODEL, *INGREDIENTS]), declared=SWEEP, baseline=BASELINE)
