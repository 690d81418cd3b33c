"""What `--inspect` can show: one method a function, from a subject to a figure."""

import dataclasses
import math
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from capsnet_jax import figures, interpret
from capsnet_jax.config import ConfigError
from capsnet_jax.data import tells_stories
from capsnet_jax.data.picture import read_whole
from capsnet_jax.interpret import targets
from capsnet_jax.interpret.capsule_dimensions import lacks_decoder
from capsnet_jax.interpret.capsule_maps import coupling_maps, lacks_positions, lacks_routing
from capsnet_jax.interpret.dreams import refusal
from capsnet_jax.interpret.feature_visualization import Visualization
from capsnet_jax.interpret.made_images import STEPS, starts_for
from capsnet_jax.interpret.network import Network
from capsnet_jax.interpret.targets import AnyTarget
from capsnet_jax.models.capsnet import decode
from capsnet_jax.models.layers import SMALL

SEED = 0  # of what is drawn at random: the same command draws the same picture
MOST_TILES = 144  # channels of a grid
COUNTED = 2000  # test images over which channels are counted
SEARCHED = 10_000  # test images among which the strongest are looked for
LIKED = 9  # images of a unit
INVERSION_STEPS = 192
DREAM_SIDE = 400  # pixels; a photograph that is dreamt on is made no larger


class Subject(NamedTuple):
    """What is looked at.

    Attributes:
        net: the network.
        image: as the network gets it; empty where the method uses none.
        name: the image's.
        label: the classes that it is labelled with; empty if that is not known.
        path: its file; None of a test image.
        layer: a layer's name; None: the method's own choice.
        unit: numbers; None: likewise.
        target: a class; None: the one that the network chooses.
    """

    net: Network
    image: UInt8[np.ndarray, "height width channels"]
    name: str
    label: str
    path: Path | None
    layer: str | None
    unit: tuple[int, ...] | None
    target: int | None


@dataclasses.dataclass(frozen=True)
class View:
    """An entry of VIEWS.

    Attributes:
        draw: a subject to a figure.
        text: what is seen, in a line.
        uses: which of image, layer, unit and target it uses.
        needs: a network's config to what it lacks; None if all will do.
        reads: whether it goes through the images of the network's data set.
        layers: the names that a layer can have.
    """

    draw: Callable[[Subject], Figure]
    text: str
    uses: tuple[str, ...] = ()
    needs: Callable[[Any], str | None] | None = None
    reads: bool = False
    layers: Callable[[Network], Collection[str]] = Network.layers

    def lacks(self, net: Network) -> str | None:
        """Say why a network cannot be shown so; None if it can."""
        if tells_stories(net.config.data.dataset):
            return f"looks at pictures, and {net.name} reads stories"
        if self.reads and net.record is None:
            return f"goes through a data set's images, and {net.name} came without; name a --workdir of finished runs"
        lack = self.needs and self.needs(net.config)
        return f"needs a CapsNet: {lack}" if lack else None


def _activations(subject: Subject) -> Figure:
    layer = subject.layer or subject.net.layers_with_positions()[0]
    array = np.asarray(interpret.activations(subject.net, subject.image[None], layer)[0])
    if array.ndim != 3:
        raise ConfigError(
            f"{layer} has no positions to draw; name one of {', '.join(subject.net.layers_with_positions())}"
        )
    strongest = int(interpret.strongest_channel(jnp.asarray(array)[None])[0])
    note = f"{_note(subject)}; {layer}, {array.shape[-1]} channels of {array.shape[0]}×{array.shape[1]}"
    if subject.unit is None:
        shown = array[..., :MOST_TILES]
        more = f", the first {MOST_TILES}" if array.shape[-1] > MOST_TILES else ""
        return figures.tile_grid(np.moveaxis(shown, -1, 0), note=f"{note}{more}; the strongest is {strongest}")
    channels = dict.fromkeys([*_within(subject.unit, array.shape[-1], layer), strongest])
    names = [f"channel {c}" + (", the strongest" if c == strongest else "") for c in channels]
    maps = {name: _enlarged(subject, array[..., c]) for name, c in zip(names, channels, strict=True)}
    return figures.overlay(subject.image[None], maps, note=note)


