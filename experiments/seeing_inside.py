"""What does a net see?

The pages of the slides on looking into nets, in their order: activations, channels, weights, dead channels, heat maps,
deep dream, images that activate a unit most, reconstruction from a layer, and then capsules. On SqueezeNet, which has
seen ImageNet, with photographs that come with matplotlib and scikit-learn; on a CNN and a CapsNet of MNIST and
Fashion-MNIST, which are trained here for a moment.

    python launch.py --experiment=seeing_inside

Counted over all seeds: whether an image made for a unit activates it more than any test image does; channels that are
dead, and channels that are the strongest of their layer for some test image. Whether a channel of SqueezeNet is dead,
three photographs cannot tell. Pictures of trained networks are of the run with the least seed, and need its parameters.
Pictures of one image alone are drawn by `python launch.py --inspect=METHOD` too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsnet_jax.figures.grouping import DATASET, Record
from capsnet_jax.figures.images import network_paths, single_networks
from capsnet_jax.figures.labels import MODEL, dataset_label, setting_label
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.inside import COUNTED, COUNTS
from capsnet_jax.interpret.network import Network, has_params, load_observation, load_released, restore_record
from capsnet_jax.overrides import grid
from capsnet_jax.report import seen_photographs, seen_runs
from capsnet_jax.report.inspection import Asked, inspect
from capsnet_jax.report.render import Table
from capsnet_jax.report.seen_photographs import FOLDER
from capsnet_jax.statistics import describe_interval, mean_interval

CONFIG: dict[str, object] = {"train.epochs": 3, "data.train_size": 5000}

SWEEP: list[dict[str, object]] = grid(
    {"data.dataset": ("mnist", "fashion_mnist"), "model.name": ("cnn_small", "capsnet_small")}
)

observe = OBSERVATIONS["inside"]

# (title, method of --inspect, what is asked). Without an image it is matplotlib's portrait.
SQUEEZENET: tuple[tuple[str, str, Asked], ...] = (
    ("weights", "weights", Asked(layer="conv1")),
    ("deep_weights", "weights", Asked(layer="fire5.expand3x3", unit="0")),
    ("heat_maps_portrait", "heat_maps", Asked()),
    ("heat_maps_china", "heat_maps", Asked(image=str(FOLDER / "china.jpg"))),
    ("heat_maps_flower", "heat_maps", Asked(image=str(FOLDER / "flower.jpg"))),
    ("inverted", "invert", Asked()),
)
TRAINED: tuple[tuple[str, str, Asked], ...] = (
    ("activations", "activations", Asked()),
    ("weights", "weights", Asked()),
    ("dead_channels", "dead_channels", Asked()),
    ("heat_maps", "heat_maps", Asked()),
    ("strongest_images", "top_images", Asked()),
    ("made", "visualize", Asked()),
)
CAPSNET: tuple[tuple[str, str, Asked], ...] = (
    ("deep_weights", "weights", Asked(layer="primary", unit="0")),
    ("alone", "reconstruct_from_one", Asked()),
    ("dimensions", "visualize_dimensions", Asked(target="0")),
)

CAPTIONS = {
    "activations": "all channels of the first layer on one scale: edges in all directions, and any colours",
    "red_channel": "a channel of the first layer beside the image: it is active on red pixels",
    "strongest_channels": "of each layer the channel with the greatest activation: edges first, then parts of things",
    "parts": "channels of late layers that are active on one part of the portrait: the eyes, the face, the tie",
    "weights": "the filters of the first layer: edges and colours in SqueezeNet, noise after a short training",
    "deep_weights": "one filter of a later layer, a tile for each of its inputs: less to see",
    "dead_channels": "how often each channel is active over test images, and which never are",
    "heat_maps_portrait": "which pixels count for the class that the net chooses, by every method",
    "heat_maps_china": "the same for another photograph",
    "heat_maps_flower": "the same for a flower that none of the 1,000 classes is",
    "heat_maps": "which pixels count for the class that the net chooses, by every method",
    "deep_dream": "a photograph with more in it of what a layer sees: strokes, then eyes and whirls, then things",
    "deep_dream_noise": "the same from noise",
    "strongest_images": "the test images that activate each class most",
    "strongest_parts": "what channels of the last convolution see in the test images that activate them most",
    "made": "images made for classes, and in SqueezeNet for channels of an early and a late layer",
    "inverted": "images made to look the same to a layer: the deeper it is, the less of the image is left",
    "couplings": "where an image is coupled to the chosen class, and where votes agree, iteration by iteration",
    "activity_vectors": "class capsules: one is long, and its direction says how the thing looks",
    "alone": "the image from all primary capsules, and from the most coupled one of each type alone",
    "dimensions": "images made for each dimension of the first class's capsule: strokes in different places",
}


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each unit that an image was made for, and one for each layer whose channels were counted."""
    rows, by = [], network_paths(records, [MODEL])
    for record in records:
        arrays, settings = load_observation(record, "seeing_inside"), record.settings
        if arrays is None:
            continue
        shared = {
            "dataset": settings[DATASET],
            "preset": settings.get("preset"),
            "seed": record.seed,
            "epochs": settings.get("train.epochs"),
            "network": setting_label(by, [settings.get(path) for path in by]),
            "test_error": record.result["test_error"],
        }
        for unit, found, made in zip(arrays["units"], arrays["found"], arrays["made"], strict=True):
            rows.append(
                shared | {"layer": str(arrays["layer"]), "unit": int(unit), "found": float(found), "made": float(made)}
            )
        for layer, *counts in zip(*(arrays[name] for name in ("layers", *COUNTS)), strict=True):
            rows.append(shared | {"layer": str(layer)} | {n: float(c) for n, c in zip(COUNTS, counts, strict=True)})
    return rows


