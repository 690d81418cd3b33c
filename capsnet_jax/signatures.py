"""What a function asks for by naming it: what is added here gets what it needs, and need not name the rest."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function's signature names an argument."""
    return name in inspect.signature(function).parameters


def asked_for(function: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered arguments that a function's signature names."""
    return {name: value for name, value in offered.items() if takes(function, name)}
