"""What `--inspect` shows: one method, one network, one image, one figure."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib import cbook
from matplotlib.figure import Figure

from capsnet_jax.config import ConfigError, check_word, nearest
from capsnet_jax.interpret.network import Network
from capsnet_jax.report.predict import legal_name, own_name, read_picture
from capsnet_jax.report.views import VIEWS, Subject, convolutions, unit_kinds

SAMPLE = "grace_hopper.jpg"  # comes with matplotlib; what a net without a data set is shown if nothing is said


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the flags say, as text; None where nothing is said.

    Attributes:
        image: a picture's file.
        index: of a test image.
        layer: one of the network's.
        unit: numbers joined by commas.
        target: a class, by name or number.
    """

    image: str | None = None
    index: int | None = None
    layer: str | None = None
    unit: str | None = None
    target: str | None = None


def inspect(method: str, net: Network, asked: Asked) -> tuple[Figure, str]:
    """Draw what a method shows of a network.

    Args:
        method: a key of VIEWS.
        net: the network.
        asked: what else the flags say.

    Returns:
        The figure, and what tells it from others, as part of a file's name.

    Raises:
        ConfigError: there is no such method, layer, unit or class, or the method does not use what is given.
        DataError: no readable picture.
    """
    check_method(method)
    view = VIEWS[method]
    given = {name: value for name, value in vars(asked).items() if value is not None}
    uses = {"index", *view.uses} if "image" in view.uses else set(view.uses)
    if unused := [name for name in given if name not in uses]:
        raise ConfigError(f"--inspect={method} does not use --{unused[0]}; leave it out")
    if lack := view.lacks(net):
        raise ConfigError(f"--inspect={method} {lack}")
    if asked.layer is not None:
        check_word("--layer", asked.layer, view.layers(net))
    unit = _unit(asked)
    nothing = np.zeros((0, 0, 0), np.uint8), "", "", None
    pixels, name, label, path = _image(net, asked) if "image" in view.uses else nothing
    target = None if asked.target is None else _class(asked.target, net.data.label_names)
    figure = view.draw(Subject(net, pixels, name, label, path, asked.layer, unit, target))
    shown = name if path is None else own_name(path)
    words = [method, shown, asked.layer, asked.unit and f"unit{asked.unit}", asked.target]
    return figure, "-".join(legal_name(word) for word in words if word)


def check_method(method: str) -> None:
    """Raise a ConfigError with the nearest name if there is no such method."""
    check_word("--inspect", method, ["list", *VIEWS])


def describe(net: Network | None) -> str:
    """Return what there is to inspect: the methods, and a network's layers and units.

    Args:
        net: the network; None: only the methods are listed.
    """
    lacking = {name: net and view.lacks(net) for name, view in VIEWS.items()}
    lines = ["methods"]
    for name, view in VIEWS.items():
        if not lacking[name]:
            lines.append(f"  {name:<22} {view.text} ({' '.join(f'--{flag}' for flag in view.uses)})")
    if others := [name for name, lack in lacking.items() if lack]:
        lines.append(f"  not here: {', '.join(others)}")
    if net is None:
        return "\n".join([*lines, "", "layers: name a --workdir with a finished run, or --model=squeezenet"])
    lines += ["", f"layers of {net.name}"]
    for name, shape in net.layers().items():
        first, *more = unit_kinds(shape)
        what = ", ".join(f"{size} {kind}s" for kind, size in first.items())
        if more:
            what += ": --unit=" + " or ".join(",".join(kind).upper() for kind in (first, *more))
        lines.append(f"  {name:<22} {'×'.join(map(str, shape)):<12} {what}")
    lines += ["", f"layers for weights: {', '.join(convolutions(net))}"]
    names = net.data.label_names
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return "\n".join([*lines, "", f"{len(names)} classes for --target, by name or number: {shown}"])


def _unit(asked: Asked) -> tuple[int, ...] | None:
    """Return the numbers of --unit.

    Raises:
        ConfigError: they are no numbers, or there is no --layer to count in.
    """
    if asked.unit is None:
        return None
    if asked.layer is None:
        raise ConfigError("--unit counts in a layer; name it by --layer")
    try:
        return tuple(int(number) for number in asked.unit.split(","))
    except ValueError as error:
        raise ConfigError(f"--unit={asked.unit} is no number, or numbers joined by commas, as 3 or 3,7") from error


def _class(text: str, names: Sequence[str]) -> int:
    """Return the number of a class that is named, or numbered."""
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    if text.lstrip("-").isdecimal():
        raise ConfigError(f"--target={text}: there are {len(names)} classes, counted from 0")
    raise ConfigError(f"--target has no {text!r}; did you mean {nearest(text, names)!r}? --inspect=list shows more")


def _image(net: Network, asked: Asked) -> tuple[UInt8[np.ndarray, "height width channels"], str, str, Path | None]:
    """Return the image that is looked at, its name, its label if that is known, and its file if it has one."""
    if asked.image is not None and asked.index is not None:
        raise ConfigError("--image and --index are two images; name one")
    if asked.image is None and net.record is not None:
        images, index = net.data.test.images, asked.index or 0
        if not 0 <= index < len(images):
            raise ConfigError(f"--index={index}: {net.data.name} has {len(images)} test images, counted from 0")
        label = np.asarray(net.data.test.labels[index])
        names = [net.data.label_names[k] for k in (np.flatnonzero(label) if label.ndim else [int(label)])]
        return np.asarray(images[index]), f"{net.data.name}{index}", ", ".join(names), None
    if asked.index is not None:
        raise ConfigError(f"{net.name} came without images to count; name a picture by --image")
    path = Path(os.path.expanduser(asked.image or cbook.get_sample_data(SAMPLE, asfileobj=False)))
    return read_picture(path, net).pixels, path.stem, "", path