def _weights(subject: Subject) -> Figure:
    layer = subject.layer or convolutions(subject.net)[0]
    kernels = np.asarray(interpret.filters(subject.net, layer))
    count, height, width, inputs = kernels.shape
    note = f"{subject.net.name}; {layer}, {count} filters of {height}×{width}×{inputs}"
    tiles = kernels
    if inputs not in (1, 3) or subject.unit is not None:
        unit = subject.unit or (0,)
        if len(unit) != 1:
            raise ConfigError(f"--unit of {layer}'s weights is one number, a filter's; got {len(unit)}")
        [chosen] = _within(unit, count, layer)
        tiles = np.moveaxis(kernels[chosen], -1, 0)
        note += f"; filter {chosen}, one tile for each input channel"
    more = f"; the first {MOST_TILES} of these" if len(tiles) > MOST_TILES else ""
    return figures.tile_grid(tiles[:MOST_TILES], scale="symmetric", note=note + more)


def _dead_channels(subject: Subject) -> Figure:
    net, images = subject.net, subject.net.data.test.images[:COUNTED]
    layers = [subject.layer] if subject.layer else net.layers_with_positions()
    counted = {layer: interpret.channel_activity(net, images, layer) for layer in layers}
    note = f"{net.name}; {len(images):,} test images"
    if net.is_capsnet:
        of_capsules = interpret.capsule_activity(net, images)
        told = {"primary": "primary", "capsules": "class"}
        note += "".join(
            f"; {int(a.dead.sum())} of {len(a.greatest)} {told[name]} capsules dead, {int(a.starved.sum())} starved"
            for name, a in of_capsules.items()
        )
    return figures.active_shares(counted, note=note)


def _top_images(subject: Subject) -> Figure:
    net, images = subject.net, subject.net.data.test.images[:SEARCHED]
    layer = subject.layer or targets.scores_layer(net.layers())
    by_length, shape = subject.unit is None or len(subject.unit) == 1, net.layers()[layer]
    if subject.unit is not None:
        check_unit(subject.unit, layer, shape)
        if len(subject.unit) == 3:
            raise ConfigError(f"--inspect=top_images looks at all positions of {layer}; name the channel alone")
    top = interpret.top_images(net, images, layer, LIKED, by_length=by_length)
    units = list(range(min(len(top.values), 10)))
    if subject.unit is not None:
        units = list(subject.unit) if by_length else [int(np.ravel_multi_index(subject.unit, shape))]
    of_classes = layer in targets.SCORES or (layer == "capsules" and by_length)
    names = [net.data.label_names[u] if of_classes else f"unit {u}" for u in units]
    if not by_length:
        names = [f"unit {','.join(map(str, subject.unit or ()))}"]
    rows: list[np.ndarray] = [np.asarray(images[top.images[u]]) for u in units]
    note = f"{net.name}; of {len(images):,} test images those that activate {layer} most, the first most of all"
    if len(shape) == 3:
        field = interpret.receptive_field(net, net.data.image_shape, layer)
        pairs = zip(rows, units, strict=True)
        rows = [np.asarray(interpret.crop_receptive_field(row, top.positions[u], field)) for row, u in pairs]
        note += "; cropped to what the unit sees"
    ranks = [str(k + 1) for k in range(len(rows[0]))]
    return figures.tile_grid(
        np.concatenate(rows), scale="pixels", columns=len(ranks), row_names=names, column_names=ranks, note=note
    )


def _heat_map(subject: Subject, *, method: Callable[..., Any]) -> Figure:
    goal, text = _goal(subject)
    maps = method(subject.net, subject.image[None], goal)
    return figures.overlay(subject.image[None], {text: np.asarray(maps)}, note=_note(subject))


def _heat_maps(subject: Subject) -> Figure:
    """Draw every method's map of one class beside each other."""
    net, image = subject.net, subject.image[None]
    target = _class_of(subject)
    maps = {}
    for name, method in PIXEL_MAPS.items():
        maps[name.replace("_", " ")] = method(net, image, _class_goal(net, target))
    layer = _last_with_positions(subject)
    for name, method in LAYER_MAPS.items():
        maps[f"{name.replace('_', ' ')}, {layer}"] = method(net, image, layer, _class_goal(net, target))
    note = f"{_note(subject)}; for {net.data.label_names[target]}"
    return figures.overlay(image, {name: np.asarray(map_) for name, map_ in maps.items()}, note=note)


def _class_activation(subject: Subject, *, method: Callable[..., Any]) -> Figure:
    layer, names = subject.layer or _last_with_positions(subject), subject.net.data.label_names
    target = _class_of(subject)
    maps = method(subject.net, subject.image[None], layer, _class_goal(subject.net, target))
    return figures.overlay(subject.image[None], {f"{names[target]}, by {layer}": np.asarray(maps)}, note=_note(subject))


