"""Pages on the paper's net and on what its capsules stand for."""

import numpy as np

from capsnet_jax import figures
from capsnet_jax.interpret.capsule_dimensions import move_dimensions
from capsnet_jax.models.capsnet import CapsNet, mask_other_classes
from capsnet_jax.models.summary import describe, outline
from capsnet_jax.overrides import build
from experiments.capsule_dimensions import dimension_grid
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, saved, text_table


def capsnet(material: Material) -> Page:
    """Tell the paper's net layer by layer, and show what a small one says of a digit."""
    small, digit = material.capsnet, material.digits[4]
    out = small.outputs(digit[None])
    said = figures.prediction(
        digit,
        np.asarray(out["reconstruction"][0]),
        np.asarray(out["lengths"][0]),
        small.data.label_names,
        note="the small CapsNet of these pages",
    )
    net = outline(build({"model.name": "capsnet"}))
    decoder = sum(layer.parameters for layer in net.layers if layer.name == "decoder")
    return Page(
        "CapsNet for MNIST",
        f"""A convolution of 256 filters of 9×9 is followed by a second one, whose channels are read as 32 types of
capsules of 8 dimensions at 6×6 positions: **1,152 primary capsules**. Each votes for ten class capsules of 16
dimensions, by a learned 8×16 matrix for each pair: **{net.parameters - decoder:,}** parameters in all. A decoder with
**{decoder:,}** more draws the image from the right capsule alone, so that a capsule keeps how its digit looks. The
paper errs on 0.25 ± 0.005 % of MNIST; the four is as the small net of these pages sees it.""",
        [
            text_table(describe("capsnet", net)),
            drawn(said, "a four, what the decoder makes of its capsule, and the ten class capsules' lengths"),
        ],
        [Excerpt(CapsNet.__call__), Excerpt(mask_other_classes)],
        ["--describe=capsnet,capsnet_small", "--dataset=mnist --preset=paper"],
    )


def mnist(material: Material) -> Page:
    """Show digits whose capsules are changed in one dimension, and decoded."""
    del material
    return Page(
        "Activity vectors of MNIST",
        """What does each dimension stand for? Add a little to one of the 16 numbers of a digit's capsule, and let the
decoder draw it. Many have a meaning that nobody gave them: how thick the strokes are, how slanted or how wide the
digit is, how large a loop. Which dimension stands for what is different in every training. Above, of each digit the
dimension that changes it most; below, all dimensions of one digit, of a net that learned MNIST for ten epochs.""",
        [
            saved("capsule_dimensions-dimensions-mnist", "each digit, changing from left to right with one dimension"),
            saved("capsule_dimensions-all_dimensions-mnist", "one digit, and how each of 16 dimensions changes it"),
        ],
        [Excerpt(move_dimensions, "classes, dims")],
        [
            "--experiment=capsule_dimensions --dataset=mnist --seeds=1",
            "--workdir={workdir} --inspect=visualize_dimensions --target=6",
        ],
    )


def fashion(material: Material) -> Page:
    """Show the same of clothes."""
    del material
    return Page(
        "Activity vectors of Fashion-MNIST",
        """The same with ten kinds of clothes. The dimension that changes a picture most makes a shirt or a boot
darker or brighter, trousers wider, a sandal higher. The pictures are coarser than those of digits: clothes have
patterns, and sixteen numbers do not hold a pattern. The decoder keeps outline and brightness, and leaves out the
print.""",
        [
            saved("capsule_dimensions-dimensions-fashion_mnist", "each kind of clothes, changing with one dimension"),
            saved("capsule_dimensions-reconstructions-fashion_mnist", "clothes above, their reconstructions below"),
        ],
        [Excerpt(dimension_grid, "gaps = ", "mosaic = ")],
        [
            "--experiment=capsule_dimensions --dataset=fashion_mnist --seeds=1 --set data.max_shift=1"
            " --set train.epochs=12"
        ],
    )
