"""What a net that has seen ImageNet makes of three photographs that come with matplotlib and scikit-learn."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from matplotlib import cbook
from matplotlib.figure import Figure

from capsnet_jax import figures, interpret
from capsnet_jax.data.picture import read
from capsnet_jax.figures.galleries import Cell, gallery, grey, heat, wrap
from capsnet_jax.interpret import targets
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.program import before_relu
from capsnet_jax.report.predict import read_picture

SEED = 0  # of what is drawn at random: the same command draws the same pictures
FOLDER = Path(str(importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/images")))
STRONGEST = ("conv1", "fire3", "fire7", "fire9")
DREAMT = ("fire3", "fire5", "fire7")  # strokes, then eyes and whirls, then things
# Parts of the portrait, each with a layer, and with where it is in parts of the height and width: top, bottom, left,
# right.
PARTS = {
    "the eyes": ("fire7", (0.28, 0.39, 0.34, 0.71)),
    "the face": ("fire9", (0.24, 0.52, 0.31, 0.72)),
    "the tie": ("fire7", (0.67, 0.80, 0.41, 0.60)),
}
CHINA_SHAPE, NOISE_SHAPE = (213, 320, 3), (192, 192, 3)
MADE_SHAPE, MADE_STEPS = (112, 112, 3), 192  # SqueezeNet takes images of any size; small ones are quicker
MADE = {"fire3": 4, "fire9": 4}  # channels that images are made for
CLASSES = ("bow tie", "stupa", "daisy", "volcano")


class Photographs(NamedTuple):
    """Photographs as a net gets them.

    Attributes:
        names: what they show.
        pixels: whole photographs, squeezed to the net's size. The first is a portrait.
        china: one of them in its own proportions.
    """

    names: tuple[str, ...]
    pixels: UInt8[np.ndarray, "images height width channels"]
    china: UInt8[np.ndarray, "height width channels"]


def load(net: Network) -> Photographs:
    """Read the photographs for a net of ImageNet."""
    portrait = Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    paths = {"portrait": portrait, "china": FOLDER / "china.jpg", "flower": FOLDER / "flower.jpg"}
    pixels = np.stack([read_picture(path, net).pixels for path in paths.values()])
    return Photographs(tuple(paths), pixels, read(paths["china"], CHINA_SHAPE, as_is=True).pixels)


def all_activations(net: Network, photographs: Photographs) -> Figure:
    """Draw all channels of the first layer, before its ReLU: black is strongly negative, white strongly positive."""
    array = interpret.activations(before_relu(net.forward, "conv1"), photographs.pixels[:1], "conv1")[0]
    note = f"{net.name}, {photographs.names[0]}; conv1 before its ReLU, channels row by row"
    return figures.tile_grid(np.moveaxis(np.asarray(array), -1, 0), note=note)


def red_channel(net: Network, photographs: Photographs) -> Figure:
    """Draw the channel of the first layer that goes most with how red pixels are."""
    array = np.asarray(interpret.activations(net, photographs.pixels, "conv1"))
    colours = photographs.pixels / 255
    redness = _resize(colours[..., 0] - colours[..., 1:].mean(axis=-1), array.shape[1:3])
    channel, correlation = most_correlated(array, redness)
    rows = [
        [("photograph", photo), ("red, less green and blue", grey(red)), (f"channel {channel}", grey(of_channel))]
        for photo, red, of_channel in zip(photographs.pixels, redness, array[..., channel], strict=True)
    ]
    count = f"of {array.shape[-1]} channels the one that goes most with redness (correlation {correlation:.2f})"
    return gallery(rows, note=f"{net.name}, conv1; {count}; each tile on its own scale")


def most_correlated(
    activations: Float[np.ndarray, "images height width channels"], values: Float[np.ndarray, "images height width"]
) -> tuple[int, float]:
    """Return the channel whose activations are correlated most with values at the same positions, and how much."""
    flat = activations.reshape(-1, activations.shape[-1])
    deviations, wanted = flat - flat.mean(axis=0), values.ravel() - values.mean()
    sizes = np.maximum(np.linalg.norm(deviations, axis=0) * np.linalg.norm(wanted), 1e-12)  # of a dead channel, 0
    correlations = wanted @ deviations / sizes
    return int(correlations.argmax()), float(correlations.max())


def strongest_channels(net: Network, photographs: Photographs) -> Figure:
    """Draw each photograph, and the channel of each layer that has the greatest activation anywhere in it."""
    rows: list[list[Cell]] = [[("photograph", photo)] for photo in photographs.pixels]
    for layer in STRONGEST:
        array = interpret.activations(net, photographs.pixels, layer)
        for row, image, channel in zip(rows, array, interpret.strongest_channel(array).tolist(), strict=True):
            row.append((f"{layer}: {channel}", grey(_resize(image[None, ..., channel], row[0][1].shape[:2])[0])))
    return gallery(rows, note=f"{net.name}; of each layer the channel with the greatest activation, on its own scale")


def channels_of_parts(net: Network, photographs: Photographs) -> Figure:
    """Draw for each part of the portrait the channel that is active there and least elsewhere, in any photograph."""
    rows = []
    for part, (layer, box) in PARTS.items():
        array = np.asarray(interpret.activations(net, photographs.pixels, layer))
        channel, ratio = most_selective(array, box)
        pictures = heat(photographs.pixels / 255, _resize(array[..., channel], photographs.pixels.shape[1:3]))
        names = [f"{part}: {layer}, channel {channel}", f"{ratio:.1f} times as strong there", "as anywhere else"]
        rows.append(list(zip(names, pictures, strict=True)))
    what = "channels that are stronger on a part of the portrait than anywhere else; each on one scale, red: most"
    return gallery(rows, note=f"{net.name}; {what}")


def most_selective(
    activations: Float[np.ndarray, "images rows columns channels"], box: tuple[float, float, float, float]
) -> tuple[int, float]:
    """Return the channel whose greatest activation in a box of the first image exceeds most that of everywhere else.

    Args:
        activations: 0 or positive.
        box: top, bottom, left, right, in parts of the height and the width.

    Returns:
        The channel, and the ratio of the two.
    """
    _, height, width, _ = activations.shape
    top, bottom, left, right = (round(edge * side) for edge, side in zip(box, [height] * 2 + [width] * 2, strict=True))
    inside = np.zeros(activations.shape[:3], bool)
    inside[0, top:bottom, left:right] = True
    within = activations[inside].max(axis=0)
    elsewhere = activations[~inside].max(axis=0)
    # A channel that hardly does anything tells nothing, however rarely it does it.
    ratios = np.where(within > within.max() / 4, within / np.maximum(elsewhere, 1e-9), 0)
    return int(ratios.argmax()), float(ratios.max())


def dreams(net: Network, photographs: Photographs) -> Figure:
    """Draw a photograph, and what becomes of it when a layer is made more active: an early, a middle and a late one."""
    photo = photographs.china
    cells = [("photograph", photo / 255)]
    cells += [
        (layer, np.asarray(interpret.deep_dream(net, photo[None], layer, key=jax.random.key(SEED)))[0])
        for layer in DREAMT
    ]
    note = f"{net.name}; the photograph changed so that a layer is more active, 4 octaves of 10 steps"
    return gallery(wrap(cells, 2), note=note)


def dreams_from_noise(net: Network, photographs: Photographs) -> Figure:
    """Draw what becomes of noise when a layer is made more active."""
    del photographs
    key, layers = jax.random.key(SEED), DREAMT[::2]
    made = {layer: interpret.dream_from_noise(net, layer, key=key, shape=NOISE_SHAPE) for layer in layers}
    cells = [(layer, np.asarray(dream)[0]) for layer, dream in made.items()]
    return gallery([cells], note=f"{net.name}; noise changed so that a layer is more active, 3 octaves of 10 steps")


def made_images(net: Network, photographs: Photographs) -> Figure:
    """Draw images made for channels of layers, the most active ones of the photographs, and for classes."""
    rows = []
    for layer, count in MADE.items():
        activity = jnp.mean(interpret.activations(net, photographs.pixels, layer), axis=(0, 1, 2))
        channels = jax.lax.top_k(activity, count)[1]
        pictures = _make(net, targets.channel(layer, channels))
        rows.append([(f"channel {c}", picture) for c, picture in zip(channels.tolist(), pictures, strict=True)])
    classes = [net.data.label_names.index(name) for name in CLASSES]
    rows.append(list(zip(CLASSES, _make(net, targets.class_score(classes)), strict=True)))
    note = f"{net.name}; images made for channels that the photographs activate most, and for classes"
    return gallery(rows, row_names=[*MADE, "classes"], note=note)


def _make(net: Network, target: targets.Target) -> np.ndarray:
    return np.asarray(
        interpret.visualize(net, target, key=jax.random.key(SEED), shape=MADE_SHAPE, steps=MADE_STEPS).images
    )


def _resize(maps: Array | np.ndarray, size: tuple[int, int]) -> Float[np.ndarray, "images height width"]:
    return np.asarray(jax.image.resize(jnp.asarray(maps), (len(maps), *size), "bilinear"))


PAGES: dict[str, Callable[[Network, Photographs], Figure]] = {
    "activations": all_activations,
    "red_channel": red_channel,
    "strongest_channels": strongest_channels,
    "parts": channels_of_parts,
    "deep_dream": dreams,
    "deep_dream_noise": dreams_from_noise,
    "made": made_images,
}
