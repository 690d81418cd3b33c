"""How are routing's numbers swept? An example: 23 settings × seeds in one compiled program, in minutes.

Numbers (temperature, scale of W, margins, weights, learning rate) are traced, so every value of them and every seed
runs in the same program. The table names the best settings by validation error; the test error stands beside them and
chooses nothing.

    python launch.py --experiment=sweep_demo
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from capsnet_jax.figures.error_against import error_against
from capsnet_jax.figures.grouping import Record, compared_paths
from capsnet_jax.figures.heatmap import setting_heatmap
from capsnet_jax.overrides import grid

CONFIG: dict[str, object] = {"train.epochs": 5}

RATE, TEMPERATURE = "train.learning_rate", "routing.temperature"

_DEFAULT: dict[str, object] = {
    RATE: 0.003,
    TEMPERATURE: 1.0,
    "model.weight_scale": 0.1,
    "loss.m_plus": 0.9,
    "loss.m_minus": 0.1,
    "loss.reconstruction_weight": 0.0005,
}

# Learning rate × temperature, and around its middle every other setting alone.
SWEEP = [
    _DEFAULT | arm
    for arm in [
        *grid({RATE: (0.001, 0.003, 0.01), TEMPERATURE: (0.25, 0.5, 1.0, 2.0, 4.0)}),
        *grid({"model.weight_scale": (0.03, 0.3)}),
        *grid({"loss.m_plus": (0.8, 0.95)}),
        *grid({"loss.m_minus": (0.05, 0.2)}),
        *grid({"loss.reconstruction_weight": (0.0, 0.005)}),
    ]
]

CAPTIONS = {
    "rate_and_temperature": "mean validation error over learning rate and temperature",
}


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw the grid of learning rate and temperature as a map, and each other setting against the validation error."""
    paths = compared_paths(records)
    default = {path: max(values := [r.settings.get(path) for r in records], key=values.count) for path in paths}

    def varying_only(*varied: str) -> list[Record]:
        fixed = [path for path in paths if path not in varied]
        return [record for record in records if all(record.settings.get(path) == default[path] for path in fixed)]

    drawn = {}
    if RATE in paths and TEMPERATURE in paths:
        grid_runs = varying_only(RATE, TEMPERATURE)
        drawn["rate_and_temperature"] = setting_heatmap(grid_runs, TEMPERATURE, RATE)
    for path in paths:
        drawn[path.split(".")[-1]] = error_against(varying_only(path), path, quantity="validation_error")
    return drawn
