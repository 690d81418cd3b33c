"""What does a net see?

The pages of the slides on looking into nets, in their order: activations, channels, weights, dead channels, heat maps,
deep dream, images that activate a unit most, reconstruction from a layer, and then capsules. On SqueezeNet, which has
seen ImageNet, with photographs that come with matplotlib and scikit-learn; on a CNN and a CapsNet of MNIST and
Fashion-MNIST, which are trained here for a moment.

    python launch.py --experiment=seeing_inside

Claim of the slides: an image made for a unit activates it more than any image does that the net was tested with.
Pictures are of the run with the least seed. Each is drawn alone by `python launch.py --inspect=METHOD`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.datasets
from matplotlib.figure import Figure

from capsnet_jax.figures.grouping import DATASET, Record
from capsnet_jax.figures.images import single_networks
from capsnet_jax.figures.labels import MODEL, dataset_label
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.network import Network, has_params, load_observation, load_released, restore_record
from capsnet_jax.overrides import grid
from capsnet_jax.report.inspection import Asked, inspect
from capsnet_jax.report.render import Table
from capsnet_jax.statistics import describe_interval, mean_interval

CONFIG: dict[str, object] = {"train.epochs": 4, "data.train_size": 8000}

SWEEP: list[dict[str, object]] = grid(
    {"data.dataset": ("mnist", "fashion_mnist"), "model.name": ("cnn_small", "capsnet_small")}
)

observe = OBSERVATIONS["made_images"]

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
CHINA, FLOWER = (str(PHOTOS / f"{name}.jpg") for name in ("china", "flower"))

# (title, method of --inspect, what is asked), in the order of the slides. Without an image it is matplotlib's portrait.
# Channels were chosen by looking at that portrait: conv1's 47 goes with how red a pixel is (correlation 0.99), and all
# that fire7's 201 does there is on the eyes.
SQUEEZENET: tuple[tuple[str, str, Asked], ...] = (
    ("activations", "activations", Asked(layer="conv1")),
    ("channel_red", "activations", Asked(layer="conv1", unit="47")),
    ("channel_eyes", "activations", Asked(layer="fire7", unit="201")),
    ("channel_class", "activations", Asked(layer="conv10", unit="906")),
    ("weights", "weights", Asked(layer="conv1")),
    ("weights_deep", "weights", Asked(layer="fire5.expand3x3", unit="0")),
    ("heat_maps", "heat_maps", Asked()),
    ("heat_maps_china", "heat_maps", Asked(image=CHINA)),
    ("heat_maps_flower", "heat_maps", Asked(image=FLOWER)),
    ("deep_dream_low", "deep_dream", Asked(image=CHINA, layer="fire3")),
    ("deep_dream", "deep_dream", Asked(image=CHINA, layer="fire6")),
    ("deep_dream_noise", "dream_from_noise", Asked(layer="fire6")),
    ("made_low", "visualize", Asked(layer="fire3", unit="0")),
    ("made_high", "visualize", Asked(layer="fire7", unit="201")),
    ("inverted", "invert", Asked()),
)
TRAINED: tuple[tuple[str, str, Asked], ...] = (
    ("activations", "activations", Asked(layer="conv1")),
    ("weights", "weights", Asked(layer="conv1")),
    ("dead_channels", "dead_channels", Asked()),
    ("heat_maps", "heat_maps", Asked()),
    ("strongest_images", "top_images", Asked()),
    ("made", "visualize", Asked()),
    ("inverted", "invert", Asked()),
)
CNN = (*TRAINED[:5], ("strongest_parts", "top_images", Asked(layer="conv3")), *TRAINED[5:])
CAPSNET = (
    *TRAINED,
    ("couplings", "couplings", Asked()),
    ("coupled_votes", "coupled_votes", Asked()),
    ("alone", "reconstruct_from_one", Asked()),
    ("dimensions", "visualize_dimensions", Asked(target="0")),
)

CAPTIONS = {
    "activations": "all channels of the first layer, on one scale: edges in all directions, and colours",
    "channel_red": "one channel beside the image: it is active where the image is red",
    "channel_eyes": "a later channel: it is active at the eyes",
    "channel_class": "a channel of the last convolution, which is a class",
    "weights": "the filters of the first layer",
    "weights_deep": "one filter of a later layer, by input channel: less to see",
    "dead_channels": "how often each channel is active, and which never are",
    "heat_maps": "which pixels count for the class that the net chooses, by every method",
    "heat_maps_china": "the same on another photograph",
    "heat_maps_flower": "the same on a third",
    "deep_dream_low": "deep dream on an early layer: strokes",
    "deep_dream": "deep dream on a later layer: eyes and animals",
    "deep_dream_noise": "deep dream from noise",
    "strongest_images": "the test images that activate each class most",
    "strongest_parts": "what channels of the last convolution see in the images that activate them most",
    "made_low": "an image made for a channel of an early layer",
    "made_high": "an image made for the channel of the eyes",
    "made": "images made for the classes",
    "inverted": "images made so that a layer does not tell them from the first one: deeper layers keep less",
    "couplings": "which parts of the image are coupled to the class capsule, iteration by iteration",
    "coupled_votes": "which parts' votes agree with it",
    "alone": "the image from all primary capsules, and from one of each type alone",
    "dimensions": "images made for each dimension of the first class's capsule",
}


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each unit of each run: how strongly the strongest test image and the made one activate it."""
    rows = []
    for record in records:
        arrays, settings = load_observation(record, "seeing_inside"), record.settings
        if arrays is None:
            continue
        shared = {
            "dataset": settings[DATASET],
            "preset": settings.get("preset"),
            "seed": record.seed,
            "epochs": settings.get("train.epochs"),
            "model": settings[MODEL],
            "test_error": record.result["test_error"],
            "layer": str(arrays["layer"]),
        }
        for unit, found, made in zip(arrays["units"], arrays["found"], arrays["made"], strict=True):
            rows.append(shared | {"unit": int(unit), "found": float(found), "made": float(made)})
    return rows


def observed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table of how often, and how much more, a made image activates its unit than all test images do."""
    runs: dict[tuple[str, str, str], dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        runs.setdefault((row["dataset"], row["model"], row["layer"]), {}).setdefault(row["seed"], []).append(row)
    lines = []
    for (dataset, model, layer), by_seed in runs.items():
        units = [row for members in by_seed.values() for row in members]
        more = sum(row["made"] > row["found"] for row in units)
        ratio = mean_interval([float(np.mean([r["made"] / r["found"] for r in m])) for m in by_seed.values()])
        text = f"{ratio.mean:.2f}{describe_interval(ratio.mean - ratio.half_width, ratio.mean + ratio.half_width, 2)}"
        lines.append([dataset_label(dataset), model, layer, f"{more} of {len(units)}", text, str(len(by_seed))])
    note = "made for a unit, against the strongest of all test images; ratio: mean over units, 95 % interval over seeds"
    header = ["data", "network", "layer", "made image is stronger", "ratio", "seeds"]
    return [Table("Images made for units", header, lines, [note])]


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw all pages: of SqueezeNet, and of the networks whose parameters are there."""
    drawn = _pages("squeezenet", load_released("squeezenet"), SQUEEZENET)
    for title, record in single_networks(records, [MODEL]).items():
        if has_params(record):
            net = restore_record(record)
            drawn |= _pages(title, net, CNN if net.config.routing is None else CAPSNET)
    return drawn


def _pages(title: str, net: Network, pages: Sequence[tuple[str, str, Asked]]) -> dict[str, Figure]:
    return {f"{name}-{title}": inspect(method, net, asked)[0] for name, method, asked in pages}
