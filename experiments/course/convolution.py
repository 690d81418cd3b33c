"""Pages on images, filters and what a convolution is told."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax.figures.galleries import gallery, grey
from capsnet_jax.interpret.network import Network
from capsnet_jax.ops.conv import conv2d
from capsnet_jax.ops.conv.im2col import im2col_conv
from capsnet_jax.ops.conv.padding import resolve_padding
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, movable, table

# The slides' worked example.
IMAGE = [[3, 2, 2, 5, 5, 3], [3, 1, 1, 2, 6, 2], [1, 4, 3, 3, 1, 4], [2, 2, 3, 7, 0, 1], [6, 0, 4, 0, 3, 4]]
KERNEL = [[1, 0, -2], [1, 1, 0], [0, -1, 1]]

KERNELS = {
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "smooth": [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    "edges, upright": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "edges, level": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}


def images(material: Material) -> Page:
    """Show an image as numbers, and count the weights of a fully connected layer."""
    net, photo = material.squeezenet, material.photographs.pixels[0]
    shared, full = first_layer(net)
    height, width, channels = net.data.image_shape
    colours = [(name, grey(photo[..., c])) for c, name in enumerate(("red", "green", "blue"))]
    return Page(
        "An image is numbers",
        f"""A colour image is three grids of numbers: how red, how green and how blue each pixel is. A fully connected
layer has a weight for each number and each unit: 300 a unit for 10×10 pixels, {height * width * channels:,} a unit
for the {width}×{height} pixels below. A convolution looks at a few pixels at a time, with the same weights
everywhere. SqueezeNet's first layer has **{shared:,}** parameters; as many fully connected units would have
**{full:,}**, and would not know which pixels are neighbours.""",
        [drawn(gallery([[("a photograph", photo), *colours]]), "a portrait, and its red, green and blue channel")],
        [Excerpt(first_layer)],
        ["--describe=squeezenet"],
    )


def first_layer(net: Network) -> tuple[int, int]:
    """Return the parameters of a first convolution, and of as many fully connected units."""
    kernel, bias = net.params["conv1"]["kernel"], net.params["conv1"]["bias"]
    height, width, channels = net.data.image_shape
    return kernel.size + bias.size, (height * width * channels + 1) * bias.size


def kernel(material: Material) -> Page:
    """Show the slides' worked example, to be moved by hand."""
    digit = material.digits[3, :, :, 0]
    levels = np.round(9 * digit[::2, ::2])  # small enough to read
    examples = [
        example("the slides' example", IMAGE, KERNEL),
        example("a digit, upright edges", levels, KERNELS["edges, upright"]),
        example("a digit, level edges", levels, KERNELS["edges, level"]),
    ]
    first = ", ".join(f"{value:g}" for value in examples[0]["output"][0])
    return Page(
        "A filter slides over an image",
        """Lay a small square of weights over the image, multiply each weight by the pixel below it, and add up: one
number of the output. Then move on by a pixel. The number is large where the image looks like the filter, so a filter
detects one feature, wherever it is. **Move the square** with the mouse or, once it is chosen, with the arrow keys.""",
        [movable("kernel", examples, f"The first row of the output is {first}.")],
        [Excerpt(slide), Excerpt(im2col_conv)],
        ["--model=squeezenet --inspect=activations --layer=conv1"],
    )


def slide(image: Float[Array, "height width"], kernel: Float[Array, "rows columns"]) -> Float[Array, "out_h out_w"]:
    """Convolve one channel with one filter, pixel by pixel, without padding."""
    return conv2d(image[None, :, :, None], kernel[:, :, None, None])[0, :, :, 0]


def example(name: str, image: Any, kernel: Any) -> dict[str, Any]:
    """Return what `course.js` makes a filter slide over, with its name."""
    values, weights = np.asarray(image, np.float32), np.asarray(kernel, np.float32)
    output = np.asarray(slide(jnp.asarray(values), jnp.asarray(weights)))
    return {"name": name, "image": values.tolist(), "kernel": weights.tolist(), "output": output.tolist()}


