"""What a net that has seen ImageNet makes of three photographs that come with matplotlib and scikit-learn."""

from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from matplotlib import cbook
from matplotlib.figure import Figure

from capsnet_jax import figures, interpret
from capsnet_jax.data.picture import read
from capsnet_jax.figures.galleries import gallery, grey, signed, wrap
from capsnet_jax.figures.overlays import blend
from capsnet_jax.interpret import targets
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.program import before_relu
from capsnet_jax.report.predict import read_picture

KEY = jax.random.key(0)
LAYERS = ("conv1", "fire5", "fire9")  # early, middle, late
INVERTED = ("conv1", "fire3", "fire5", "fire9")
PART_LAYER = "fire8"
# Where the parts are in the portrait, as parts of its height and width: (top, bottom, left, right).
PARTS = {"face": (0.24, 0.52, 0.31, 0.72), "tie": (0.67, 0.80, 0.41, 0.60)}
SMALL = (128, 128, 3)  # images that are made; SqueezeNet takes any size
DREAMT = (267, 400, 3)
CHANNELS = {"conv1": 3, "fire3": 4, "fire5": 4, "fire9": 4}  # channels that images are made for
CLASSES = ("bow tie", "stupa", "daisy", "goldfish", "volcano")
COLUMNS = 5


class Photographs(NamedTuple):
    """Photographs as the net gets them.

    Attributes:
        names: what they show.
        pixels: the whole photographs, squeezed to squares.
        classes: what the net takes each for.
        china: the second one in its own proportions.
    """

    names: list[str]
    pixels: UInt8[np.ndarray, "images height width channels"]
    classes: list[int]
    china: UInt8[np.ndarray, "height width channels"]


def pages(net: Network) -> dict[str, Figure]:
    """Draw every page of the slides for SqueezeNet, {title: figure}, in the slides' order."""
    photographs = load(net)
    drawn: dict[str, Callable[[Network, Photographs], Figure]] = {
        "activations": _activations,
        "red": _red,
        "strongest": _strongest,
        "parts": _parts,
        "weights": _weights,
        "deep_weights": _deep_weights,
        "deep_dream": _deep_dream,
        "dream_from_noise": _dream_from_noise,
        "visualize": _visualize,
        "invert": _invert,
    }
    heat = {
        f"heat_maps-{net.name}-{name}": partial(_heat_maps, number=i) for i, name in enumerate(photographs.names)
    }
    return {title: draw(net, photographs) for title, draw in {**{f"{t}-{net.name}": d for t, d in drawn.items()}, **heat}.items()}


def load(net: Network) -> Photographs:
    """Read the photographs."""
    with as_file(files("sklearn.datasets") / "images") as folder:
        paths = {
            "hopper": cbook.get_sample_data("grace_hopper.jpg", asfileobj=False),
            "china": folder / "china.jpg",
            "flower": folder / "flower.jpg",
        }
        pixels = np.stack([read_picture(path, net).pixels for path in map(type(folder), paths.values())])
        china = read(paths["china"], DREAMT, as_is=True).pixels
    classes = np.argmax(targets.scores_of(net.outputs(pixels)), axis=-1).tolist()
    return Photographs(list(paths), pixels, classes, china)


def _activations(net: Network, photographs: Photographs) -> Figure:
    array = interpret.activations(before_relu(net.forward, "conv1"), photographs.pixels[:1], "conv1")[0]
    note = f"{net.name}, {photographs.names[0]}; conv1 before its ReLU, all {array.shape[-1]} channels"
    return figures.tile_grid(np.moveaxis(np.asarray(array), -1, 0), note=note)


def _red(net: Network, photographs: Photographs) -> Figure:
    """Draw the channel of conv1 that goes most with how red pixels are."""
    array = np.asarray(interpret.activations(net, photographs.pixels, "conv1"))
    pixels = photographs.pixels / 255
    redness = np.asarray(_resize(pixels[..., 0] - pixels[..., 1:].mean(axis=-1), array.shape[1:3]))
    correlations = [np.corrcoef(redness.ravel(), array[..., c].ravel())[0, 1] for c in range(array.shape[-1])]
    chosen = int(np.nanargmax(correlations))
    rows = [
        [("photograph", photo), ("how red it is", grey(red)), (f"channel {chosen}", grey(channel))]
        for photo, red, channel in zip(photographs.pixels, redness, array[..., chosen], strict=True)
    ]
    note = (
        f"{net.name}, conv1; of {array.shape[-1]} channels the one that goes most with red less the mean of green and"
        f" blue, correlation {correlations[chosen]:.2f}; each tile on its own scale"
    )
    return gallery(rows, note=note)


def _strongest(net: Network, photographs: Photographs) -> Figure:
    rows = [[("photograph", photo)] for photo in photographs.pixels]
    for layer in LAYERS:
        array = interpret.activations(net, photographs.pixels, layer)
        for row, image, channel in zip(rows, array, interpret.strongest_channel(array).tolist(), strict=True):
            shown = _resize(image[None, ..., channel], photographs.pixels.shape[1:3])[0]
            row.append((f"{layer}: {channel}", grey(np.asarray(shown))))
    note = f"{net.name}; each photograph, and of three layers the channel with the greatest activation"
    return gallery(rows, note=f"{note}; each tile on its own scale, enlarged to the photograph")


