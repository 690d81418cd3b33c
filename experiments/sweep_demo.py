"""How are routing's numbers swept? An example: 23 settings × seeds in one compiled program, in minutes.

Numbers (temperature, scale of W, margins, weights, learning rate) are traced, so every value of them and every seed
runs in the same program. The table names the best settings by validation error; the test error stands beside them and
chooses nothing.

    python launch.py --experiment=sweep_demo
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.error_against import error_against
from capsnet_jax.figures.forest import error_by_setting
from capsnet_jax.figures.grouping import Arms, Record, compared_paths, missing_arms
from capsnet_jax.figures.heatmap import setting_heatmap
from capsnet_jax.overrides import grid

CONFIG: dict[str, object] = {"train.epochs": 5}

ERROR = "validation_error"
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
    """Draw the grid of learning rate and temperature as a map, and each other setting against the validation error.

    Arms that neither has a place for have a row each in one figure more.
    """
    paths, arms = compared_paths(records), Arms(records, SWEEP)
    default = _middle(records, paths)

    def varying_only(*varied: str) -> list[Record]:
        fixed = [path for path in paths if path not in varied]
        return [r for r in records if all(r.settings.get(path) == default.settings.get(path) for path in fixed)]

    drawn, shown = {}, []
    grid_runs = varying_only(RATE, TEMPERATURE)
    if all(_takes_several_numbers(grid_runs, path) for path in (RATE, TEMPERATURE)):
        drawn["rate_and_temperature"] = setting_heatmap(grid_runs, TEMPERATURE, RATE)
        shown += grid_runs
    for path in paths:
        if _takes_several_numbers(runs := varying_only(path), path):
            title = path.split(".")[-1]
            drawn[title if title not in drawn else path] = error_against(runs, path, quantity=ERROR, arms=arms)
            shown += runs
    if rest := [record for record in records if not any(record is other for other in shown)]:
        drawn["other_arms"] = error_by_setting(rest, paths, quantity=ERROR, arms=arms)
    for figure in drawn.values():
        style.add_to_caption(figure, missing_arms(records, SWEEP))
    return drawn


def _middle(records: Sequence[Record], paths: Sequence[str]) -> Record:
    """Return a run of the setting that most settings differ from in one path alone."""
    settings = {tuple(str(r.settings.get(path)) for path in paths): r for r in reversed(records)}

    def neighbours(setting: tuple[str, ...]) -> int:
        return sum(sum(a != b for a, b in zip(setting, other, strict=True)) == 1 for other in settings)

    return settings[max(reversed(settings), key=neighbours)]


def _takes_several_numbers(records: Sequence[Record], path: str) -> bool:
    values = {record.settings.get(path) for record in records}
    return len(values) > 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
