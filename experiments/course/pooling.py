"""Pages on pooling, fully connected layers and what a CNN does not mind."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax import figures
from capsnet_jax.figures.galleries import gallery
from capsnet_jax.interpret.network import Network
from capsnet_jax.models.layers import fully_connected
from capsnet_jax.models.summary import outline
from capsnet_jax.ops import pooling
from capsnet_jax.overrides import build
from experiments.course.convolution import KERNELS, slide
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, measured, saved, table

ROWS = [[2, 4, 1, 0], [5, 2, 3, 1]]  # the first two of the slides' example
CHANNELS = [[[5, 3], [2, 4]], [[3, 1], [2, 1]]]  # the slides' two channels before a fully connected layer


def pool(material: Material) -> Page:
    """Show max pooling, the slides' example and a digit."""
    [[best, other]] = pooled(ROWS, pooling.max_pool)
    digit = material.digits[5]
    cells = [("a digit, 28×28", digit)]
    for name, how in {"max": pooling.max_pool, "mean": pooling.average_pool}.items():
        smaller = np.asarray(how(jnp.asarray(digit)[None], 2))[0]
        smallest = np.asarray(how(jnp.asarray(smaller)[None], 2))[0]
        cells += [(f"{name}, 14×14", smaller), (f"{name}, 7×7", smallest)]
    return Page(
        "Pooling keeps the strongest",
        f"""A pooling layer has no weights. It looks at a window, mostly 2×2, keeps its greatest number, and moves on
by the window's side: height and width are halved, three of four numbers are gone. Of the rows {ROWS[0]} and {ROWS[1]}
there remain **{best:g}** and **{other:g}**. What follows has less to compute and fewer parameters, which helps
against overfitting too; but a network can only halve its image a few times.""",
        [drawn(gallery([cells]), "a five, its maxima and its means in windows of 2×2, twice")],
        [Excerpt(pooled), Excerpt(pooling._max_and_index), Excerpt(pooling._views)],
        ["--describe=vgg_d", "--experiment=conv_baselines"],
    )


def pooled(rows: object, how: Callable[..., Array]) -> list[list[float]]:
    """Pool one channel in windows of 2×2 that do not overlap."""
    image = jnp.asarray(rows, jnp.float32)[None, :, :, None]
    return how(image, 2)[0, :, :, 0].tolist()


def connected(material: Material) -> Page:
    """Show the flattened vector, what a last layer says, and where VGG's parameters are."""
    net, portrait = material.squeezenet, material.photographs.pixels[0]
    vector = flatten(jnp.moveaxis(jnp.asarray(CHANNELS), 0, -1)).astype(int).tolist()
    layers = {layer.name: layer.parameters for layer in outline(build({"model.name": "vgg_d"})).layers}
    full = sum(layers[name] for name in ("fc1", "fc2", "classes"))
    every = outline(build({"model.name": "vgg_d"})).parameters
    probabilities = probabilities_of(net, portrait)
    sure = probabilities.max()
    return Page(
        "Fully connected layers decide",
        f"""Convolutions give channels, each a small image; a fully connected layer takes one vector. So channels are
laid out one after the other at every position: {CHANNELS[0]} and {CHANNELS[1]} become {vector}. The last layer has an
output for each class, and a softmax makes them probabilities: of this portrait {sure:.0%} for
*{net.data.label_names[int(probabilities.argmax())]}*. Most weights are here: **{full / 1e6:.1f} of VGG-D's
{every / 1e6:.1f} million**. SqueezeNet, which saw this portrait, saves them: its last layer is a convolution of one
pixel, and the mean of each of its channels.""",
        [
            drawn(
                figures.prediction(
                    portrait / 255,
                    None,
                    probabilities,
                    net.data.label_names,
                    measure="probability",
                    note="SqueezeNet, 1,000 classes",
                ),
                "a portrait and the most probable classes: bow tie, suit, Windsor tie",
            )
        ],
        [Excerpt(flatten), Excerpt(probabilities_of), Excerpt(fully_connected)],
        ["--model=squeezenet --predict=photo.jpg", "--describe=vgg_d"],
    )


def flatten(activations: Float[Array, "height width channels"]) -> Float[Array, "numbers"]:
    """Lay all channels of all positions in one row: position by position, its channels side by side."""
    return activations.reshape(-1)


def probabilities_of(net: Network, photo: np.ndarray) -> Float[np.ndarray, "classes"]:
    """Return the probability of each class: the softmax of its logit."""
    logits = np.asarray(net.outputs(photo[None])["logits"][0], np.float64)
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def invariance(material: Material) -> Page:
    """Show what a convolution and pooling do with a shift, and what nets bear."""
    digit = jnp.pad(jnp.asarray(material.digits[2, :, :, 0]), 4)  # so that nothing leaves the image
    edges = jnp.asarray(KERNELS["edges, upright"], jnp.float32)
    moved = float(jnp.abs(slide(shift(digit, 3), edges) - shift(slide(digit, edges), 3)).max())
    rows = [
        [name, *(f"{change(digit, edges, pixels, window):.0%}" for pixels in (1, 2, 3))]
        for name, window in {"convolution": 1, "and 2×2 pooling": 2, "and 4×4 pooling": 4, "and 8×8": 8}.items()
    ]
    errors = " and ".join(
        f"{measured('invariance', {'dataset': 'mnist', 'model.name': model})} ({name})"
        for model, name in (("capsnet_small", "CapsNet"), ("cnn_small", "CNN"))
    )
    return Page(
        "What does a CNN not mind?",
        f"""A filter is the same everywhere, so when the image moves its output moves along: shifting a digit by 3
pixels and then convolving gives the same numbers as the other way round, to within **{moved:g}**. Pooling goes
further and forgets a little of where things are, as the table of |f(Tx) − f(x)| / |f(x)| shows. The price is that
exact positions are lost. The curves are of whole nets and all MNIST test images; undistorted they err on {errors}.
The CapsNet, which keeps positions, bears no distortion better.""",
        [
            table(("change, when a digit moves by", "1 pixel", "2", "3"), rows),
            saved("invariance-curves-mnist", "error against shift, rotation, scale, shear and elastic distortion"),
        ],
        [Excerpt(change), Excerpt(shift)],
        ["--experiment=invariance --dataset=mnist"],
    )


def shift(image: Float[Array, "height width"], pixels: int) -> Float[Array, "height width"]:
    """Move an image to the right; what leaves it comes in on the left, which is empty here."""
    return jnp.roll(image, pixels, axis=1)


def change(
    image: Float[Array, "height width"], kernel: Float[Array, "rows columns"], pixels: int, window: int
) -> float:
    """Return how much of a pooled feature map changes with a shift: |f(Tx) − f(x)| / |f(x)|."""

    def feature(image: Array) -> Array:
        found = jnp.maximum(slide(image, kernel), 0)
        return pooling.max_pool(found[None, :, :, None], window)

    before = feature(image)
    return float(jnp.linalg.norm(feature(shift(image, pixels)) - before) / jnp.linalg.norm(before))