def features(material: Material) -> Page:
    """Show filters made by hand on a photograph."""
    photo = material.photographs.china.mean(axis=-1) / 255
    cells = [("photograph, grey", photo)]
    for name, weights in KERNELS.items():
        kernel = np.array(weights, np.float32)
        made = np.asarray(slide(jnp.asarray(photo, jnp.float32), jnp.asarray(kernel / max(kernel.sum(), 1))))
        cells.append((name, np.clip(made, 0, 1) if kernel.sum() else grey(np.abs(made))))
    return Page(
        "Every filter finds its own feature",
        """Filters can be written by hand: one that weighs a pixel against its neighbours sharpens, one of equal
weights smooths, and one that is negative on one side and positive on the other finds edges. For every feature there
is a filter, and its output is a *channel*. A network is not given its filters: it learns them from labelled images,
and its second layer's filters look at all channels of the first.""",
        [drawn(gallery([cells[:3], cells[3:]]), "a temple, sharpened, smoothed, its upright and its level edges")],
        [Excerpt(slide)],
        ["--model=squeezenet --inspect=weights --layer=conv1"],
    )


# What a first and a second layer of CapsNet are told, and two more: filters, kernel size, stride, padding.
TOLD = {
    "CapsNet, first layer": (256, 9, 1, "VALID"),
    "CapsNet, primary capsules": (256, 9, 2, "VALID"),
    "VGG's way": (64, 3, 1, "SAME"),
    "the same with a stride": (64, 3, 2, "SAME"),
}


def hyperparameters(material: Material) -> Page:
    """Show filters, kernel size, stride and padding, and the sizes they lead to."""
    photo = jnp.asarray(material.photographs.china / 255, jnp.float32)
    level = jnp.asarray(KERNELS["edges, level"], jnp.float32)
    cells, rows = [], []
    for stride in (1, 2, 4, 8):
        made = conv2d(photo.mean(axis=-1)[None, :, :, None], level[:, :, None, None], strides=stride)[0, :, :, 0]
        cells.append((f"stride {stride}: {made.shape[0]}×{made.shape[1]}", grey(np.abs(np.asarray(made)))))
    shape = (28, 28, 1)
    for name, (filters, size, stride, padding) in TOLD.items():
        image = (20, 20, 256) if "primary" in name else shape
        out = output_shape(image, filters, size, stride, padding)
        written = ("×".join(map(str, each)) for each in (image, out))
        weights = f"{size * size * image[2] * filters + filters:,}"
        rows.append((name, next(written), filters, f"{size}×{size}", stride, padding.lower(), next(written), weights))
    header = ("layer", "input", "filters", "kernel", "stride", "padding", "output", "parameters")
    return Page(
        "What a convolution is told",
        """**Filters**: how many, so how many channels come out. **Kernel size**: the side of each filter in pixels.
**Stride**: how many pixels the filter moves at a time; 2 halves height and width. **Padding**: pixels of 0 around the
image, without which a kernel of size *k* takes *k* − 1 rows and columns away. Of *n* pixels there remain ⌊(*n* + 2*p*
− *k*) / *s*⌋ + 1.""",
        [
            table(header, rows),
            drawn(gallery([cells[:2], cells[2:]]), "the temple's level edges, found in steps of 1, 2, 4 and 8 pixels"),
        ],
        [Excerpt(output_shape), Excerpt(resolve_padding)],
        ["--describe=capsnet", "--sweep model.kernel=5,7,9"],
    )


def output_shape(image: tuple[int, int, int], filters: int, size: int, stride: int, padding: str) -> tuple[int, ...]:
    """Return the shape that a convolution makes of an image of (height, width, channels)."""
    pads = resolve_padding(padding, image[:2], (size, size), (stride, stride))
    sides = (
        (n + sum(pad) - size) // stride + 1  # ⌊(n + 2p − k) / s⌋ + 1
        for n, pad in zip(image[:2], pads, strict=True)
    )
    return (*sides, filters)
