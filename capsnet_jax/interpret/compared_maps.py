"""The maps of every method, and how far each is to be believed: what the experiment `map_faithfulness` observes."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.data.augment import to_float
from capsnet_jax.interpret.attribution import gradient
from capsnet_jax.interpret.capsule_maps import coupling_maps
from capsnet_jax.interpret.faithfulness import deletion_curve, insertion_curve, randomization_cascade
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.interpret.routing_diagnostics import iterates
from capsnet_jax.interpret.targets import scores_of

IMAGES = 100  # the first ones of the test set
CASCADED = 20  # of these, as every step of the cascade makes every method's maps anew
SHOWN = 3
ITERATIONS = 3
RANDOM, EDGES = "random", "edges"  # what a map of the net is compared with


class Method(NamedTuple):
    """One way to make maps.

    Attributes:
        maps: (net, images, classes) → maps.
        by_size: whether a pixel counts by the size of its value, whatever the sign: how much the class depends on it,
            not how much the pixel speaks for it.
    """

    maps: Callable[[Network, Array, Array], Array]
    by_size: bool = False


METHODS = {
    "gradient": Method(lambda net, images, classes: gradient(net.forward, images, classes), by_size=True),
    "gradient × input": Method(lambda net, images, classes: images * gradient(net.forward, images, classes)),
}


def observe_faithfulness(net: Network) -> Observation:
    """Flip pixels by the maps of every method that applies, and make the net random layer by layer.

    Maps are of the class that the net chooses, right or wrong, for the first test images.

    Returns:
        "methods" names; "fractions" [points] of pixels; "deletion" and "insertion" [methods, points], the class's mean
        probability in percent; "deletion_area" and "insertion_area" [methods] under these curves; "layers" made random
        in this order; "absolute" and "signed" [methods, layers], mean rank correlations with the trained net's maps,
        nan for random maps; and examples: "images" bytes [shown, height, width, channels], their "classes" as chosen
        and their "labels", and "maps" int8[methods, shown, height, width], each map divided by its greatest size / 127.
    """
    key = jax.random.key(0)  # of random maps and of the order of equal pixels
    shown = net.data.test.images[:IMAGES]
    images = to_float(jnp.asarray(shown))
    classes = jnp.argmax(scores_of(net.outputs(images)), axis=-1)
    observed: dict[str, list[Any]] = {}

    def note(**values: Any) -> None:
        for name, value in values.items():
            observed.setdefault(name, []).append(np.asarray(value, np.float32))

    methods = methods_for(net)
    for name, method in methods.items():
        maps = method.maps(net, images, classes)
        ranked = jnp.abs(maps) if method.by_size else maps
        deleted = deletion_curve(net.forward, images, ranked, classes, key=key)
        inserted = insertion_curve(net.forward, images, ranked, classes, key=key)
        for flipped, curve in (("deletion", deleted), ("insertion", inserted)):
            note(**{flipped: 100 * curve.scores.mean(axis=0), f"{flipped}_area": 100 * curve.areas.mean()})
        of_class = partial(_of_class, method.maps, classes[:CASCADED])
        cascade = randomization_cascade(net, of_class, images[:CASCADED], key=key)
        unknown = np.nan if name == RANDOM else 1
        note(absolute=unknown * cascade.absolute.mean(axis=1), signed=unknown * cascade.signed.mean(axis=1))
        pixels = np.asarray(maps[:SHOWN].reshape(*maps[:SHOWN].shape[:3], -1).sum(axis=-1))
        observed.setdefault("maps", []).append(_to_int8(pixels))
    return {
        "methods": np.array(list(methods)),
        "fractions": deleted.fractions,
        **{name: np.stack(values) for name, values in observed.items()},
        "layers": np.array(cascade.layers),
        "images": np.asarray(shown[:SHOWN]),
        "classes": np.asarray(classes[:SHOWN]),
        "labels": np.asarray(net.data.test.labels[:SHOWN]),
        "names": np.array(net.data.label_names),
    }


def methods_for(net: Network) -> dict[str, Method]:
    """Return the methods that apply to a network, by name."""
    methods = dict(METHODS)
    outputs = jax.eval_shape(net.forward, jnp.zeros((1, *net.data.image_shape)))
    if "couplings" in outputs:
        iterations = range(1, 1 + (ITERATIONS if iterates(net.config.routing) else 1))
        kinds = {
            "couplings": "couplings {}",
            "coupled_votes": "coupled votes {}",
            "difference": "couplings {} − uniform",
        }
        for kind, name in kinds.items():
            methods |= {name.format(t): Method(partial(_couplings, kind, t)) for t in iterations}
        methods.pop(kinds["difference"].format(1), None)  # the first couplings are uniform
    return methods | {EDGES: Method(lambda net, images, classes: edges(images)), RANDOM: Method(_random)}


def edges(images: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width"]:
    """Return the size of the gradient of an image's brightness, by Sobel's filters: a map that knows no net."""
    padded = jnp.pad(images.mean(axis=-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, 2:] - padded[:, :, :-2]
    down = padded[:, 2:] - padded[:, :-2]
    horizontal = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    vertical = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return jnp.hypot(horizontal, vertical)


def _couplings(kind: str, iteration: int, net: Network, images: Array, classes: Array) -> Array:
    return coupling_maps(net, images, classes, iterations=iteration, kind=kind)[:, -1]


def _random(net: Network, images: Array, classes: Array) -> Array:
    return jax.random.uniform(jax.random.key(1), images.shape[:3])


def _of_class(maps: Callable[..., Array], classes: Array, net: Network, images: Array) -> Array:
    return maps(net, images, classes)


def _to_int8(maps: np.ndarray) -> np.ndarray:
    size = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return np.round(127 * maps / np.where(size > 0, size, 1)).astype(np.int8)
