"""What does a CapsNet not mind, what does a CNN not mind, and what does pooling have to do with it?

Claim of the slides: pooling makes a CNN invariant to small shifts and loses where things are; capsules keep it, their
length staying and their direction moving with the picture. Measured on the test set, distorted by known amounts
(shift, rotation, scale, shear, elastic): the error, how far the features move, and how well the amount of distortion
can be read off the features (held-out R² of a linear fit for each class), which is what equivariance would give.

    python launch.py --experiment=invariance --dataset=mnist --seeds=3

CapsNet and the two CNNs have about as many parameters (1.1 M with the decoder, 0.9 M); the CNNs are the same but for
2×2 max pooling or stride 2. Training shifts images by up to `data.max_shift` pixels; set it to 0 for nets that never saw
it. In the workdir of `conv_baselines` its CapsNet and CNN are found and not trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.grouping import Record, by_dataset, summarize
from capsnet_jax.figures.labels import MODEL, dataset_label, dataset_slug, interval_label, possible_range, seeds_label
from capsnet_jax.interpret.restore import Trained, observed
from capsnet_jax.overrides import grid
from capsnet_jax.statistics import mean_interval

CONFIG: dict[str, object] = {"eval.max_routing_iterations": 7}

SWEEP: list[dict[str, object]] = grid({"model.name": ("capsnet_small", "cnn_small", "cnn_small_strided")})

# Kind of distortion → amounts, the first of which changes nothing.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "shift": (0, 1, 2, 3, 4, 6, 8),
    "rotation": (0, 5, 10, 20, 30, 45, 60),
    "scale": (1, 0.9, 0.8, 0.7, 0.6, 0.5),
    "shear": (0, 0.1, 0.2, 0.3, 0.5, 0.7),
    "elastic": (0, 0.5, 1, 1.5, 2, 3),
}
UNITS = {
    "shift": "shift [pixels]",
    "rotation": "rotation [degrees]",
    "scale": "scale",
    "shear": "shear",
    "elastic": "elastic [pixels]",
}
BATCH = 500
DEAD = 1e-2  # features that vary less than so much of the others say nothing: a unit that is dead in the fitted images


def observe(trained: Trained) -> dict[str, np.ndarray]:
    """Errors and features under distortion.

    Returns:
        For each kind: "kind/amounts" [amounts], "kind/error" [amounts] in percent, "kind/change" [amounts], the mean
        of |f(Tx) − f(x)| / |f(x)| over test images, "kind/read" the R² with which the amount is read off the features.
        The features f are a CapsNet's capsule of the true class, a CNN's last hidden layer.
    """
    labels = np.asarray(trained.data.test.labels)
    seen: dict[str, np.ndarray] = {}
    for kind, amounts in AMOUNTS.items():
        features, errors = zip(*(_features(trained, kind, float(amount)) for amount in amounts), strict=True)
        start = features[0]
        norm = np.maximum(np.linalg.norm(start, axis=1), 1e-9)
        seen[f"{kind}/amounts"] = np.array(amounts, np.float32)
        seen[f"{kind}/error"] = np.array(errors, np.float32)
        seen[f"{kind}/change"] = np.array([np.mean(np.linalg.norm(f - start, axis=1) / norm) for f in features])
        seen[f"{kind}/read"] = np.array(read_off(np.stack(features), np.array(amounts), labels))
    return seen


def read_off(features: np.ndarray, amounts: np.ndarray, labels: np.ndarray, *, ridge: float = 1e-3) -> float:
    """How well a linear fit for each class tells the amount of distortion from the features.

    Args:
        features: float[amounts, images, dims].
        amounts: float[amounts].
        labels: int[images]; even images of a class are fitted, odd ones are predicted.
        ridge: weight of the squared coefficients, for features of unit variance.

    Returns:
        R² over the predicted images of all classes.
    """
    errors, spread = 0.0, 0.0
    for label in np.unique(labels):
        own = features[:, np.asarray(labels) == label].astype(np.float64)
        fitted, held = own[:, ::2], own[:, 1::2]
        mean, std = fitted.mean(axis=(0, 1)), fitted.std(axis=(0, 1))
        std = np.maximum(std, DEAD * np.sqrt(np.mean(std**2)) + 1e-9)
        x, y = ((part - mean) / std for part in (fitted, held))
        wanted = np.broadcast_to((amounts - amounts.mean())[:, None], x.shape[:2]).ravel()
        x = x.reshape(-1, x.shape[-1])
        weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ wanted)
        truth = np.broadcast_to((amounts - amounts.mean())[:, None], y.shape[:2])
        errors += np.sum((y @ weights - truth) ** 2)
        spread += np.sum(truth**2)
    return float(1 - errors / spread)


def _features(trained: Trained, kind: str, amount: float) -> tuple[np.ndarray, float]:
    """The features [images, dims] of the distorted test set, and the error in percent."""
    import jax

    from capsnet_jax.data.augment import to_float
    from capsnet_jax.data.distort import affine, elastic

    held = trained.data.test

    @jax.jit
    def distorted(images: jax.Array, number: jax.Array) -> jax.Array:
        pictures = to_float(images)
        if kind == "elastic":
            return elastic(jax.random.fold_in(jax.random.key(0), number), pictures, strength=amount)
        return affine(pictures, **{kind: amount})

    features, wrong = [], []
    for number, begin in enumerate(range(0, len(held.labels), BATCH)):
        batch = slice(begin, begin + BATCH)
        labels = np.asarray(held.labels[batch])
        out = trained.outputs(distorted(held.images[batch], number))
        own = out["capsules"][np.arange(len(labels)), labels] if "capsules" in out else out["hidden"]
        scores = out["lengths"] if "lengths" in out else out["logits"]
        features.append(np.asarray(own))
        wrong.append(np.argmax(scores, axis=-1) != labels)
    return np.concatenate(features), 100 * float(np.mean(np.concatenate(wrong)))


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Of each data set: error, change of the features and what can be read off them, against each distortion."""
    networks = list(dict.fromkeys(record.settings[MODEL] for record in records))
    drawn = {}
    for dataset, members in by_dataset(records).items():
        runs: dict[str, list[Mapping[str, np.ndarray]]] = {network: [] for network in networks}
        for record in members:
            if (arrays := observed(record, "invariance")) is not None:
                runs[record.settings[MODEL]].append(arrays)
        if any(runs.values()):
            drawn[f"curves-{dataset_slug(dataset)}"] = distortion_curves(runs, list(AMOUNTS), dataset=dataset)
    return drawn


