"""What a trained model says of a picture that the user gives."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError

from capsnet_jax import figures
from capsnet_jax.config import ConfigError
from capsnet_jax.interpret.restore import Network, restore


class PredictError(ConfigError):
    """Nothing to predict with or from; the message is one line with the remedy."""


def predict(image_path: Path, workdir: Path, *, invert: bool = False) -> tuple[str, Path]:
    """Classify a picture with the workdir's best run (least validation error).

    Args:
        image_path: any picture that Pillow reads; it is scaled to the model's size and colours.
        workdir: holds finished runs.
        invert: turn dark on light into light on dark, as MNIST's digits are.

    Returns:
        What to print (class, each class's capsule length or probability), and the path of the figure drawn.

    Raises:
        ConfigError: no finished run, or no readable picture.
    """
    net = restore(workdir)
    image = read_image(image_path, net.data.image_shape, invert=invert)
    out = net.outputs(image[None])
    scores = np.asarray(out["lengths"] if "lengths" in out else jax.nn.softmax(out["logits"]))[0]
    drawing = np.asarray(out["reconstruction"])[0] if "reconstruction" in out else None
    figure = figures.prediction(image / 255, drawing, scores, net.data.label_names, note=net.record.name)
    path = figures.save(figure, workdir / "figures" / f"prediction-{image_path.stem}.png")
    return _describe(image_path, net, scores), path


def read_image(path: Path, shape: tuple[int, int, int], *, invert: bool) -> UInt8[np.ndarray, "height width channels"]:
    """Read a picture file in a data set's shape.

    Raises:
        PredictError: there is no such file, it is no picture, or the data set is neither grey nor RGB.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise PredictError(f"the model was trained on {channels} channels; pictures have 1 or 3")
    try:
        with Image.open(path) as picture:
            # Transparent parts are white, as viewers show them.
            rgba = picture.convert("RGBA")
            opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            scaled = opaque.convert("L" if channels == 1 else "RGB").resize((width, height))
    except (OSError, UnidentifiedImageError) as error:
        raise PredictError(f"{path} is not a picture that can be read ({error}); give a PNG file") from error
    pixels = np.asarray(scaled, np.uint8).reshape(shape)
    return 255 - pixels if invert else pixels


def _describe(path: Path, net: Network, scores: Float[np.ndarray, "classes"]) -> str:
    """Return the class, the run that says so, and the score of every class."""
    names, order = net.data.label_names, np.argsort(-scores)
    lines = [f"{path.name}: {names[order[0]]}", f"  by {net.record.name}"]
    lines += [f"  {names[i]:<12} {scores[i]:.3f} {'█' * round(40 * scores[i])}" for i in order]
    return "\n".join(lines)
