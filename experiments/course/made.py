"""Pages on pictures that explain: heat maps, deep dream, images that a unit likes best, images from a layer."""

from capsnet_jax import interpret
from capsnet_jax.interpret import class_activation, dreams, inversion
from capsnet_jax.report.inspection import Asked, inspect
from capsnet_jax.report.seen_photographs import FOLDER
from experiments.course.inside import SQUEEZENET
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, recorded, saved


def heat_maps(material: Material) -> Page:
    """Show which pixels count for a class."""
    asked = {"tie": Asked(target="bow tie"), "stupa": Asked(image=str(FOLDER / "china.jpg"), target="stupa")}
    drawings = [
        drawn(inspect("grad_cam", material.squeezenet, each)[0], f"Grad-CAM of a photograph for {name}")
        for name, each in asked.items()
    ]
    return Page(
        "Heat maps: where does it look?",
        """Why *bow tie*? Grad-CAM weighs each channel of the last layer by how much the class's score would grow with
it, and adds the channels up: red is where the class was found. There are many more methods, from hiding parts of the
image to following gradients to each pixel, and they do not agree. Which of them tells the truth can be measured too:
remove the pixels a map calls important, and see how fast the score falls.""",
        [
            *drawings,
            saved("seeing_inside-heat_maps_portrait-squeezenet", "nine methods' maps of the portrait for bow tie"),
        ],
        [Excerpt(class_activation._grad_cam), Excerpt(class_activation._jitted, "def evaluate", "return _enlarge")],
        [f'{SQUEEZENET}grad_cam --target="bow tie"', f"{SQUEEZENET}heat_maps", "--experiment=map_faithfulness"],
    )


def deep_dream(material: Material) -> Page:
    """Show a photograph with more in it of what a layer sees."""
    del material
    return Page(
        "Deep dream",
        """Turn learning around: keep the weights and change the image. In each step every pixel moves a little in the
direction in which a layer becomes more active, so that what the layer saw a little of, it sees a lot of. An early
layer draws strokes, a middle one eyes and whirls, a late one things. It is done at four sizes, from small to large,
so that large shapes come first. The photograph is scikit-learn's, 320 pixels wide.""",
        [
            saved("seeing_inside-deep_dream-squeezenet", "a Chinese temple, covered in strokes, whirls and eyes"),
            saved("seeing_inside-deep_dream_noise-squeezenet", "the same from noise"),
        ],
        [Excerpt(dreams.deep_dream, "net, images, target"), Excerpt(dreams._climb, "def one_step", "return jnp.clip")],
        [f"{SQUEEZENET}deep_dream --layer=fire5", f"{SQUEEZENET}dream_from_noise --layer=fire7"],
    )


def maximal(material: Material) -> Page:
    """Show images that a unit likes best, made and found."""
    del material
    return Page(
        "What does a unit like best?",
        f"""Begin with noise and climb until a channel, or a class, is as active as it can be. Without care the result
is noise that fools the net; so the image is kept smooth, and shifted, turned and scaled a little in each step. The
other way is to look: which of 10,000 test images activates a unit most? Images that were made activate
{stronger("cnn_small")} channels of a CNN more than any real image does, and {stronger("capsnet_small")} class
capsules, whose length cannot exceed 1.""",
        [
            saved("seeing_inside-made-squeezenet", "images made for channels and for four classes of ImageNet"),
            saved(
                "seeing_inside-strongest_images-mnist-cnn_small", "test digits that activate each class of a CNN most"
            ),
        ],
        [Excerpt(interpret.visualize, "net, images, target"), Excerpt(interpret.top_images)],
        [f"{SQUEEZENET}visualize --target=volcano", "--workdir={workdir} --inspect=top_images"],
    )


def stronger(network: str) -> str:
    """Count the units that an image made for them activates more than any test image does."""
    units = [
        (float(row["made"]), float(row["found"]))
        for row in recorded("seeing_inside-observed")
        if row["network"] == network and row["made"]
    ]
    return f"{sum(made > found for made, found in units)} of {len(units)}"


def reconstruction(material: Material) -> Page:
    """Show images made from the activations of a layer."""
    del material
    return Page(
        "What does a layer keep?",
        """Take the activations of a layer, forget the image, and look for a smooth image that gives the same ones.
From the first layer it comes back whole. The deeper the layer, the less of it does: first the exact colours go, then
places, and in the end there is a sketch of parts in no order. What is lost is what the net does not need to name the
thing. Above each picture stands how far its activations still are from the wanted ones.""",
        [saved("seeing_inside-inverted-squeezenet", "a portrait, and images made to look the same to four layers")],
        [Excerpt(inversion._invert, "def loss", "return (distance"), Excerpt(inversion.relative_distance)],
        [f"{SQUEEZENET}invert", f"{SQUEEZENET}invert --layer=fire9"],
    )
