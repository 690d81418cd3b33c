"""Settings as people type them: `path=value` to values and back, and the combinations that a sweep compares."""

import itertools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from capsnet_jax.config import ConfigError, Overrides, check, field_of, kinds_of, takes


def parse(path: str, text: str) -> Any:
    """The value that `text` spells for `path`.

    Raises:
        ConfigError: as `check`.
    """
    field = field_of(path)
    kinds = kinds_of(field)
    if type(None) in kinds and text.lower() == "none":
        return None
    kind = kinds[0]
    if not text:
        raise ConfigError(f"{path} takes {takes(path)}, not {text!r}")
    try:
        if typing.get_origin(kind) is tuple:
            value: Any = tuple(int(part) for part in text.split("x"))
        elif kind is bool:
            value = {"true": True, "false": False}[text.lower()]
        else:
            value = kind(text)
    except (ValueError, KeyError):
        value = text
    return check(path, value)


def parse_setting(text: str) -> tuple[str, list[Any]]:
    """`path=value,value,...` as the path and its values.

    Raises:
        ConfigError: no `=`, no value, or as `check`.
    """
    path, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"{text!r} is not a setting; write path=value, for example routing.iterations=3")
    return path.strip(), [parse(path.strip(), value.strip()) for value in values.split(",")]


def spell(value: Any) -> str:
    """The text that `parse` reads `value` from."""
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of {path: values} as a setting {path: value}, the last path fastest."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def sweep_over(arms: Sequence[Overrides], values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Settings `arms` with the paths of `values` swept instead: arms that differed only there become one."""
    kept: list[dict[str, Any]] = []
    for arm in arms:
        rest = {path: value for path, value in arm.items() if path not in values}
        if rest not in kept:
            kept.append(rest)
    return [arm | setting for arm in kept for setting in grid(values)]
