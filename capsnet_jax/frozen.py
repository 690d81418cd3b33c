"""Layers that stay as they start: parameters in two parts, so that no gradient is computed for one of them."""

from typing import Any

from capsnet_jax.config import ConfigError, check_word


def split(params: dict[str, Any], frozen: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is trained and what is not; together they are all of `params`.

    Args:
        params: a model's parameters, layer by layer.
        frozen: names of layers, joined by "+"; "none" for none.
    """
    names = names_of(frozen)
    trained = {name: leaves for name, leaves in params.items() if name not in names}
    return trained, {name: params[name] for name in names}


def check(params: dict[str, Any], frozen: str) -> None:
    """Look for mistakes in the names of layers.

    Raises:
        ConfigError: no such layer, or nothing is left to train.
    """
    for name in names_of(frozen):
        check_word("train.frozen", name, params.keys())
    if not split(params, frozen)[0]:
        raise ConfigError(f"train.frozen={frozen} leaves nothing to train; there are: {', '.join(params)}")


def names_of(frozen: str) -> list[str]:
    """The layers that `train.frozen` names."""
    return [] if frozen == "none" else frozen.split("+")
