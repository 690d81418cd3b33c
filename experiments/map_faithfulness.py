"""Which heat map tells the truth about a net, and do a CapsNet's couplings?

A map claims which pixels a class depends on. Two tests of the claim: pixels are deleted (replaced by the image's mean)
or inserted (into the blurred image) in the map's order, and the class's probability followed, against a random order
(Samek et al. 2017, arXiv:1509.06321; RISE, Petsiuk et al. 2018, arXiv:1806.07421); and the net's layers are drawn anew
from the last to the first, upon which a map that tells of the net must change (Adebayo et al. 2018, arXiv:1810.03292).
Couplings and coupled votes of each routing iteration are maps among the others; edges are a map that knows no net.

    python launch.py --experiment=map_faithfulness --sweep data.dataset=mnist,fashion_mnist --set train_size=10000 \
        --set epochs=4 --seeds=3

Maps are of the class that the net chooses, for the first 100 test images, right or wrong (the cascade: for 10). A map
that says how much a class depends on a pixel, as the gradient, ranks pixels by its size; one that says how much a pixel
speaks for the class, with its sign. Integrated gradients averaged over the 6×6 positions of primary capsules tell what
a map as coarse as that of couplings could reach. Couplings stand at the centres of receptive fields. Grad-CAM is
stretched over the image, as published, and also placed like couplings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.figures.curves import draw_curve
from capsnet_jax.figures.forest import Row, forest_plot
from capsnet_jax.figures.grouping import DATASET, Record, by_dataset, group, summarize
from capsnet_jax.figures.images import network_note, network_paths, setting_slug, single_networks
from capsnet_jax.figures.labels import MODEL, dataset_label, dataset_slug, interval_label, seeds_label, setting_label
from capsnet_jax.figures.overlays import overlay
from capsnet_jax.interpret import OBSERVATIONS
from capsnet_jax.interpret.compared_maps import EDGES, RANDOM
from capsnet_jax.interpret.network import load_observation
from capsnet_jax.overrides import grid
from capsnet_jax.report.render import Table
from capsnet_jax.statistics import PERCENT, describe_interval, holm, mean_interval, paired_difference

CONFIG: dict[str, object] = {}

SWEEP: list[dict[str, object]] = grid({"model.name": ("cnn_small", "resnet8", "capsnet_small")})

observe = OBSERVATIONS["map_faithfulness"]

CAPTIONS = {
    "areas": "areas under the curves of pixel flipping, and how like the maps of a random net are",
    "curves": "the class's probability while pixels are deleted and inserted",
    "cascade": "how like the trained net's maps are those of a net whose last layers are random",
    "examples": "a test image, and every method's map over it",
}

# Drawn as curves: each the method of this name, or the last one whose name begins so (the deepest layer).
CURVES = (RANDOM, EDGES, "gradient", "integrated gradients", "occlusion", "grad-cam")
ITERATED = ("couplings", "coupled votes")  # of these the last iteration
FAMILIES = {"coupl": style.VERMILLION, "grad-cam": style.GREEN, "layer-cam": style.GREEN, "occlusion": style.ORANGE}
CONTROLS = (EDGES, RANDOM)
AREAS = {"deletion_area": "deletion: area [%]", "insertion_area": "insertion: area [%]"}
SAME = "similarity_all"
LEVEL = 0.95


def observed_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return a row for each run and method: areas in percent, their differences from random, and similarities.

    "…_last" stands for the net whose last layer is random, "…_all" for the one without a trained layer.
    """
    rows: list[dict[str, Any]] = []
    by = network_paths(records, [MODEL])
    for record in records:
        arrays, settings = load_observation(record, "map_faithfulness"), record.settings
        if arrays is None:
            continue
        methods = arrays["methods"].tolist()
        random = methods.index(RANDOM)
        for i, method in enumerate(methods):
            row: dict[str, Any] = {
                "dataset": settings[DATASET],
                "preset": settings.get("preset"),
                "seed": record.seed,
                "epochs": settings.get("train.epochs"),
                "network": setting_label(by, [settings.get(path) for path in by]),
                "method": method,
                "test_error": record.result["test_error"],
            }
            for name in AREAS:
                area, of_random = float(arrays[name][i]), float(arrays[name][random])
                row |= {name: area, f"{name}_less_random": area - of_random}
            for kind, name in (("absolute", "similarity"), ("signed", "signed_similarity")):
                row |= {f"{name}_last": float(arrays[kind][i, 0]), f"{name}_all": float(arrays[kind][i, -1])}
            rows.append(row)
    return rows


