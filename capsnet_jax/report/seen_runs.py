"""What a network that was trained here makes of several images of its data set."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from capsnet_jax import figures, interpret
from capsnet_jax.figures.galleries import Cell, gallery, grey, signed
from capsnet_jax.figures.images import network_note
from capsnet_jax.interpret.capsule_maps import coupling_maps, primary_grid
from capsnet_jax.interpret.examples import Shown, of_each_class
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.targets import scores_of
from capsnet_jax.report.seen_photographs import SEED

SHOWN = 4
TYPES = 4  # of primary capsules
NOT_INVERTED = ("hidden", "lengths", "couplings", "routing_logits", "reconstruction")
STEPS = 256  # of an inversion


def examples(net: Network) -> Shown:
    """Return images of a few classes, one of each."""
    shown = of_each_class(net.data, 1)
    chosen = np.arange(len(shown.labels))[::-2][:SHOWN]
    return Shown(shown.images[chosen], shown.labels[chosen], shown.present[chosen], shown.split)


def strongest_channels(net: Network, shown: Shown) -> Figure:
    """Draw images, of each layer the strongest channel, and how long the primary capsules of each type are."""
    rows = _rows(net, shown)
    for layer in net.layers_with_positions():
        array = interpret.activations(net, shown.images, layer)
        channels = interpret.strongest_channel(array).tolist()
        for row, image, channel in zip(rows, np.asarray(array), channels, strict=True):
            row.append((f"{layer}: {channel}", grey(image[..., channel])))
    note = f"{_note(net, shown)}; of each layer the channel with the greatest activation"
    if net.is_capsnet:
        primary = interpret.activations(net, shown.images, "primary_activations")
        by_type = np.asarray(primary.reshape(len(primary), *primary_grid(net)))[..., :TYPES]
        for row, image in zip(rows, by_type, strict=True):
            row += [
                (f"{of_type.min():.2f} … {of_type.max():.2f}", grey(of_type)) for of_type in np.moveaxis(image, -1, 0)
            ]
        note += f"; the first {by_type.shape[-1]} types of primary capsules, how present they are"
    return gallery(rows, note=f"{note}; each tile on its own scale")


def inverted(net: Network, shown: Shown) -> Figure:
    """Draw images, and for each layer images that it hardly tells from them."""
    rows = _rows(net, shown)
    for layer in [name for name in net.layers() if name not in NOT_INVERTED]:
        made = interpret.invert(net, shown.images, layer, key=jax.random.key(SEED), steps=STEPS, chunk=SHOWN)
        for row, image, error in zip(rows, np.asarray(made.images), np.asarray(made.errors), strict=True):
            row.append((f"{layer}: {error:.2g}", image))
    what = "images made to give a layer the same activations F₀, with ‖F − F₀‖² / ‖F₀‖² of what they give"
    return gallery(rows, note=f"{_note(net, shown)}; {what}")


def couplings(net: Network, shown: Shown) -> Figure:
    """Draw where images are coupled more than uniformly to the capsule of the chosen class, and where votes agree."""
    maps: dict[str, np.ndarray] = {}
    for kind, name in {"difference": "coupled more than others", "coupled_votes": "votes agree"}.items():
        by_iteration = np.asarray(coupling_maps(net, shown.images, kind=kind))
        last = by_iteration.shape[1] - 1
        # The first couplings are uniform. A router that does not iterate has no others.
        drawn = range(1, last + 1) if kind == "difference" else dict.fromkeys((0, last))
        maps |= {f"{name}, {t + 1}": by_iteration[:, t] for t in drawn}
    names = [name for [(name, _)] in _rows(net, shown)]
    what = (
        "how much more than uniformly each part is coupled to the chosen class's capsule, and how far its votes agree"
    )
    return figures.overlay(
        shown.images, maps, names=names, signed=True, note=f"{_note(net, shown)}; {what}, by iteration"
    )


def activity_vectors(net: Network, shown: Shown) -> Figure:
    """Draw images, their class capsules, a row a class and a column a dimension, and what is reconstructed."""
    out = net.outputs(shown.images)
    capsules, lengths = np.asarray(out["capsules"]), np.asarray(out["lengths"])
    rows = _rows(net, shown)
    for number, row in enumerate(rows):
        best = int(lengths[number].argmax())
        row += [
            ("class capsules", signed(capsules[number])),
            (f"the chosen: {lengths[number, best]:.2f}", signed(capsules[number, best][None])),
        ]
        if "reconstruction" in out:
            row.append(("reconstruction", np.asarray(out["reconstruction"])[number]))
    what = "class capsules, a row a class and a column a dimension, and the chosen one alone; red: above 0, blue: below"
    return gallery(rows, note=f"{_note(net, shown)}; {what}")


def _note(net: Network, shown: Shown) -> str:
    return net.name if net.record is None else network_note(net.record, f"{shown.split} images")


def _rows(net: Network, shown: Shown) -> list[list[Cell]]:
    """Return a row for each image that begins with it: its class, and what the network takes it for if that differs."""
    chosen = jnp.argmax(scores_of(net.outputs(shown.images)), axis=-1).tolist()
    classes = net.data.label_names
    names = [
        " → ".join(classes[k] for k in dict.fromkeys(pair)) for pair in zip(shown.labels.tolist(), chosen, strict=True)
    ]
    return [[(name, image / 255)] for name, image in zip(names, shown.images, strict=True)]


ANY: dict[str, Callable[[Network, Shown], Figure]] = {"strongest_channels": strongest_channels, "inverted": inverted}
CAPSULES = {"couplings": couplings, "activity_vectors": activity_vectors}
