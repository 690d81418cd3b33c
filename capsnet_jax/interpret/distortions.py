"""What a network does not mind: errors and features under distortions of known amounts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from capsnet_jax.data.augment import to_float, to_targets
from capsnet_jax.data.distort import affine, elastic
from capsnet_jax.data.transform import background
from capsnet_jax.interpret.network import Network, Observation
from capsnet_jax.losses import error, scores_of

# Kind of distortion → amounts, the first of which changes nothing.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "shift": (0, 1, 2, 3, 4, 6, 8),
    "rotation": (0, 5, 10, 20, 30, 45, 60),
    "scale": (1, 0.9, 0.8, 0.7, 0.6, 0.5),
    "shear": (0, 0.1, 0.2, 0.3, 0.5, 0.7),
    "elastic": (0, 0.5, 1, 1.5, 2, 3),
}
LAST_HIDDEN = ("hidden", "average", "fc2")  # what a conv net calls the activations before its classes
BATCH = 500
DEAD = 1e-2  # features that vary less than so much of the others say nothing: a unit that is dead in the fitted images


def observe_distortions(net: Network) -> Observation:
    """Measure error and features on the test set, distorted by known amounts.

    Returns:
        For each kind: "kind/amounts" [amounts], "kind/error" [amounts] in percent, "kind/change" [amounts], the mean of
        |f(Tx) − f(x)| / |f(x)| over test images, and "kind/read", the R² of `read_off`. The features f are those of
        `features_of`.
    """
    targets = np.asarray(to_targets(jnp.asarray(net.data.test.labels), net.data.classes))
    labels = targets.argmax(axis=1)
    observed: Observation = {}
    for kind, amounts in AMOUNTS.items():
        features, errors = zip(*(distorted_features(net, kind, float(amount)) for amount in amounts), strict=True)
        start = features[0]
        norm = np.maximum(np.linalg.norm(start, axis=1), 1e-9)
        observed[f"{kind}/amounts"] = np.array(amounts, np.float32)
        observed[f"{kind}/error"] = np.array(errors, np.float32)
        observed[f"{kind}/change"] = np.array([np.mean(np.linalg.norm(f - start, axis=1) / norm) for f in features])
        observed[f"{kind}/read"] = np.array(read_off(np.stack(features), np.array(amounts, np.float64), labels))
    return observed


def distorted_features(net: Network, kind: str, amount: float) -> tuple[Float[np.ndarray, "images dims"], float]:
    """Return the features of the distorted test set, and the error in percent.

    Args:
        net: a CapsNet or a conv net.
        kind: a key of AMOUNTS.
        amount: of the distortion.
    """
    test = net.data.test
    moves_in = background(net.config.data.transform) / 255

    @jax.jit
    def distort(images: Array, index: Array) -> Array:
        pixels = to_float(images) - moves_in  # zeros move in
        if kind == "elastic":
            return moves_in + elastic(jax.random.fold_in(jax.random.key(0), index), pixels, strength=amount)
        return moves_in + affine(pixels, **{kind: amount})

    features, wrong = [], []
    for index, begin in enumerate(range(0, len(test.labels), BATCH)):
        batch = jax.tree.map(lambda leaf, begin=begin: jnp.asarray(leaf[begin : begin + BATCH]), test)
        targets = to_targets(batch.labels, net.data.classes)
        out = net.outputs(distort(batch.images, jnp.int32(index)))
        features.append(np.asarray(features_of(out, targets)))
        wrong.append(np.asarray(jax.vmap(error)(scores_of(out), targets)))
    return np.concatenate(features), 100 * float(np.mean(np.concatenate(wrong)))


def features_of(out: dict[str, Array], targets: Float[Array, "batch classes"]) -> Float[Array, "batch dims"]:
    """Return the capsule of the true class (the first one, of several), or the last hidden layer.

    A net that names none of `LAST_HIDDEN` gives its classes' scores.
    """
    if "capsules" in out:
        true_class = jnp.argmax(targets, axis=-1)
        return jnp.take_along_axis(out["capsules"], true_class[:, None, None], axis=1)[:, 0]
    last = next((name for name in LAST_HIDDEN if name in out), None)
    hidden = scores_of(out) if last is None else out[last]
    return hidden.reshape(len(targets), -1)


def read_off(
    features: Float[np.ndarray, "amounts images dims"],
    amounts: Float[np.ndarray, "amounts"],
    labels: Int[np.ndarray, "images"],
    *,
    ridge: float = 1e-3,
) -> float:
    """Tell how well a linear fit for each class reads the amount of distortion off the features.

    Args:
        features: of the same images, distorted by each amount.
        amounts: of the distortion.
        labels: classes; even images of a class are fitted, odd ones are predicted.
        ridge: weight of the squared coefficients, for features of unit variance.

    Returns:
        R² over the predicted images of all classes; nan where no class has two images.
    """
    errors, spread = 0.0, 0.0
    for label in np.unique(labels):
        members = features[:, labels == label].astype(np.float64)
        fitted, predicted = members[:, ::2], members[:, 1::2]
        mean, std = fitted.mean(axis=(0, 1)), fitted.std(axis=(0, 1))
        std = np.maximum(std, DEAD * np.sqrt(np.mean(std**2)) + 1e-9)
        x, y = ((part - mean) / std for part in (fitted, predicted))
        wanted = np.broadcast_to((amounts - amounts.mean())[:, None], x.shape[:2]).ravel()
        x = x.reshape(-1, x.shape[-1])
        weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ wanted)
        truth = np.broadcast_to((amounts - amounts.mean())[:, None], y.shape[:2])
        errors += np.sum((y @ weights - truth) ** 2)
        spread += np.sum(truth**2)
    return float(1 - errors / spread) if spread else math.nan