def observed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return how made images compare with test images, and what was counted of channels."""
    made, counted = [row for row in rows if "made" in row], [row for row in rows if "made" not in row]
    lines = []
    for key, by_seed in _by_seed(made).items():
        units = [row for members in by_seed.values() for row in members]
        more = sum(row["made"] > row["found"] for row in units)
        # What no test image activates has no ratio.
        alive = [[row["made"] / row["found"] for row in members if row["found"] > 0] for members in by_seed.values()]
        ratios = [float(np.mean(of_seed)) for of_seed in alive if of_seed]
        lines.append([*key, f"{more} of {len(units)}", _mean(ratios, 2), str(len(by_seed))])
    header = ["data", "network", "layer", "made image is stronger", "ratio", "seeds"]
    note = (
        "made for a unit, against the strongest of all test images; ratio: mean over the units that one of these"
        " activates, 95 % interval over seeds"
    )
    tables = [Table("Images made for units", header, lines, [note])]
    lines = [
        [*key, *(_mean([m[0][name] for m in by_seed.values()], 1) for name in COUNTS), str(len(by_seed))]
        for key, by_seed in _by_seed(counted).items()
    ]
    header = ["data", "network", "layer", *(name.replace("_", " ") for name in COUNTS), "seeds"]
    note = f"over {COUNTED:,} test images; leading: the strongest channel of its layer for one of them or more"
    return [*tables, Table("Channels", header, lines, [note])]


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw all pages: of SqueezeNet, and of the networks whose parameters are there."""
    released = load_released("squeezenet")
    photographs = seen_photographs.load(released)
    drawn = {f"{title}-squeezenet": draw(released, photographs) for title, draw in seen_photographs.PAGES.items()}
    drawn |= _inspected("squeezenet", released, SQUEEZENET)
    for name, record in single_networks(records, [MODEL]).items():
        if has_params(record):
            drawn |= _of_run(name, restore_record(record))
    return drawn


def _of_run(name: str, net: Network) -> dict[str, Figure]:
    """Draw the pages of one trained network."""
    routes, layers = net.is_capsnet, net.layers_with_positions()
    shown = seen_runs.examples(net)
    pages = seen_runs.ANY | (seen_runs.CAPSULES if routes else {})
    drawn = {f"{title}-{name}": draw(net, shown) for title, draw in pages.items()}
    late: tuple[tuple[str, str, Asked], ...] = (("strongest_parts", "top_images", Asked(layer=layers[-1])),)
    return drawn | _inspected(name, net, (*TRAINED, *(CAPSNET if routes else late)))


def _inspected(name: str, net: Network, pages: Sequence[tuple[str, str, Asked]]) -> dict[str, Figure]:
    return {f"{title}-{name}": inspect(method, net, asked)[0] for title, method, asked in pages}


def _by_seed(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[int, list[Mapping[str, Any]]]]:
    """Return {(data set, network, layer): {seed: rows}}."""
    found: dict[tuple[str, str, str], dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        key = dataset_label(row["dataset"]), row["network"], row["layer"]
        found.setdefault(key, {}).setdefault(row["seed"], []).append(row)
    return found


def _mean(values: Sequence[float], digits: int) -> str:
    estimate = mean_interval(values)
    if not estimate.n:
        return ""
    return f"{estimate.mean:.{digits}f}{describe_interval(estimate.mean, estimate.half_width, digits, (0, math.inf))}"
