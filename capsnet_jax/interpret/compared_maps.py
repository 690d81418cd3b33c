"""The maps of every method, and how far each is to be believed: what the experiment `map_faithfulness` observes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from capsnet_jax.data.augment import to_float
from capsnet_jax.interpret.attribution import deconvnet, gradient, guided_backprop, integrated_gradients, smooth_grad
from capsnet_jax.interpret.capsule_maps import coupling_maps, lacks_positions, primary_field, primary_grid
from capsnet_jax.interpret.class_activation import grad_cam, grad_cam_plus_plus, layer_cam
from capsnet_jax.interpret.faithfulness import deletion_curve, insertion_curve, randomization_cascade
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.perturbation import occlusion
from capsnet_jax.interpret.program import Net
from capsnet_jax.interpret.receptive_fields import at_positions, over_image
from capsnet_jax.interpret.routing_diagnostics import iterations_of
from capsnet_jax.interpret.targets import scores_of

IMAGES = 100  # the first ones of the test set
CASCADED = 10  # of these, as every step of the cascade makes every method's maps anew
STEPS = 16  # in which all pixels are flipped
RANDOM, EDGES = "random", "edges"  # what a map of the net is compared with


class Method(NamedTuple):
    """One way to make maps.

    Attributes:
        maps: (net, images, classes) → maps.
        by_size: whether a pixel counts by the size of its value, whatever the sign: how much the class depends on it,
            not how much the pixel speaks for it.
    """

    maps: Callable[..., Array]
    by_size: bool = False


def _times_input(net: Net, images: Array, classes: Array) -> Array:
    return images * gradient(net, images, classes)


def _smooth_grad(net: Net, images: Array, classes: Array) -> Array:
    return smooth_grad(net, images, classes, key=jax.random.key(0))


METHODS = {
    "gradient": Method(gradient, by_size=True),
    "gradient × input": Method(_times_input),
    "smooth-grad": Method(_smooth_grad, by_size=True),
    "integrated gradients": Method(integrated_gradients),
    "guided backprop": Method(guided_backprop, by_size=True),
    "deconvnet": Method(deconvnet, by_size=True),
    "occlusion": Method(occlusion),
}
OF_LAYER: dict[str, Callable[..., Array]] = {
    "grad-cam": grad_cam,
    "grad-cam, placed,": partial(grad_cam, placed=True),
    "grad-cam++": grad_cam_plus_plus,
    "layer-cam": layer_cam,
}


def observe_faithfulness(net: Network) -> Observation:
    """Flip pixels by the maps of every method that applies, and make the net random layer by layer.

    Maps are of the class that the net chooses, right or wrong, for the first test images.

    Returns:
        "methods" names; "fractions" [points] of pixels; "deletion" and "insertion" [methods, points], the class's mean
        probability in percent; "deletion_area" and "insertion_area" [methods] under these curves; "layers" made random
        in this order; "absolute" and "signed" [methods, layers], mean rank correlations with the trained net's maps,
        nan for random maps. And for an example the first "image", bytes, the name of the "class" that is chosen, and
        "maps" int8[methods, height, width], each divided by its greatest size / 127.
    """
    key = _key(net)  # of the order of equal pixels, and of fresh layers
    shown = net.data.test.images[:IMAGES]
    images = to_float(jnp.asarray(shown))
    classes = jnp.argmax(scores_of(net.outputs(images)), axis=-1)
    methods = methods_for(net)
    observed: dict[str, list[np.ndarray]] = {}

    def note(**values: Any) -> None:
        for name, value in values.items():
            observed.setdefault(name, []).append(np.asarray(value, np.float32))

    for name, method in methods.items():
        maps = method.maps(net, images, classes)
        ranked = jnp.abs(maps) if method.by_size else maps
        deleted = deletion_curve(net.forward, images, ranked, classes, key=key, steps=STEPS)
        inserted = insertion_curve(net.forward, images, ranked, classes, key=key, steps=STEPS)
        note(deletion=100 * deleted.scores.mean(axis=0), deletion_area=100 * deleted.areas.mean())
        note(insertion=100 * inserted.scores.mean(axis=0), insertion_area=100 * inserted.areas.mean())
        of_class = partial(_of_class, method.maps, classes[:CASCADED])
        cascade = randomization_cascade(net, of_class, images[:CASCADED], key=key)
        known = np.nan if name == RANDOM else 1
        note(absolute=known * cascade.absolute.mean(axis=1), signed=known * cascade.signed.mean(axis=1))
        note(maps=_to_int8(np.asarray(maps[0].reshape(*maps.shape[1:3], -1).sum(axis=-1))))
    return {name: np.stack(values) for name, values in observed.items()} | {
        "methods": np.array(list(methods)),
        "fractions": deleted.fractions,
        "layers": np.array(cascade.layers),
        "maps": np.stack(observed["maps"]).astype(np.int8),
        "image": np.asarray(shown[0]),
        "class": np.array(net.data.label_names[int(classes[0])]),
    }


def methods_for(net: Network) -> dict[str, Method]:
    """Return the methods that apply to a network, by name."""
    methods = dict(METHODS)
    for layer in compared_layers(net):
        methods |= {f"{name} {layer}": Method(partial(_of_layer, method, layer)) for name, method in OF_LAYER.items()}
    if not lacks_positions(net.config):
        iterations = range(1, 1 + iterations_of(net.config.routing))
        kinds = {
            "couplings": "couplings {}",
            "coupled_votes": "coupled votes {}",
            "difference": "couplings {} − uniform",
        }
        for kind, name in kinds.items():
            methods |= {name.format(t): Method(partial(_couplings, kind, t)) for t in iterations}
        rows, columns, _ = primary_grid(net)
        # As coarse as a map of couplings: tells what is lost by resolution alone.
        methods[f"integrated gradients on {rows}×{columns}"] = Method(_coarse)
        methods.pop(kinds["difference"].format(1), None)  # the first couplings are uniform
    methods[EDGES] = Method(lambda net, images, classes: edges(images))
    methods[RANDOM] = Method(partial(_random, _key(net)))
    return methods


def compared_layers(net: Network) -> list[str]:
    """Return a CapsNet's convolution and primary capsules; of another net the last layer with the fewest positions."""
    if net.is_capsnet:
        return ["conv1", "primary"]
    shapes = net.layers()
    positions = {name: math.prod(shapes[name][:2]) for name in net.layers_with_positions()}
    return [name for name, count in positions.items() if count == min(positions.values())][-1:]


