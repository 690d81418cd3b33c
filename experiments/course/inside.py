"""Pages on looking into a net: activations, weights, what is dead."""

from capsnet_jax import interpret
from capsnet_jax.interpret.dead_units import Activity
from capsnet_jax.report import seen_photographs
from capsnet_jax.report.inspection import Asked, inspect
from experiments.course.material import Material
from experiments.course.page import Excerpt, Page, drawn, measured, saved

SQUEEZENET = "--model=squeezenet --inspect="


def activations(material: Material) -> Page:
    """Show all channels of a first layer."""
    figure = seen_photographs.all_activations(material.squeezenet, material.photographs)
    return Page(
        "Show the activations",
        """"Nobody can interpret what a network has learned" is half true: one can look. Send an image through, stop
at a layer, and show each channel as a small grey picture. Here are the 64 channels of SqueezeNet's first layer before
the ReLU, on one scale: white is strongly positive, black strongly negative. Most are edges in some direction, some
are colours.""",
        [
            drawn(
                figure, "64 grey pictures of a portrait: its edges in all directions, its bright and its coloured parts"
            )
        ],
        [Excerpt(interpret.activations), Excerpt(seen_photographs.all_activations)],
        [f"{SQUEEZENET}activations --layer=conv1", f"{SQUEEZENET}list"],
    )


def red(material: Material) -> Page:
    """Show the channel that goes with red pixels."""
    figure = seen_photographs.red_channel(material.squeezenet, material.photographs)
    return Page(
        "A channel that is active on red",
        """Put one channel beside the image and ask what they have in common. Guesses can be measured: of all 64
channels of the first layer this is the one whose activations go most with how red the pixels are. It shows the
ribbons, the temple's pillars and the flower, and leaves sky, sea and shirt dark.""",
        [drawn(figure, "three photographs, how red their pixels are, and channel 47, which shows the same places")],
        [Excerpt(seen_photographs.most_correlated), Excerpt(interpret.strongest_channel)],
        [f"{SQUEEZENET}activations --layer=conv1 --unit=47"],
    )


def parts(material: Material) -> Page:
    """Show channels of late layers that see parts of things."""
    figure = seen_photographs.channels_of_parts(material.squeezenet, material.photographs)
    return Page(
        "Deeper channels see eyes and ties",
        """Early channels see edges and colours; later ones see parts of things. These three were found by a rule: of
all channels of a layer, the one that is stronger on the portrait's eyes, face or tie than anywhere else in any of
three photographs. Nobody told the network what an eye is. It learned a thousand names of things, and eyes help.""",
        [drawn(figure, "heat maps of three channels: one is active at the eyes, one at the face, one at the tie")],
        [Excerpt(seen_photographs.most_selective)],
        [f"{SQUEEZENET}activations --layer=fire7 --unit=201", "--experiment=seeing_inside"],
    )


def weights(material: Material) -> Page:
    """Show the filters of a first layer."""
    figure, _ = inspect("weights", material.squeezenet, Asked(layer="conv1"))
    return Page(
        "Show the weights",
        """A first layer's filters have as many channels as the image, so they can be shown as small colour pictures.
After a good training they are smooth: grey stripes that find edges, and blobs that find colours. Noisy filters say
that the net has not learned for long enough, or was too free. Later layers have too many inputs to be seen at a
glance.""",
        [
            drawn(figure, "64 colour filters of 3×3 pixels, edges and colours"),
            saved("seeing_inside-weights-mnist-cnn_small", "32 filters of a CNN after a short training: mostly noise"),
        ],
        [Excerpt(interpret.filters)],
        [f"{SQUEEZENET}weights --layer=conv1", f"{SQUEEZENET}weights --layer=fire5.expand3x3 --unit=0"],
    )


def dead(material: Material) -> Page:
    """Count channels that never are active."""
    del material
    rates = {
        rate: measured(
            "dead_channels-observed",
            {"model": "cnn_small", "part": "conv3", "learning_rate": rate},
            "dead",
        )
        for rate in ("0.001", "0.03")
    }
    return Page(
        "Dead channels",
        f"""A step that is too large can push a ReLU below 0 for every image; from there no gradient brings it back.
Such a channel is *dead*. It is easy to see, black in every picture, and easy to count: never above 0 at any position
of any of a thousand images. In a CNN of 3,000 digits {rates["0.03"]} of the third layer's channels are dead at a
learning rate of 0.03 and {rates["0.001"]} at 0.001. The net with the most dead channels errs most, too; whether they
cost it or the large steps do, these runs do not tell.""",
        [saved("dead_channels-through_training-mnist_5k-cnn_small", "dead channels of each layer, epoch by epoch")],
        [Excerpt(Activity, "def dead", "return "), Excerpt(interpret.channel_activity)],
        ["--experiment=dead_channels", "--workdir={workdir} --inspect=dead_channels"],
    )
