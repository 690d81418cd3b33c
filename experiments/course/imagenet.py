"""Pages on ImageNet and its first winners, counted from our own models."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax import interpret
from capsnet_jax.figures.galleries import gallery
from capsnet_jax.models.convnets.alexnet import AlexNet
from capsnet_jax.models.convnets.vgg import ConvStage
from capsnet_jax.models.summary import Outline, describe, outline, side_by_side
from capsnet_jax.ops.conv import conv2d
from capsnet_jax.overrides import build
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, table, text_table
from experiments.course.pooling import probabilities_of
from experiments.ilsvrc_evolution import HUMAN, WINNERS, winners

VGGS = ("vgg_a", "vgg_a_lrn", "vgg_b", "vgg_c", "vgg_d", "vgg_e")


def counted(name: str) -> Outline:
    """Count a model's layers, parameters and work from shapes alone."""
    return outline(build({"model.name": name}))


def classification(material: Material) -> Page:
    """Show what a net of 1,000 classes says of three photographs, and what top-5 means."""
    net, photos = material.squeezenet, material.photographs
    columns = []
    for photo in photos.pixels:
        probabilities = probabilities_of(net, photo)
        columns.append([f"{net.data.label_names[k]}, {probabilities[k]:.3f}" for k in top5(probabilities)])
    rows = [(str(rank), *guesses) for rank, guesses in enumerate(zip(*columns, strict=True), 1)]
    pictures = [list(zip(photos.names, photos.pixels, strict=True))]
    return Page(
        "ImageNet: a thousand classes",
        """ImageNet has 14,197,122 images of 21,841 kinds of things, in WordNet's order. Its challenge asks for one of
1,000 classes, from *tench* to *toilet tissue*. Much is in most photographs, so five guesses are free: the **top-5
error** is how often the label is none of the five most probable. This is what SqueezeNet, of 1.2 million parameters,
says of three photographs that come with Python packages. The flower is a dahlia, which is none of the thousand.""",
        [
            drawn(gallery(pictures), "a portrait of Grace Hopper, a Chinese temple, a dahlia"),
            table(("guess", *photos.names), rows),
        ],
        [Excerpt(top5), Excerpt(probabilities_of)],
        ["--model=squeezenet --predict=photo.jpg"],
    )


def top5(probabilities: Float[np.ndarray, "classes"]) -> list[int]:
    """Return the five most probable classes, the most probable first."""
    return np.argsort(-probabilities, kind="stable")[:5].tolist()


def errors(material: Material) -> Page:
    """Show the challenge's winners by year and depth."""
    del material
    best = {name: error for _, name, _, error in WINNERS}
    return Page(
        "The error fell with depth",
        f"""In 2012 AlexNet took the top-5 error from 25.8 to {best["AlexNet"]} %, with eight layers (15.3 % with more
images to learn from); the next best team had 26.2 %. In 2014 there were 19 and 22 layers, in 2015 there were 152, and
the error passed the {HUMAN} % of a person who had practised. In 2017 it was {best["SENet"]} %, and the challenge ended.
These are leading entries, ensembles of several nets.""",
        [drawn(winners(), "top-5 error by year from 28.2 % in 2010 to 2.25 % in 2017, a person at 5.1 %")],
        [Excerpt(winners, "names = ", "bars = ")],
        ["--experiment=ilsvrc_evolution"],
    )


def alexnet(material: Material) -> Page:
    """Show AlexNet, layer by layer."""
    del material
    net = counted("alexnet")
    return Page(
        "AlexNet, 2012",
        f"""Five convolutions, three of them pooled, and three fully connected layers: **{net.parameters:,}**
parameters, as published. It learned with ReLU in place of tanh, which is quicker, and with dropout, which leaves out
half of the hidden units in each step. Two graphics cards of 3 GB held a half each, so the second, fourth and fifth
convolution see only their own half's channels. Training took them five to six days.""",
        [text_table(describe("alexnet", net))],
        [Excerpt(AlexNet.__call__, "for index", 'x = out[f"pool')],
        ["--describe=alexnet,alexnet_single", "--dataset=cifar10 --set model.name=alexnet"],
    )


def vgg(material: Material) -> Page:
    """Show VGG's table, and why three small filters are better than a large one."""
    del material
    sees = interpret.receptive_field(three_filters, (32, 32, 1), "third").size[0]
    return Page(
        "VGG, 2014: keep it deep, keep it simple",
        f"""Nothing but 3×3 filters that move one pixel, 2×2 pooling, and the same three fully connected layers. Three
3×3 filters in a row see **{sees}×{sees}** pixels, as one 7×7 filter does, for 27 weights in place of 49 a pair of
channels, and with two more ReLUs between them. Columns A to E are the paper's table; only C has 1×1 filters. Counted
here, with the published results.""",
        [text_table(side_by_side({name: counted(name) for name in VGGS}))],
        [Excerpt(ConvStage.__call__), Excerpt(three_filters)],
        [f"--describe={','.join(VGGS)}"],
    )


def three_filters(images: Float[Array, "batch height width 1"]) -> dict[str, Array]:
    """Apply three 3×3 filters in a row."""
    kernel = jnp.ones((3, 3, 1, 1))
    first = conv2d(images, kernel, padding=1)
    second = conv2d(first, kernel, padding=1)
    return {"first": first, "second": second, "third": conv2d(second, kernel, padding=1)}