def _parts(net: Network, photographs: Photographs) -> Figure:
    """Draw for each part the channel that is active there and least elsewhere, in any of the photographs."""
    array = np.asarray(interpret.activations(net, photographs.pixels, PART_LAYER))
    rows, count, height, width = [], array.shape[-1], *array.shape[1:3]
    for part, box in PARTS.items():
        top, bottom = (round(edge * height) for edge in box[:2])
        left, right = (round(edge * width) for edge in box[2:])
        inside = np.zeros(array.shape[:3], bool)
        inside[0, top:bottom, left:right] = True
        share = array[inside].sum(axis=0) / (array.sum(axis=(0, 1, 2)) + array[inside].sum(axis=0).mean())
        channel = int(share.argmax())
        maps = np.asarray(_resize(array[..., channel], photographs.pixels.shape[1:3]))
        # One scale for the three photographs: the portrait's map is appended to each, and cut off again.
        limit = maps.max()
        heat = [blend(photo[None] / 255, m[None] / limit * 1.0, signed=False)[0] for photo, m in zip(photographs.pixels, maps, strict=True)]
        where = array[inside].sum(axis=0)[channel] / array[..., channel].sum()
        rows.append([(f"{part}: channel {channel}, {100 * where:.0f} % of it there", heat[0]), *(("", h) for h in heat[1:])])
    note = f"{net.name}, {PART_LAYER}; of {count} channels the one that is active most on a part and least elsewhere"
    return gallery(rows, note=note)


def _weights(net: Network, photographs: Photographs) -> Figure:
    del photographs
    kernels = np.asarray(interpret.filters(net, "conv1"))
    note = f"{net.name}, conv1: {len(kernels)} filters of {kernels.shape[1]}×{kernels.shape[2]} pixels in colour"
    return figures.tile_grid(kernels, scale="symmetric", note=note)


def _deep_weights(net: Network, photographs: Photographs) -> Figure:
    del photographs
    kernels = np.asarray(interpret.filters(net, "fire9.expand3x3"))
    tiles = np.moveaxis(kernels[:6, ..., :16], -1, 1).reshape(-1, *kernels.shape[1:3])
    note = f"{net.name}, fire9.expand3x3: 6 of {len(kernels)} filters (rows), 16 of their {kernels.shape[-1]} inputs"
    return figures.tile_grid(tiles, scale="symmetric", columns=16, note=note)


def heat_methods(layer: str) -> dict[str, Callable[..., jax.Array]]:
    """Return every method that makes a map of an image, by name; the last ones by a layer."""
    return {
        "gradient": interpret.gradient,
        "SmoothGrad": partial(interpret.smooth_grad, key=KEY),
        "integrated gradients": interpret.integrated_gradients,
        "guided backprop": interpret.guided_backprop,
        "deconvnet": interpret.deconvnet,
        "occlusion": interpret.occlusion,
        f"Grad-CAM, {layer}": partial(interpret.grad_cam, layer=layer),
        f"Grad-CAM++, {layer}": partial(interpret.grad_cam_plus_plus, layer=layer),
        f"LayerCAM, {layer}": partial(interpret.layer_cam, layer=layer),
    }


def _heat_maps(net: Network, photographs: Photographs, *, number: int) -> Figure:
    photo, target = photographs.pixels[number][None], photographs.classes[number]
    maps = {name: np.asarray(method(net, photo, target=target)) for name, method in heat_methods("fire9").items()}
    note = f"{net.name}, {photographs.names[number]}; for {net.data.label_names[target]}, what the net takes it for"
    return figures.overlay(photo, maps, note=note)


def _deep_dream(net: Network, photographs: Photographs) -> Figure:
    photo = photographs.china
    cells = [("photograph", photo)]
    cells += [(layer, np.asarray(interpret.deep_dream(net, photo[None], layer, key=KEY))[0]) for layer in LAYERS]
    note = f"{net.name}; the photograph changed until all of a layer is more active: 4 octaves of 10 steps"
    return gallery(wrap(cells, 2), note=note)


def _dream_from_noise(net: Network, photographs: Photographs) -> Figure:
    del photographs
    made = {layer: interpret.dream_from_noise(net, layer, key=KEY, shape=(256, 256, 3)) for layer in LAYERS}
    cells = [(layer, np.asarray(dream)[0]) for layer, dream in made.items()]
    return gallery([cells], note=f"{net.name}; noise changed until all of a layer is more active: 3 octaves")


def _visualize(net: Network, photographs: Photographs) -> Figure:
    rows = []
    for layer, count in CHANNELS.items():
        array = interpret.activations(net, photographs.pixels, layer)
        means = jnp.mean(array, axis=(0, 1, 2))
        chosen = np.argsort(-np.asarray(means))[: COLUMNS]
        made = interpret.visualize(net, targets.channel(layer, chosen), key=KEY, shape=SMALL, steps=192)
        rows.append([(f"{layer}: {c}", image) for c, image in zip(chosen, np.asarray(made.images), strict=True)])
    classes = [net.data.label_names.index(name) for name in CLASSES]
    made = interpret.visualize(net, targets.class_score(classes), key=KEY, shape=SMALL, steps=192)
    rows.append(list(zip(CLASSES, np.asarray(made.images), strict=True)))
    note = f"{net.name}; images made for channels, of each layer the most active ones, and for classes"
    return gallery(rows, note=note)


def _invert(net: Network, photographs: Photographs) -> Figure:
    photo = photographs.pixels[0]
    cells = [("photograph", photo)]
    for layer in INVERTED:
        made = interpret.invert(net, photo[None], layer, key=KEY, steps=256)
        cells.append((f"{layer}: {float(made.errors[0]):.2g}", np.asarray(made.images)[0]))
    note = f"{net.name}; images that give a layer the same activations, and ‖F − F₀‖² / ‖F₀‖² of what they give"
    return gallery([cells], note=note)


def _resize(maps: np.ndarray, size: tuple[int, int]) -> jax.Array:
    """Return maps [images, h, w] in another size."""
    return jax.image.resize(jnp.asarray(maps), (len(maps), *size), "bilinear")
