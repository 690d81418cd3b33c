"""What a trained model says of a picture that the user gives."""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from capsnet_jax import data, figures
from capsnet_jax.config import Data
from capsnet_jax.data.picture import Picture, read
from capsnet_jax.data.transform import TRANSFORMS
from capsnet_jax.interpret.network import Network, restore

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


def predict(image_path: Path | str, workdir: Path, *, invert: bool = False, as_is: bool = False) -> Prediction:
    """Classify a picture with the workdir's best run (least validation error).

    Args:
        image_path: any picture that Pillow reads; it is brought into the form of the images that the model was trained
            on, as `capsnet_jax.data.picture.read` says. `~` stands for the home directory.
        workdir: holds finished runs.
        invert: the picture is dark on light. For drawings, as digits are, that is found out if this is false.
        as_is: only scale the picture to the size and colours of the model's images.

    Raises:
        ConfigError: no finished run.
        DataError: no readable picture.
    """
    path = Path(os.path.expanduser(image_path))
    net = restore(workdir)
    picture = _read(path, net.config.data, invert=invert, as_is=as_is)
    out = net.outputs(picture.pixels[None])
    measure = "capsule length" if "lengths" in out else "probability"
    scores = np.asarray(out["lengths"] if "lengths" in out else jax.nn.softmax(out["logits"]))[0]
    drawing = np.asarray(out["reconstruction"])[0] if "reconstruction" in out else None
    names, note = net.data.label_names, net.name
    figure = figures.prediction(picture.pixels / 255, drawing, scores, names, measure=measure, note=note)
    text = _describe(path, net, picture, scores, measure)
    return Prediction(text, figure, workdir / "figures" / f"prediction-{_legal(path.stem)}.png")


def _read(path: Path, settings: Data, *, invert: bool, as_is: bool) -> Picture:
    """Read a picture as the data set has its images, then transform it as all of them were."""
    transform = "none" if as_is else settings.transform
    before = settings.transform if as_is else "none"
    shape = data.describe(settings.dataset, label_key=settings.label or None, transform=before).image_shape
    picture = read(path, shape, frame=data.frame_of(settings.dataset), invert=invert, as_is=as_is)
    if transform == "none":
        return picture
    pixels = np.ascontiguousarray(TRANSFORMS[transform](picture.pixels[None])[0])
    return Picture(pixels, f"{picture.changes}, {transform} as the training images")


def _describe(path: Path, net: Network, picture: Picture, scores: Float[np.ndarray, "classes"], measure: str) -> str:
    """Return the class, the run that says so, what it was shown, and the score of every class."""
    names, order = net.data.label_names, np.argsort(-scores)
    lines = [f"{path.name}: {names[order[0]]}", f"  by {net.name}", f"  picture: {picture.changes}"]
    lines += [f"  {measure} of each class:"]
    lines += [f"  {names[i]:<12} {scores[i]:.3f} {'█' * round(40 * scores[i])}" for i in order]
    return "\n".join(lines)


def _legal(stem: str) -> str:
    """Return a file's name as one that every file system takes; a name that was cut ends in a digest of all of it."""
    legal = re.sub(r"[^\w.-]", "_", stem)
    if len(legal.encode()) <= LONGEST_STEM:
        return legal
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    return legal.encode()[: LONGEST_STEM - 9].decode(errors="ignore") + f"-{digest}"