def edges(images: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width"]:
    """Return the size of the gradient of an image's brightness, by Sobel's filters: a map that knows no net."""
    padded = jnp.pad(images.mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    horizontal = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    vertical = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return jnp.hypot(horizontal, vertical)


def _couplings(kind: str, iteration: int, net: Network, images: Array, classes: Array) -> Array:
    iterations = iterations_of(net.config.routing)
    return coupling_maps(net, images, classes, iterations=iterations, kind=kind)[:, iteration - 1]


def _coarse(net: Network, images: Array, classes: Array) -> Array:
    pixels = integrated_gradients(net, images, classes).sum(axis=-1)
    rows, columns, _ = primary_grid(net)
    field = primary_field(net)
    return over_image(at_positions(pixels, (rows, columns), field), net.data.image_shape[:2], field)


def _of_layer(method: Callable[..., Array], layer: str, net: Net, images: Array, classes: Array) -> Array:
    return method(net, images, layer, classes)


def _random(key: PRNGKeyArray, net: Net, images: Array, classes: Array) -> Array:
    return jax.random.uniform(jax.random.fold_in(key, 1), images.shape[:3])


def _key(net: Network) -> PRNGKeyArray:
    """Return where random orders and layers begin: another for each seed of a run, so that intervals hold it."""
    return jax.random.key(net.record.seed if net.record else 0)


def _of_class(maps: Callable[..., Array], classes: Array, net: Network, images: Array) -> Array:
    return maps(net, images, classes)


def _to_int8(pixels: np.ndarray) -> np.ndarray:
    return np.round(127 * pixels / max(float(np.abs(pixels).max()), 1e-30))
