"""Pages on nets whose layers are no longer in a row: GoogLeNet, ResNet and DenseNet."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from capsnet_jax import interpret
from capsnet_jax.figures.galleries import gallery, grey
from capsnet_jax.models.convnets.densenet import DenseBlock
from capsnet_jax.models.convnets.googlenet import INCEPTIONS, Inception
from capsnet_jax.models.convnets.resnet import BasicBlock
from experiments.course.imagenet import counted
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, recorded, saved, table

BLOCKS = 50


def inception(material: Material) -> Page:
    """Show GoogLeNet's module: four branches, and what the 1×1 reductions save."""
    found = np.asarray(interpret.activations(material.squeezenet, material.photographs.pixels[:1], "fire3")[0])
    half = found.shape[-1] // 2  # of 1×1 filters, then of 3×3 filters
    cells = []
    for name, channels in (("1×1", found[..., :half]), ("3×3", found[..., half:])):
        strongest = np.argsort(-channels.max(axis=(0, 1)), kind="stable")[:5]
        cells.append([(f"{name}, channel {k}", grey(channels[..., k])) for k in strongest])
    one, reduce3, three, reduce5, five, project = INCEPTIONS["3a"]
    inputs = 192
    rows: list[tuple[object, ...]] = []
    for name, reduced, size, filters in (("3×3", reduce3, 3, three), ("5×5", reduce5, 5, five)):
        direct, by_reduction = (
            weights(inputs, size, filters),
            weights(inputs, 1, reduced) + weights(reduced, size, filters),
        )
        rows.append((f"{name}, {filters} filters", f"{direct:,}", f"{by_reduction:,}", f"{by_reduction / direct:.0%}"))
    rows.append((f"1×1, {one} filters", f"{weights(inputs, 1, one):,}", "", ""))
    rows.append((f"pooling, {project} filters", f"{weights(inputs, 1, project):,}", "", ""))
    google, alex = counted("googlenet"), counted("alexnet")
    return Page(
        "GoogLeNet, 2014: the inception module",
        f"""Should a layer have 1×1, 3×3 or 5×5 filters, or a pooling? All of them side by side, and their channels
one above the other. 1×1 convolutions before the large filters make the many channels few, which is what the table
counts for the first module. Nine modules and an average over all positions in place of hidden fully connected layers:
**{google.parameters:,}** parameters, {alex.parameters / google.parameters:.1f} times fewer than AlexNet, as counted
here (the slides say 12 times). The pictures are of a relative whose weights we have: SqueezeNet's modules have 1×1
and 3×3 filters side by side.""",
        [
            drawn(
                gallery(cells), "the strongest channels of 1×1 filters, which see colours, and of 3×3 filters: edges"
            ),
            table(("branch of module 3a", "weights, directly", "with 1×1 before", "part"), rows),
        ],
        [Excerpt(Inception.__call__, "one, reduce3")],
        ["--describe=googlenet,googlenet_bn"],
    )


def weights(inputs: int, size: int, filters: int) -> int:
    """Return the weights of a convolution, without its biases."""
    return size * size * inputs * filters


def residual(material: Material) -> Page:
    """Show that a residual block starts as the identity, and lets gradients pass."""
    photo = jnp.asarray((material.photographs.china[None] + 1.0) / 256, jnp.float32)  # at 0 a ReLU has no slope
    after, slope = through_blocks(photo, BLOCKS)
    difference = float(jnp.abs(after - photo).max())
    cells = [("photograph", np.asarray(photo[0])), (f"after {BLOCKS} blocks", np.asarray(after[0]))]
    return Page(
        "ResNet, 2015: the residual block",
        f"""Deeper nets should not be worse: layers that have nothing to add could leave everything as it is. But that
is hard to learn from scratch. So a block of two layers learns only what to *add*: its output is ReLU(F(x) + x). Where
the weights of F are small, the block is the identity, and where gradients would vanish in F they pass by. A
photograph through {BLOCKS} blocks whose last scale starts at 0 changes by at most **{difference:g}**, and the
gradient of each pixel is still **{float(slope.mean()):g}**.""",
        [
            drawn(gallery([cells]), "a photograph, and the same after 50 residual blocks: no difference"),
            costs("resnet"),
        ],
        [Excerpt(BasicBlock.__call__), Excerpt(through_blocks)],
        ["--describe=resnet18,resnet50,resnet152", "--dataset=cifar10 --set model.name=resnet18"],
    )


def through_blocks(photo: Float[Array, "1 height width 3"], count: int) -> tuple[Array, Array]:
    """Return a photograph after so many residual blocks, and the gradient of the sum of its pixels."""
    block = BasicBlock(3, zero_init=True)
    variables = block.init(jax.random.key(0), photo, train=False)

    def stack(image: Array) -> Array:
        return jax.lax.fori_loop(0, count, lambda _, x: block.apply(variables, x, train=False), image)

    return stack(photo), jax.grad(lambda image: stack(image).sum())(photo)


def densenet(material: Material) -> Page:
    """Show DenseNet: every layer sees all before it, and what a parameter buys."""
    del material
    parameters = {row["model"]: int(row["parameters"]) / 1e6 for row in recorded("ilsvrc_evolution")}
    dense, wide = (f"{parameters.get(name, math.nan):.1f}" for name in ("densenet201", "resnet101"))
    return Page(
        "DenseNet, 2016: all layers before",
        f"""If one shortcut is good, why not all? In a dense block every layer sees the channels of all layers before
it, and adds a few of its own. Nothing is computed twice, so parameters go further: DenseNet-201 has the published
error of ResNet-101 with **{dense}** in place of {wide} million. Errors are published ones; parameters and computing
are counted from our models.""",
        [
            saved("ilsvrc_evolution-cost", "published top-5 errors against parameters and against computing"),
            costs("densenet"),
        ],
        [Excerpt(DenseBlock.__call__, "for index", "return x")],
        ["--describe=densenet121,densenet264", "--experiment=ilsvrc_evolution"],
    )


def costs(family: str) -> str:
    """Return the table of a family's nets, as counted from our models."""
    rows = [
        (row["model"], f"{int(row['parameters']):,}", f"{float(row['flops']) / 1e9:.2f}", row["top5_error"])
        for row in recorded("ilsvrc_evolution")
        if row["model"].startswith(family)
    ]
    return table(("net", "parameters", "GFLOP for one image", "published top-5 error %"), rows)