def _visualize(subject: Subject) -> Figure:
    net = subject.net
    if subject.layer is None and subject.target is None:
        classes = range(min(net.data.classes, 10))
        goal: AnyTarget = _class_goal(net, np.array(classes))
        names = [net.data.label_names[k] for k in classes]
    else:
        goal, name = _goal(subject)
        names = [name]
    made = _made(net, goal)
    names = [f"{name}: {score:.3g}" for name, score in zip(names, np.asarray(made.scores), strict=True)]
    note = f"{net.name}; images made for a target, with the score that the network gives them"
    return figures.tile_grid(np.asarray(made.images), scale="pixels", names=names, note=note)


def _made(net: Network, goal: AnyTarget) -> Visualization:
    key, shape = jax.random.key(SEED), net.data.image_shape
    return interpret.visualize(net, goal, key=key, shape=shape, steps=STEPS, starts=starts_for(net))


def _visualize_dimensions(subject: Subject) -> Figure:
    net = subject.net
    target = 0 if subject.target is None else subject.target
    dims = net.outputs(np.zeros((1, *net.data.image_shape), np.uint8))["capsules"].shape[-1]
    goal = targets.capsule_dimension(target, np.arange(dims))
    made = _made(net, goal)
    names = [f"{d}: {score:.2f}" for d, score in enumerate(np.asarray(made.scores))]
    note = f"{net.name}; images made for each dimension of {net.data.label_names[target]}'s capsule, with its value"
    return figures.tile_grid(np.asarray(made.images), scale="pixels", names=names, note=note)


def _deep_dream(subject: Subject) -> Figure:
    (goal, text), photo = _dreamt(subject), _larger(subject)
    dreams = interpret.deep_dream(
        subject.net, photo[None], goal, key=jax.random.key(SEED), **_dreaming(subject.net, photo.shape)
    )
    names = [subject.name, f"what {text} sees, made stronger" if isinstance(goal, str) else text]
    return figures.tile_grid([photo, np.asarray(dreams)[0]], scale="pixels", names=names, note=subject.net.name)


def _dream_from_noise(subject: Subject) -> Figure:
    (goal, text), shape = _dreamt(subject), subject.net.data.image_shape
    how = _dreaming(subject.net, shape)
    dreams = interpret.dream_from_noise(subject.net, goal, key=jax.random.key(SEED), shape=shape, **how)
    return figures.tile_grid(np.asarray(dreams), scale="pixels", names=[text], note=f"{subject.net.name}, from noise")


