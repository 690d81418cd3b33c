"""What a trained model says of a picture that the user gives."""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from capsnet_jax import data, figures
from capsnet_jax.data.picture import Picture, read
from capsnet_jax.data.transform import TRANSFORMS
from capsnet_jax.interpret.network import Network
from capsnet_jax.report.answers import answer, classes_shown, measure_of, scores_of

LISTED = 20  # classes, the most probable ones
LONGEST_STEM = 100  # bytes of a picture's name in the figure's; file systems take 255 for all of it


class Prediction(NamedTuple):
    """An answer, and a figure of it that is not yet saved.

    Attributes:
        text: what to print: the class, who says so, what was done to the picture, and each class's score.
        figure: the picture as the network got it, its reconstruction, and the scores.
        path: where the figure belongs.
    """

    text: str
    figure: Figure
    path: Path

    def save(self) -> Path:
        """Write the figure, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        return figures.save(self.figure, self.path)


def predict(
    image_path: Path | str, net: Network, folder: Path, *, invert: bool = False, as_is: bool = False
) -> Prediction:
    """Classify a picture.

    Args:
        image_path: any picture that Pillow reads; it is brought into the form of the images that the model was trained
            on, as `capsnet_jax.data.picture.read` says. `~` stands for the home directory.
        net: the network.
        folder: where the figure belongs.
        invert: the picture is dark on light. For drawings, as digits are, that is found out if this is false.
        as_is: only scale the picture to the size and colours of the model's images.

    Raises:
        DataError: no readable picture.
    """
    path = Path(os.path.expanduser(image_path))
    picture = read_picture(path, net, invert=invert, as_is=as_is)
    out = net.outputs(picture.pixels[None])
    measure, scores = measure_of(out), np.asarray(scores_of(out))[0]
    drawing = np.asarray(out["reconstruction"])[0] if "reconstruction" in out else None
    names, note = net.data.label_names, net.name
    shown = classes_shown(net)
    figure = figures.prediction(picture.pixels / 255, drawing, scores, names, measure=measure, shown=shown, note=note)
    text = _describe(path, net, picture, scores, measure)
    return Prediction(text, figure, folder / f"prediction-{own_name(path)}.png")


def read_picture(path: Path, net: Network, *, invert: bool = False, as_is: bool = False) -> Picture:
    """Read a picture as a network's data set has its images, then transform it as all of them were.

    Raises:
        DataError: no readable picture.
    """
    if data.tells_stories(net.config.data.dataset):
        raise data.DataError(
            f"{net.name} reads stories, and {path} would be a picture; name the --workdir of another net"
        )
    if net.record is None:  # nothing of a photograph is cut off
        return read(path, net.data.image_shape, invert=invert, as_is=True)
    settings = net.config.data
    transform = TRANSFORMS["none" if as_is else settings.transform]
    # A turn changes the shape, and so does another: before it, images had the shape that they have after two.
    height, width, channels = transform(np.zeros((1, *net.data.image_shape), np.uint8)).shape[1:]
    frame = data.frame_of(settings.dataset)
    picture = read(path, (height, width, channels), frame=frame, invert=invert, as_is=as_is)
    if transform is TRANSFORMS["none"]:
        return picture
    pixels = np.ascontiguousarray(transform(picture.pixels[None])[0])
    return Picture(pixels, f"{picture.changes}, {settings.transform} as the training images")


def _describe(path: Path, net: Network, picture: Picture, scores: Float[np.ndarray, "classes"], measure: str) -> str:
    """Return the class, the run that says so, what it was shown, how sure it is, and the score of every class."""
    names, order, said = net.data.label_names, np.argsort(-scores, kind="stable"), answer(scores, net)
    lines = [f"{path.name}: {said.label}", f"  by {net.name}", f"  picture: {picture.changes}"]
    top = ", ".join(f"{name} {score:.3f}" for name, score in said.top)
    unsure = f"UNSURE, as {said.unsure}; " if said.unsure else ""
    lines += [f"  {unsure}confidence {said.confidence:.3f}; top {len(said.top)}: {top}"]
    most = f" ({LISTED} of {len(order)})" if len(order) > LISTED else ""
    lines += [f"  {measure} of each class{most}:"]
    width = max(12, *(len(names[i]) for i in order[:LISTED]))
    lines += [f"  {names[i]:<{width}} {scores[i]:.3f} {'█' * round(40 * scores[i])}" for i in order[:LISTED]]
    return "\n".join(lines)


def own_name(path: Path) -> str:
    """Return the name of a picture or a folder as part of a file's name; what has one name in two places has two."""
    where = path.resolve()
    name = where.name if where.is_dir() else where.stem
    return f"{legal_name(name or 'root')}_{hashlib.sha256(os.fsencode(where)).hexdigest()[:4]}"


def legal_name(stem: str) -> str:
    """Return a file's name as one that every file system takes; a name that was cut ends in a digest of all of it."""
    legal = re.sub(r"[^\w.-]", "_", stem)
    if len(legal.encode()) <= LONGEST_STEM:
        return legal
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    return legal.encode()[: LONGEST_STEM - 9].decode(errors="ignore") + f"-{digest}"
