"""How are routing's numbers swept? An example: 23 settings × seeds in one compiled program, in minutes.

Numbers (temperature, scale of W, margins, weights, learning rate) are traced, so every value of them and every seed
runs in the same program. The table names the best settings by validation error; the test error stands beside them and
chooses nothing.

    python launch.py --experiment=sweep_demo
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from capsnet_jax.overrides import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from capsnet_jax.sweeps.records import Record

CONFIG: dict[str, object] = {"train.epochs": 5}

RATE, TEMPERATURE = "train.learning_rate", "routing.temperature"

_USUAL: dict[str, object] = {
    RATE: 0.003,
    TEMPERATURE: 1.0,
    "model.weight_scale": 0.1,
    "loss.m_plus": 0.9,
    "loss.m_minus": 0.1,
    "loss.reconstruction_weight": 0.0005,
}

# Learning rate × temperature, and around its middle every other setting alone.
SWEEP = [
    _USUAL | arm
    for arm in [
        *grid({RATE: (0.001, 0.003, 0.01), TEMPERATURE: (0.25, 0.5, 1.0, 2.0, 4.0)}),
        *grid({"model.weight_scale": (0.03, 0.3)}),
        *grid({"loss.m_plus": (0.8, 0.95)}),
        *grid({"loss.m_minus": (0.05, 0.2)}),
        *grid({"loss.reconstruction_weight": (0.0, 0.005)}),
    ]
]


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """The grid of learning rate and temperature as a map, and each other setting against the validation error."""
    from capsnet_jax import figures as draw
    from capsnet_jax.sweeps.records import compared

    paths = compared(records)
    usual = {path: max(values := [r.settings[path] for r in records], key=values.count) for path in paths}

    def only(*varied: str) -> list[Record]:
        return [r for r in records if all(r.settings[path] == usual[path] for path in paths if path not in varied)]

    drawn = {}
    if RATE in paths and TEMPERATURE in paths:
        drawn["rate_and_temperature"] = draw.setting_heatmap(only(RATE, TEMPERATURE), TEMPERATURE, RATE)
    for path in paths:
        drawn[f"{path.split('.')[-1]}"] = draw.error_against(only(path), path, quantity="validation_error")
    return drawn