def _dreamt(subject: Subject) -> tuple[Any, str]:
    """Return what is dreamt of, and its name: what is asked for, or a whole layer."""
    if subject.unit or subject.target is not None:
        return _goal(subject)
    layers = subject.net.layers_with_positions()
    layer = subject.layer or layers[2 * len(layers) // 3]
    return layer, layer


def _dreaming(net: Network, shape: tuple[int, ...]) -> dict[str, int]:
    """Return how an image is dreamt on: small ones, and those of nets that take no other size, in one size."""
    height, width, channels = shape
    if min(height, width) < SMALL:
        return {"octaves": 1, "jitter": 2}
    return {"octaves": 1} if refusal(net.forward, (height // 2, width // 2, channels)) else {}


def _invert(subject: Subject) -> Figure:
    layers = [subject.layer] if subject.layer else _spread(subject.net.layers_with_positions(), 4)
    key, images = jax.random.key(SEED), subject.image[None]
    found = {layer: interpret.invert(subject.net, images, layer, key=key, steps=INVERSION_STEPS) for layer in layers}
    names = ["image"] + [f"{layer}: {float(made.errors[0]):.2g}" for layer, made in found.items()]
    tiles = [subject.image, *(np.asarray(made.images)[0] for made in found.values())]
    note = f"{_note(subject)}; images made to look the same to a layer, with ‖F − F₀‖²/‖F₀‖²"
    return figures.tile_grid(tiles, scale="pixels", names=names, columns=len(tiles), note=note)


def _couplings(subject: Subject, *, kind: str) -> Figure:
    net, target = subject.net, _class_of(subject)
    maps = np.asarray(coupling_maps(net, subject.image[None], target, kind=kind))[0]
    by_iteration = {f"iteration {t + 1}": each[None] for t, each in enumerate(maps)}
    note = f"{_note(subject)}; to the capsule of {net.data.label_names[target]}"
    return figures.overlay(subject.image[None], by_iteration, signed=kind != "couplings", note=note)


def _reconstruct_from_one(subject: Subject) -> Figure:
    net, image, target = subject.net, subject.image[None], _class_of(subject)
    alone = interpret.reconstruct_from_one(net, image, target)
    one_hot = jax.nn.one_hot(jnp.array([target]), net.data.classes)
    whole = np.asarray(decode(net.model, net.params, net.outputs(image)["capsules"], one_hot)).reshape(image.shape)[0]
    tiles = [image[0] / 255, whole, *np.asarray(alone.reconstructions)[0]]
    names = ["image", "from all", *(f"from capsule {i}" for i in np.asarray(alone.inputs)[0])]
    shown = f"{net.data.label_names[target]}, from all primary capsules, and from the most coupled one of each type"
    return figures.tile_grid(tiles, scale="pixels", names=names, note=f"{_note(subject)}; {shown}")


def _goal(subject: Subject) -> tuple[AnyTarget, str]:
    """Return what is explained, and its name: a class, a unit or channel, a capsule or one of its dimensions."""
    net, layer, unit = subject.net, subject.layer, subject.unit
    names = net.data.label_names
    if layer is None:
        target = _class_of(subject)
        return _class_goal(net, target), names[target]
    if subject.target is not None:
        raise ConfigError(f"--target is a class, --layer={layer} has units: these are two targets; leave one out")
    if unit is None:
        raise ConfigError(f"--layer={layer} needs the --unit that is meant; --inspect=list says how many there are")
    shape = net.layers()[layer]
    check_unit(unit, layer, shape)
    if len(shape) == 2 and len(unit) == 2:
        return targets.capsule_dimension(*unit, layer=layer), f"{layer}: {unit[0]}, dimension {unit[1]}"
    if layer == "capsules":
        return targets.capsule_contrast(unit[0]), f"capsule of {names[unit[0]]}"
    if len(shape) == 2:
        return targets.capsule_length(unit[0], layer=layer), f"{layer}: {unit[0]}"
    if len(unit) == 3:
        return targets.unit_at(layer, *unit), f"{layer} at {unit[0]}, {unit[1]}, channel {unit[2]}"
    return targets.channel(layer, unit[0]), f"{layer}, channel {unit[0]}"


def check_unit(unit: tuple[int, ...], layer: str, shape: tuple[int, ...]) -> None:
    """Raise a ConfigError unless these numbers name a unit of a layer of this shape."""
    kinds = unit_kinds(shape)
    sizes = next((sizes for sizes in kinds if len(sizes) == len(unit)), None)
    if sizes is None:
        ways = " or ".join(",".join(kind).upper() for kind in kinds)
        raise ConfigError(f"--unit of {layer} is {ways}; got {len(unit)} numbers")
    for (what, size), number in zip(sizes.items(), unit, strict=True):
        if not 0 <= number < size:
            raise ConfigError(f"{layer} has {size} {what}s, counted from 0, and no {number}; name one of these")


def unit_kinds(shape: tuple[int, ...]) -> list[dict[str, int]]:
    """Return the ways in which numbers name a unit of a layer: what each counts, and how many there are."""
    if len(shape) == 3:
        return [{"channel": shape[2]}, {"row": shape[0], "column": shape[1], "channel": shape[2]}]
    if len(shape) == 2:
        return [{"capsule": shape[0]}, {"capsule": shape[0], "dimension": shape[1]}]
    return [{"unit": math.prod(shape)}]


def _class_goal(net: Network, classes: Any) -> AnyTarget:
    """Return a class's score; of capsules, how much longer than all others the class's is."""
    return targets.capsule_contrast(classes) if net.is_capsnet else targets.class_score(classes)


def _class_of(subject: Subject) -> int:
    """Return the class that is asked for, or the one that the network chooses for the image."""
    if subject.target is not None:
        return subject.target
    return int(jnp.argmax(targets.scores_of(subject.net.outputs(subject.image[None]))[0]))


def _last_with_positions(subject: Subject) -> str:
    return "primary" if subject.net.is_capsnet else subject.net.layers_with_positions()[-1]


def convolutions(net: Network) -> list[str]:
    """Return the paths of a network's convolutions, in the order in which it computes them."""
    return [layer.name for layer in net.outline().layers if layer.kind == "Conv"]


def _within(numbers: tuple[int, ...], count: int, layer: str) -> list[int]:
    """Return the numbers, which must be units of a layer."""
    if bad := [number for number in numbers if not 0 <= number < count]:
        raise ConfigError(f"{layer} has {count} units, counted from 0, and no {bad[0]}; name one of these")
    return list(numbers)


def _enlarged(subject: Subject, channel: np.ndarray) -> np.ndarray:
    """Return one channel in the image's size, from its own least to its own greatest value."""
    resized = jax.image.resize(jnp.asarray(channel), subject.image.shape[:2], "bilinear")
    return np.asarray(resized - resized.min())[None]


def _larger(subject: Subject) -> np.ndarray:
    """Return a photograph in its own proportions, larger than the network's images if it is."""
    if subject.path is None or subject.net.data.image_shape[2] != 3:
        return subject.image
    whole = read_whole(subject.path, DREAM_SIDE).pixels
    return subject.image if refusal(subject.net.forward, whole.shape) else whole


def _spread(names: list[str], count: int) -> list[str]:
    """Return a few of the names, evenly spread, the first and the last among them."""
    return [names[i] for i in np.unique(np.linspace(0, len(names) - 1, count).round().astype(int))]


def _note(subject: Subject) -> str:
    label = f" (label {subject.label})" if subject.label else ""
    return f"{subject.net.name}, {subject.name}{label}"


_PIXELS = ("image", "layer", "unit", "target")
_MADE = ("layer", "unit", "target")
_OF_CLASS = ("image", "target")
_OF_LAYER = ("image", "layer", "target")


def _smooth_grad(net: Network, images: np.ndarray, target: AnyTarget) -> Any:
    return interpret.smooth_grad(net, images, target, key=jax.random.key(SEED))


PIXEL_MAPS: dict[str, Callable[..., Any]] = {
    "gradient": interpret.gradient,
    "smooth_grad": _smooth_grad,
    "integrated_gradients": interpret.integrated_gradients,
    "guided_backprop": interpret.guided_backprop,
    "deconvnet": interpret.deconvnet,
    "occlusion": interpret.occlusion,
}
LAYER_MAPS: dict[str, Callable[..., Any]] = {
    "grad_cam": interpret.grad_cam,
    "grad_cam_plus_plus": interpret.grad_cam_plus_plus,
    "layer_cam": interpret.layer_cam,
}


def _heat(name: str, text: str) -> View:
    return View(partial(_heat_map, method=PIXEL_MAPS[name]), text, _PIXELS)


def _cam(name: str, text: str) -> View:
    return View(partial(_class_activation, method=LAYER_MAPS[name]), text, _OF_LAYER)


def _of_routing(kind: str, text: str) -> View:
    return View(partial(_couplings, kind=kind), text, _OF_CLASS, lacks_positions)


VIEWS: dict[str, View] = {
    "activations": View(_activations, "all channels of a layer; with a unit, that one and the strongest", _PIXELS[:3]),
    "weights": View(_weights, "the filters of a convolution", ("layer", "unit"), layers=convolutions),
    "dead_channels": View(_dead_channels, "how often each channel is active, over test images", ("layer",), reads=True),
    "top_images": View(_top_images, "the test images that activate a unit most", ("layer", "unit"), reads=True),
    "heat_maps": View(_heat_maps, "which pixels count, by all of the following methods", _OF_CLASS),
    "gradient": _heat("gradient", "the gradient by each pixel"),
    "smooth_grad": _heat("smooth_grad", "the mean gradient over noisy images"),
    "integrated_gradients": _heat("integrated_gradients", "gradients on the way from black to the image"),
    "guided_backprop": _heat("guided_backprop", "gradients that stay above 0"),
    "deconvnet": _heat("deconvnet", "what is above 0, sent back"),
    "occlusion": _heat("occlusion", "how much the target falls when a part is hidden"),
    "grad_cam": _cam("grad_cam", "where a layer finds a class"),
    "grad_cam_plus_plus": _cam("grad_cam_plus_plus", "the same, with a weight for each position"),
    "layer_cam": _cam("layer_cam", "the same, each position by its own gradient"),
    "visualize": View(_visualize, "images made for classes, a channel, a unit, a capsule", _MADE),
    "visualize_dimensions": View(
        _visualize_dimensions, "images made for each dimension of a class capsule", ("target",), lacks_routing
    ),
    "deep_dream": View(_deep_dream, "a photograph with more in it of what a layer sees", _PIXELS),
    "dream_from_noise": View(_dream_from_noise, "the same, from noise", _MADE),
    "invert": View(_invert, "images made to look the same to a layer", _PIXELS[:2]),
    "couplings": _of_routing("couplings", "which parts are coupled to a capsule, by iteration"),
    "coupled_votes": _of_routing("coupled_votes", "which votes agree with it, by iteration"),
    "coupling_changes": _of_routing("difference", "couplings less uniform ones, by iteration"),
    "reconstruct_from_one": View(_reconstruct_from_one, "what single primary capsules hold", _OF_CLASS, lacks_decoder),
}
