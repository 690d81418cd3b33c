"""Pages on what a CNN lacks, what a capsule is, and how it is squashed."""

import jax
import jax.numpy as jnp
import numpy as np

from capsnet_jax.data.distort import affine
from capsnet_jax.figures.galleries import gallery
from capsnet_jax.ops.squash import SQUASHES, exponential_squash, length, squash
from capsnet_jax.report import seen_runs
from experiments.course.imagenet import top5
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, movable
from experiments.course.pooling import probabilities_of

TURNED = (0.0, 45.0, 90.0, 180.0)  # degrees
LENGTHS = np.linspace(0, 4, 81)  # of vectors before the squash
DIM = 8  # of the vectors
TEXTBOOK = {
    "sabour": "the paper's: |s|² / (1 + |s|²)",
    "exponential": "1 − e^−|s|",
    "half": "|s|² / (½ + |s|²)",
    "decoupled": "a learned direction says how present it is",
    "layer_norm": "no squash: all are equally long, a learned direction says how present it is",
}


def limits(material: Material) -> Page:
    """Turn a portrait and exchange its halves: what does a CNN say?"""
    net, portrait = material.squeezenet, material.photographs.pixels[0]
    pictures = {f"turned by {angle:g}°": turn(portrait, angle) for angle in TURNED[1:]}
    pictures = {"upright": portrait, **pictures, "upper and lower half exchanged": np.roll(portrait, 113, axis=0)}
    cells, says = [], []
    for name, picture in pictures.items():
        probabilities = probabilities_of(net, picture)
        best = top5(probabilities)[0]
        says.append((net.data.label_names[best], probabilities[best]))
        cells.append((f"{name}: {says[-1][0]} {says[-1][1]:.2f}", picture))
    same = [f"{name} ({probability:.0%})" for name, probability in (says[0], says[-1], says[3])]
    return Page(
        "Limits: where things are, and how they are turned",
        f"""Pooling forgets where parts are, and no unit says how a part is turned. Upright this is {same[0]}; with
its halves exchanged, tie above the face, the first guess is still {same[1]}: the parts are there. On its head it is
{same[2]}. A person sees at once that it is the same thing and how it is turned, as if each thing came with a
coordinate frame. Capsules are meant to have one.""",
        [
            drawn(
                gallery([cells[:3], cells[3:]]),
                "the portrait, turned and with its halves exchanged, and what the net says",
            )
        ],
        [Excerpt(turn), Excerpt(affine, "angle = ")],
        ["--experiment=invariance --dataset=mnist", "--experiment=affnist"],
    )


def turn(photo: np.ndarray, degrees: float) -> np.ndarray:
    """Turn a photograph about its centre; corners that come from outside are black."""
    return np.round(np.asarray(affine(jnp.asarray(photo[None], jnp.float32), rotation=degrees))[0]).astype(np.uint8)


def capsule(material: Material) -> Page:
    """Say what a capsule is, on real digits."""
    net = material.capsnet
    shown = seen_runs.examples(net)
    error = net.record.result["test_error"] if net.record else float("nan")
    return Page(
        "What is a capsule?",
        f"""A neuron gives a number; a capsule is a group of neurons that gives a vector, its *activity vector*. The
vector's **length** says how sure the capsule is that its thing is there, and its **direction** says how the thing
looks: how thick, how slanted, where. Below, the ten class capsules of a small CapsNet that learned 3,600 digits in
half a minute (test error {error:.1f} %): a row is a class and a column one of 16 dimensions. A long row is a sure
class, two are a doubt; a decoder draws the digit again from the longest alone.""",
        [drawn(seen_runs.activity_vectors(net, shown), "digits, their class capsules, and what is reconstructed")],
        [Excerpt(length), Excerpt(seen_runs.activity_vectors, "out = ", "rows = ")],
        ["--workdir={workdir} --predict=digit.png", "--workdir={workdir} --inspect=reconstruct_from_one"],
    )


def squashing(material: Material) -> Page:
    """Show every squash as a curve of the length before."""
    del material
    curves = squash_curves()
    values = {"lengths": LENGTHS.round(4).tolist(), "curves": curves, "words": TEXTBOOK}
    half = float(np.interp(1, LENGTHS, curves["sabour"]))
    return Page(
        "Squashing: a length is a probability",
        f"""A layer's weighted sum *s* may have any length; to be read as a probability it must not exceed 1. The
squash keeps the direction and shrinks the length: short vectors to almost nothing, long ones to almost 1; a vector of
length 1 becomes {half:g} long. Sabour's curve is flat at 0, where it gives no gradient, so other squashes were tried.
**Move the slider** and compare. The last two have learned directions, which are drawn as they start.""",
        [movable("squash", values, "Sabour's squash: |s| = 0.5, 1, 2, 4 becomes 0.2, 0.5, 0.8, 0.94.")],
        [Excerpt(squash), Excerpt(exponential_squash)],
        ["--experiment=squashings", "--sweep routing.squash=sabour,exponential,half"],
    )


def squash_curves() -> dict[str, list[float]]:
    """Return for each squash how present a capsule is, in 0 … 1, whose vector was so long before."""
    curves = {}
    for name, entry in SQUASHES.items():
        parameters = None if entry.parameters is None else entry.parameters(jax.random.key(0), DIM)
        direction = jnp.eye(DIM)[0] if parameters is None else parameters["weights"]
        vectors = jnp.asarray(LENGTHS, jnp.float32)[:, None] * (direction / jnp.linalg.norm(direction))[None]
        bound = entry.bind(parameters)
        curves[name] = [round(float(value), 6) for value in bound.activation(bound(vectors))]
    return curves