@style.styled
def distortion_curves(
    runs: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    kinds: Sequence[str],
    *,
    dataset: str,
    level: float = 0.95,
) -> Figure:
    """Draw the error and the relative change of the features against each distortion, one colour a network.

    Below stands how well the amount of distortion can be read off the features.

    Args:
        runs: each network's runs. A run is what `observe` returns.
        kinds: the distortions, a column each.
        dataset: what the caption names.
        level: the coverage of the bands.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not any(runs.values()):
        raise ValueError("no runs to draw")
    figure = style.new_figure(7.0 + 0.2 * len(runs))
    panels = figure.subplots(3, len(kinds), squeeze=False, sharey="row", height_ratios=(2, 2, 1))
    for column, kind in zip(panels.T, kinds, strict=True):
        for index, (network, members) in enumerate(runs.items()):
            if not members:
                continue
            colour = style.series_style(index)["color"]
            amounts = members[0][f"{kind}/amounts"]
            for axes, quantity in zip(column[:2], ("error", "change"), strict=True):
                values = np.stack([run[f"{kind}/{quantity}"] for run in members])
                curve = summarize(amounts, values.T, level)
                draw_curve(axes, curve, label=network, color=colour, limits=possible_range(quantity))
                axes.set_xticks(amounts[::2])
            read = mean_interval([float(run[f"{kind}/read"]) for run in members], level)
            column[2].errorbar(index, read.mean, read.half_width, fmt="o", capsize=3, color=colour)
        if kind == "scale":
            for axes in column[:2]:
                axes.invert_xaxis()
        column[0].tick_params(labelbottom=False)
        column[1].set_xlabel(UNITS.get(kind, kind))
        column[2].set_xticks([])
        column[2].set_xlim(-0.7, len(runs) - 0.3)
    panels[0, 0].set_ylabel("test error [%]")
    panels[1, 0].set_ylabel("relative change\nof the features")
    panels[2, 0].set_ylabel("R² of reading\nthe amount off")
    style.legend(figure, panels[:2].flat)
    counts = [len(members) for members in runs.values() if members]
    style.caption(
        figure,
        f"{dataset_label(dataset)}, test images",
        f"line: mean of {seeds_label(counts)}",
        interval_label(counts, level, "band or bar"),
        "the amount is read off by a linear fit for each class, on images that were not fitted",
    )
    return figure