def observed_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return a table for each data set and network: the methods, the best by deletion first."""
    tables = []
    for (dataset, network), methods in _by_network(rows).items():
        seeds = {row["seed"] for row in rows if (row["dataset"], row["network"]) == (dataset, network)}
        others = [name for name in methods if name != RANDOM]
        tests = [paired_difference(methods[m][a], methods[RANDOM][a]) for m in others for a in AREAS]
        p_values = dict(zip([(m, a) for m in others for a in AREAS], holm([t.p_value for t in tests]), strict=True))
        lines = []
        for method in _ordered(methods):
            line = [method]
            for area in AREAS:
                less = mean_interval(methods[method][f"{area}_less_random"])
                p = p_values.get((method, area), np.nan)
                difference = "" if method == RANDOM else f"{less.mean:+.1f}{describe_interval(*_ends(less), 1)}"
                line += [_mean(methods[method][area], 1, PERCENT), difference, "" if np.isnan(p) else f"{p:.2g}"]
            lines.append([*line, *(_mean(methods[method][f"similarity_{step}"], 2) for step in ("last", "all"))])
        header = ["map", "deletion %", "less random", "p (Holm)", "insertion %", "less random", "p (Holm)"]
        header += ["similarity, last layer random", "all layers random"]
        title = f"{dataset_label(dataset)}, {network}"
        notes = [f"mean ± 95 % interval over {seeds_label([len(seeds)])}; p of paired t tests against the random order"]
        tables.append(Table(title, header, lines, notes))
    if tables:
        tables[-1].notes.append(
            "Areas in percent. Deletion: mean probability of the class while pixels are deleted in the map's order,"
            " less is better; insertion: more is better. Similarity: rank correlation with the trained net's map, sign"
            " left out; near 0 if the map tells of what was learned."
        )
    return tables


def figures(records: Sequence[Record]) -> dict[str, Figure]:
    """Draw areas and similarities of all methods, curves of some, and examples."""
    rows, by = observed_rows(records), network_paths(records, [MODEL])
    drawn: dict[str, Figure] = {}
    settings = [setting for _, *setting in group(records, [DATASET, *by])]
    slugs = {setting_label(by, setting): setting_slug(by, setting) for setting in settings}
    for (dataset, network), methods in _by_network(rows).items():
        drawn[f"areas-{dataset_slug(dataset)}-{slugs[network]}"] = areas(
            methods, f"{dataset_label(dataset)}, {network}"
        )
    for dataset, members in by_dataset(records).items():
        observed = {
            setting_label(by, setting): [a for a in (load_observation(r, "map_faithfulness") for r in runs) if a]
            for setting, runs in group(members, by).items()
        }
        observed = {network: runs for network, runs in observed.items() if runs}
        if observed:
            drawn[f"curves-{dataset_slug(dataset)}"] = flipping_curves(observed, dataset=dataset)
            drawn[f"cascade-{dataset_slug(dataset)}"] = cascades(observed, dataset=dataset)
    for title, record in single_networks(records, [MODEL]).items():
        arrays = load_observation(record, "map_faithfulness")
        if arrays:
            drawn[f"examples-{title}"] = examples(arrays, note=network_note(record, "the first test image"))
    return drawn


@style.styled
def areas(methods: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Draw both areas and the similarity with a random net's map, a row a method, the best by deletion on top.

    Args:
        methods: {method: {column of `observed_rows`: a value a seed}}.
        title: data set and network.
    """
    names = _ordered(methods)
    figure = style.new_figure(1.2 + 0.22 * len(names))
    columns = AREAS | {SAME: "similarity with the map\nof a random net"}
    panels = figure.subplots(1, len(columns), sharey=True)
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        rows = []
        for name in names:
            estimate = mean_interval(methods[name][column], LEVEL)
            rows.append(Row(name, methods[name][column], *_ends(estimate), "", _colour(name)))
        origin = mean_interval(methods[RANDOM][column]).mean if column in AREAS else 0.0
        forest_plot(axes, rows, origin=origin, limits=PERCENT if column in AREAS else (-1, 1))
        axes.set_xlabel(label)
    figure.suptitle(title, fontsize=10)
    counts = [len(values[SAME]) for values in methods.values()]
    style.caption(
        figure,
        f"dot: one seed; diamond: mean of {seeds_label(counts)}",
        interval_label(counts, LEVEL, "bar"),
        "grey line: random order, and no similarity",
        "deletion: left of random is better, insertion: right of it, similarity: near 0",
        "red: couplings; green: class activation; orange: occlusion; grey: no net; blue: gradients",
    )
    return figure


