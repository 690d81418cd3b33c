"""Single images: what a network was shown, what it made of it, and how sure it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import capsnet_jax.figures.style as style
from capsnet_jax.config import PRESETS, ConfigError
from capsnet_jax.figures.grouping import DATASET, Record, group, paths_within
from capsnet_jax.figures.labels import ITERATIONS, MODEL, dataset_label, dataset_slug, setting_label
from capsnet_jax.overrides import flatten, format_value, from_preset, resolve

ROUTER = "routing.name"
HIGHEST = 100  # inches; matplotlib draws no more than 400
_BARS = 12  # of more classes, the longest capsules are shown
_COLUMNS = 10
_COLUMNS_WITH_NAMES = 6


@style.styled
def prediction(
    image: np.ndarray,
    reconstruction: np.ndarray | None,
    lengths: np.ndarray,
    label_names: Sequence[str],
    *,
    measure: str = "capsule length",
    shown: int = 1,
    note: str = "",
) -> Figure:
    """Draw an image, its reconstruction and the lengths of the class capsules, or another score.

    Args:
        image: float[H, W, C] in 0..1; channels other than 1 or 3 are averaged.
        reconstruction: float[H, W, C], or None where the model has no decoder.
        lengths: float[classes], the capsule lengths; the longest finite ones are the prediction.
        label_names: one name a class.
        measure: what the lengths are, such as "probability".
        shown: how many classes the image shows.
        note: how the caption begins, such as the data set and the model.

    Raises:
        ValueError: the shapes do not fit.
    """
    lengths = np.asarray(lengths, np.float64)
    if lengths.shape != (len(label_names),) or not lengths.size:
        raise ValueError(f"need one length a class, got {lengths.shape} for {len(label_names)} names")
    pictures = {"input": image}
    if reconstruction is not None:
        pictures["reconstruction"] = reconstruction
    ranked = np.argsort(np.where(np.isfinite(lengths), -lengths, np.inf), kind="stable")
    lengths = np.where(np.isfinite(lengths), lengths, 0.0)
    predicted, drawn = ranked[:shown], np.sort(ranked[:_BARS])
    figure = style.new_figure(max(2.4, 0.9 + 0.2 * drawn.size))
    *panels, bars = figure.subplots(1, len(pictures) + 1, width_ratios=[1] * len(pictures) + [1.5])
    for axes, (title, picture) in zip(panels, pictures.items(), strict=True):
        show(axes, picture)
        axes.set_title(title)
    colours = [style.VERMILLION if index in predicted else style.BLUE for index in drawn]
    bars.barh(np.arange(drawn.size), lengths[drawn], color=colours)
    bars.set_yticks(np.arange(drawn.size), [label_names[index] for index in drawn])
    for place in np.flatnonzero(np.isin(drawn, predicted)):
        bars.get_yticklabels()[place].set_fontweight("bold")
    bars.invert_yaxis()
    bars.grid(False, axis="y")
    bars.set(xlim=(0, max(1.0, lengths.max())), xlabel=measure)
    bars.set_title(f"prediction: {' and '.join(label_names[index] for index in predicted)}")
    longest = f" (the {drawn.size} longest of {lengths.size})" if drawn.size < lengths.size else ""
    predictions = "the predicted class" if shown == 1 else "the predicted ones"
    bars_label = f"bars: {measure} of each class{longest}, {predictions} in red"
    style.caption(figure, note, "one image, one network", bars_label)
    return figure


@style.styled
def reconstructions(
    images: np.ndarray,
    reconstructions: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    *,
    label_names: Sequence[str] | None = None,
    note: str = "",
) -> Figure:
    """Draw images in rows, each with its reconstruction under it; wrong predictions are marked.

    Args:
        images: float[N, H, W, C] in 0..1.
        reconstructions: float[N, H, W, C].
        labels: int[N], the true classes.
        predictions: int[N].
        label_names: one name a class; the class numbers where None.
        note: how the caption begins, such as the data set and the model.

    Raises:
        ValueError: there are no images, or the shapes do not fit.
    """
    count = len(images)
    if not count:
        raise ValueError("no images to draw")
    if not count == len(reconstructions) == len(labels) == len(predictions):
        sizes = f"{count}, {len(reconstructions)}, {len(labels)} and {len(predictions)}"
        raise ValueError(f"need as many images, reconstructions, labels and predictions, got {sizes}")
    rows = -(-count // (_COLUMNS if label_names is None else _COLUMNS_WITH_NAMES))
    columns = -(-count // rows)
    side = style.WIDTH / max(columns, 4)
    title = 0.25 if label_names is None else 0.45
    height, width = np.shape(images)[1:3]
    figure = style.new_figure(min(HIGHEST, 0.3 + rows * (2 * side * height / width + title)), "compressed")
    panels = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in panels.flat:
        style.image_axes(axes)
    for index in range(count):
        row, column = divmod(index, columns)
        above, below = panels[2 * row, column], panels[2 * row + 1, column]
        show(above, images[index])
        show(below, reconstructions[index])
        true, guess = int(labels[index]), int(predictions[index])
        names = [str(k) if label_names is None else label_names[k] for k in dict.fromkeys((true, guess))]
        arrow = " → " if label_names is None else "\n→ "
        above.set_title(arrow.join(names), fontsize=9, color=style.BLACK if true == guess else style.VERMILLION)
    wrong = int(np.sum(np.asarray(labels) != np.asarray(predictions)))
    text = f"above: input; below: its reconstruction; red: label → prediction where wrong ({wrong} of {count})"
    style.caption(figure, note, text)
    return figure


def show(axes: Axes, picture: np.ndarray) -> None:
    """Draw float[H, W, C]: colour for three channels, grey otherwise."""
    picture = np.clip(np.nan_to_num(np.asarray(picture, np.float64)), 0, 1)
    if picture.ndim != 3:
        raise ValueError(f"need an image of shape [H, W, C], got {picture.shape}")
    if picture.shape[-1] != 3:
        picture = picture.mean(axis=-1)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    style.image_axes(axes)


def network_paths(records: Sequence[Record], always: Sequence[str] = ()) -> list[str]:
    """Return the paths that tell networks apart: `always`, model and router if they vary, what varies with one of them.

    That each model has settings of its own says nothing beside its name.
    """
    names = (MODEL, ROUTER)
    varying = [path for path in names if len({record.settings.get(path) for record in records} - {None}) > 1]
    return list(dict.fromkeys([*always, *varying, *paths_within(records, names)]))


def single_networks(records: Sequence[Record], always: Sequence[str] = ()) -> dict[str, Record]:
    """Return the runs whose networks are drawn alone: of each data set and setting the one with the least seed.

    Args:
        records: finished runs of an experiment.
        always: as of `network_paths`, which tells settings apart.

    Returns:
        Each run by what tells it from the others, as part of a figure's title: `mnist-iterations3`.
    """
    if not records:
        return {}
    by = network_paths(records, always)
    return {
        "-".join(filter(None, [dataset_slug(dataset), setting_slug(by, setting)])): min(runs, key=lambda r: r.seed)
        for (dataset, *setting), runs in group(records, [DATASET, *by]).items()
    }


def setting_slug(by: Sequence[str], values: Sequence[object]) -> str:
    """Return one setting as part of a file's name: `iterations3-uniform`."""
    words = [
        f"{'' if path.endswith('.name') else path.rpartition('.')[2]}{format_value(value)}"
        for path, value in zip(by, values, strict=True)
        if value is not None
    ]
    return re.sub(r"[^\w.+=-]", "_", "-".join(words))


