"""Parameters in parts, layer by layer: what is frozen, what is taken over from a source, and what starts anew."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import optax

from capsnet_jax.config import ConfigError, Transfer, check_word

OUTPUT = ("classes", "digit", "aux1", "aux2")  # layers that tell the classes, in whichever model has them


def split(params: dict[str, Any], frozen: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is trained and what is not; together they are all of `params`.

    Args:
        params: a model's parameters, layer by layer.
        frozen: names of layers, joined by "+"; "none" for none.
    """
    names = names_of(frozen)
    trained = {name: leaves for name, leaves in params.items() if name not in names}
    return trained, {name: params[name] for name in names}


def take_over(own: dict[str, Any], source: dict[str, Any], settings: Transfer) -> dict[str, Any]:
    """The parameters to start from: the source's, but for the layers that start anew.

    Args:
        own: fresh parameters, or batch norm's running statistics, layer by layer.
        source: the same of the network that is started from.
        settings: which layers start anew.
    """
    fresh = fresh_in(own, settings)
    return {name: leaves if name in fresh else source[name] for name, leaves in own.items()}


def scale_taken(settings: Transfer, layers: Iterable[str]) -> optax.GradientTransformation:
    """A factor for the updates of the layers that were taken over; the others' are left as they are."""
    names = list(layers)
    fresh = fresh_in(names, settings)
    parts = {name: "fresh" if name in fresh else "taken" for name in names}
    return optax.multi_transform({"fresh": optax.identity(), "taken": optax.scale(settings.rate)}, parts)


def check_frozen(params: Mapping[str, Any], frozen: str) -> None:
    """Look for mistakes in the names of layers.

    Raises:
        ConfigError: no such layer, or nothing is left to train.
    """
    for name in names_of(frozen):
        check_word("train.frozen", name, params.keys())
    if set(params) <= set(names_of(frozen)):
        raise ConfigError(f"train.frozen={frozen} leaves nothing to train; there are: {', '.join(params)}")


def check_taken(own: Mapping[str, Any], source: Mapping[str, Any], settings: Transfer) -> None:
    """Look for mistakes in what is taken over; shapes will do for parameters.

    Raises:
        ConfigError: no such layer, or a layer to be taken over has another shape in the source.
    """
    fresh = fresh_in(own, settings)
    for name in fresh:
        check_word("transfer.fresh", name, own.keys())
    for name in set(own) - set(fresh):
        mine, theirs = (jax.tree.map(lambda leaf: leaf.shape, tree[name]) for tree in (own, source))
        if mine != theirs:
            raise ConfigError(
                f"transfer.source={settings.source}: layer {name} has another shape there, as images or classes differ;"
                f" add it to transfer.fresh={'+'.join(fresh)}"
            )


def fresh_in(layers: Iterable[str], settings: Transfer) -> list[str]:
    """The layers that start anew."""
    return [name for name in layers if name in OUTPUT] if settings.fresh == "output" else names_of(settings.fresh)


def names_of(joined: str) -> list[str]:
    """The layers that a setting names."""
    return [] if joined == "none" else joined.split("+")
