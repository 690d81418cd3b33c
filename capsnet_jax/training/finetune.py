"""Parameters layer by layer: what is frozen, what is copied from a pretrained network, and what starts anew."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import optax

from capsnet_jax.config import ConfigError, Finetune, check_word


def split_frozen(params: dict[str, Any], frozen: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those that are trained and those that are not.

    Args:
        params: a model's parameters, layer by layer.
        frozen: names of layers, joined by "+"; "none" for none.
    """
    names = layer_names(frozen)
    trained = {name: leaves for name, leaves in params.items() if name not in names}
    return trained, {name: params[name] for name in names}


def copy_pretrained(
    fresh: dict[str, Any], pretrained: dict[str, Any], settings: Finetune, head_layers: Collection[str]
) -> dict[str, Any]:
    """Return the parameters to start from: the pretrained ones, but for the layers that start anew.

    Args:
        fresh: fresh parameters, or batch norm's running statistics, layer by layer.
        pretrained: the same of the pretrained network.
        settings: which layers start anew.
        head_layers: layers that tell the classes.
    """
    anew = reinitialized_layers(fresh, settings, head_layers)
    return {name: leaves if name in anew else pretrained[name] for name, leaves in fresh.items()}


def scale_pretrained_updates(
    settings: Finetune, layers: Iterable[str], head_layers: Collection[str]
) -> optax.GradientTransformation:
    """Scale the updates of pretrained layers by `lr_multiplier`; the others' are left as they are."""
    layers = list(layers)
    anew = reinitialized_layers(layers, settings, head_layers)
    labels = {name: "reinitialized" if name in anew else "pretrained" for name in layers}
    scales = {"reinitialized": optax.identity(), "pretrained": optax.scale(settings.lr_multiplier)}
    return optax.multi_transform(scales, labels)


def check_frozen(params: Mapping[str, Any], frozen: str) -> None:
    """Look for mistakes in the names of frozen layers.

    Raises:
        ConfigError: no such layer, or nothing is left to train.
    """
    for name in layer_names(frozen):
        check_word("train.frozen", name, params.keys())
    if set(params) <= set(layer_names(frozen)):
        raise ConfigError(f"train.frozen={frozen} leaves nothing to train; there are: {', '.join(params)}")


def check_pretrained(
    fresh: Mapping[str, Any], pretrained: Mapping[str, Any], settings: Finetune, head_layers: Collection[str]
) -> None:
    """Look for mistakes in what is copied; shapes will do for parameters.

    Raises:
        ConfigError: no such layer, or a layer to be copied has another shape in the pretrained network.
    """
    anew = reinitialized_layers(fresh, settings, head_layers)
    for name in anew:
        check_word("finetune.reinitialize", name, fresh.keys())
    for name in set(fresh) - set(anew):
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree[name]) for tree in (fresh, pretrained)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"finetune.source={settings.source}: layer {name} has another shape there, as images or classes differ;"
                f" add it to finetune.reinitialize={'+'.join(anew)}"
            )


def reinitialized_layers(layers: Iterable[str], settings: Finetune, head_layers: Collection[str]) -> list[str]:
    """Return the layers that start anew."""
    if settings.reinitialize == "head":
        return [name for name in layers if name in head_layers]
    return layer_names(settings.reinitialize)


def layer_names(joined: str) -> list[str]:
    """Return the layers that a setting names."""
    return [] if joined == "none" else joined.split("+")