def network_note(record: Record, what: str) -> str:
    """Return how the caption of a single network's figure begins: data set, network, seed, and what it was trained by.

    Args:
        record: of its run.
        what: is drawn, such as "validation images".
    """
    settings = record.settings
    paths = (MODEL, ROUTER, ITERATIONS)
    network = setting_label(paths, [settings.get(path) for path in paths])
    parts = [f"{dataset_label(settings[DATASET])}, {what}", f"{network}, seed {record.seed}", _beside_preset(settings)]
    return "; ".join(filter(None, parts))


def _beside_preset(settings: Mapping[str, object]) -> str:
    """Return `small preset`, or `small preset but for epochs = 3`: what a caption has not named yet."""
    preset = str(settings.get("preset"))
    names = {path: settings[path] for path in (MODEL, ROUTER, "loss.name") if path in settings}
    try:
        usual = flatten(from_preset(preset))
        same_names = flatten(resolve(PRESETS[preset] | names).config)
    except (KeyError, ConfigError):  # a preset, a model or a router of another version
        return ""
    told = ("preset", DATASET)
    other = {
        path: value
        for path, value in settings.items()
        if path not in told and value != (usual if path in names else same_names).get(path)
    }
    changes = setting_label(list(other), list(other.values()))
    return f"{preset} preset" + (f" but for {changes}" if other else "")