@style.styled
def flipping_curves(runs: Mapping[str, Sequence[Mapping[str, np.ndarray]]], *, dataset: str) -> Figure:
    """Draw the class's probability against the pixels deleted and inserted, a row a network, a line a method.

    Args:
        runs: each network's runs. A run is what `observe` returns.
        dataset: what the caption names.
    """
    figure = style.new_figure(0.8 + 2.2 * len(runs))
    panels = figure.subplots(len(runs), 2, squeeze=False, sharex=True, sharey="row")

    for (network, members), row in zip(runs.items(), panels, strict=True):
        for axes, what in zip(row, ("deletion", "insertion"), strict=True):
            _draw_methods(axes, members, 100 * members[0]["fractions"], [run[what] for run in members], PERCENT)
        row[0].set_ylabel(f"{network}\nprobability [%]")
    for axes, what in zip(panels[-1], ("deleted", "inserted"), strict=True):
        axes.set_xlabel(f"pixels {what} [%]")
    return _finish(figure, panels, runs, dataset)


@style.styled
def cascades(runs: Mapping[str, Sequence[Mapping[str, np.ndarray]]], *, dataset: str) -> Figure:
    """Draw the similarity with the trained net's map against the layers made random, a panel a network.

    Args:
        runs: each network's runs. A run is what `observe` returns.
        dataset: what the caption names.
    """
    figure = style.new_figure(3.2)
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)
    for axes, (network, members) in zip(panels[0], runs.items(), strict=True):
        layers = members[0]["layers"].tolist()
        steps = np.arange(len(layers) + 1)
        similarities = [np.pad(run["absolute"], ((0, 0), (1, 0)), constant_values=1) for run in members]
        _draw_methods(axes, members, steps, similarities, (-1, 1))
        axes.set_xticks(steps, ["trained", *(f"+ {layer}" for layer in layers)], rotation=60, ha="right", fontsize=8)
        axes.set_title(network)
    panels[0, 0].set_ylabel("rank correlation of |map|")
    return _finish(figure, panels, runs, dataset, "layers are made random from the last on, and stay so")


def examples(arrays: Mapping[str, np.ndarray], *, note: str) -> Figure:
    """Draw a test image with every method's map laid over it.

    Args:
        arrays: what `observe` returns.
        note: how the caption begins.
    """
    maps = dict(zip(arrays["methods"].tolist(), arrays["maps"][:, None].astype(np.float32), strict=True))
    return overlay(arrays["image"][None], maps, note=f"{note}; maps of the class {arrays['class']}")


def _draw_methods(
    axes: Axes,
    runs: Sequence[Mapping[str, np.ndarray]],
    x: np.ndarray,
    curves: Sequence[np.ndarray],
    limits: tuple[float, float],
) -> None:
    """Draw a line for each of CURVES that these runs have; a run's curves are [methods, points]."""
    methods = runs[0]["methods"].tolist()
    iterated = [[m for m in methods if re.fullmatch(rf"{name} \d+", m)][-1:] for name in ITERATED]
    for number, name in enumerate([*CURVES, *itertools.chain(*iterated)]):
        found = [m for m in methods if m == name] or [m for m in methods if m.startswith(f"{name} ")]
        values = np.stack([of_run[methods.index(found[-1])] for of_run in curves], axis=1) if found else np.zeros(0)
        if np.isfinite(values[-1:]).all() and found:
            look = {"color": style.GREY, "linestyle": ":" if name == RANDOM else "--"}
            look = look if name in CONTROLS else style.series_style(number - len(CONTROLS))
            draw_curve(axes, summarize(x, values, LEVEL), label=name, limits=limits, **look)


def _finish(figure: Figure, panels: np.ndarray, runs: Mapping[str, Sequence[Any]], dataset: str, *more: str) -> Figure:
    style.legend(figure, panels.flat)
    counts = [len(members) for members in runs.values()]
    lines = f"line: mean of {seeds_label(counts)}"
    of_layer = "grad-cam: of the last layer with positions"
    style.caption(figure, dataset_label(dataset), lines, interval_label(counts, LEVEL, "band"), of_layer, *more)
    return figure


def _by_network(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, list[float]]]]:
    """Return {(data set, network): {method: {column: a value a seed, in the order of seeds}}}."""
    found: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        columns = found.setdefault((row["dataset"], row["network"]), {}).setdefault(row["method"], {})
        for name, value in row.items():
            if isinstance(value, float):
                columns.setdefault(name, []).append(value)
    return found


def _ordered(methods: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    return sorted(methods, key=lambda name: np.mean(methods[name]["deletion_area"]))


def _colour(method: str) -> str:
    if method in CONTROLS:
        return style.GREY
    return next((colour for start, colour in FAMILIES.items() if method.startswith(start)), style.BLUE)


def _ends(estimate: Any) -> tuple[float, float]:
    return estimate.mean, estimate.half_width


def _mean(values: Sequence[float], digits: int, limits: tuple[float, float] = (-1, 1)) -> str:
    estimate = mean_interval(values)
    if not estimate.n:
        return ""
    return f"{estimate.mean:.{digits}f}{describe_interval(*_ends(estimate), digits, limits)}"
