import re
import shutil

import jax
import jax.numpy as jnp
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image

from capsnet_jax import interpret, models, overrides
from capsnet_jax.config import ConfigError
from capsnet_jax.data import Description
from capsnet_jax.interpret import targets
from capsnet_jax.interpret.network import LazyDataset, Network, restore
from capsnet_jax.report import views
from capsnet_jax.report.inspection import Asked, describe, inspect
from tests import tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The study's records, where pictures may be drawn."""
    folder = tmp_path_factory.mktemp("inspect") / "work"
    shutil.copytree(tiny.study().folder, folder)
    return folder


@pytest.fixture(scope="module")
def net(workdir):
    return restore(workdir)


@pytest.fixture(scope="module")
def squeezenet():
    return interpret.load_released("squeezenet")


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the figures."""
    calls = {}
    monkeypatch.setattr(views.figures, "overlay", lambda images, maps, **_: calls.update(images=images, maps=maps))
    monkeypatch.setattr(views.figures, "tile_grid", lambda tiles, **how: calls.update(tiles=tiles, **how))
    return calls


def test_the_image_and_the_target_are_those_that_are_asked_for(net, drawn):
    inspect("gradient", net, Asked(index=5, target="7"))
    image = net.data.test.images[5:6]
    np.testing.assert_array_equal(drawn["images"], image)
    [(name, maps)] = drawn["maps"].items()
    assert name == "7"
    np.testing.assert_allclose(maps, interpret.gradient(net, image, targets.capsule_contrast(7)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("unit", "target"),
    [("3", targets.capsule_contrast(3)), ("3,1", targets.capsule_dimension(3, 1))],
)
def test_a_capsule_and_its_dimension_are_units(net, drawn, unit, target):
    _, name = inspect("gradient", net, Asked(layer="capsules", unit=unit))
    assert name == f"gradient-mnist_5k0-capsules-unit{unit.replace(',', '_')}"
    maps = next(iter(drawn["maps"].values()))
    np.testing.assert_allclose(maps, interpret.gradient(net, net.data.test.images[:1], target), rtol=1e-4, atol=1e-7)


def test_weights_are_of_convolutions(squeezenet, drawn):
    inspect("weights", squeezenet, Asked(layer="fire5.expand3x3", unit="2"))
    kernel = np.asarray(squeezenet.params["fire5"]["expand3x3"]["kernel"])
    np.testing.assert_array_equal(drawn["tiles"], np.moveaxis(kernel[..., 2], -1, 0))
    assert "layers for weights: conv1, fire2.squeeze, fire2.expand1x1, " in describe(squeezenet)


def test_a_channel_is_enlarged_beside_the_image(net, drawn):
    activations = np.asarray(net.outputs(net.data.test.images[:1])["conv1"][0])
    inspect("activations", net, Asked(layer="conv1"))
    np.testing.assert_allclose(drawn["tiles"], np.moveaxis(activations, -1, 0), rtol=1e-5, atol=1e-6)
    strongest = int(activations.max(axis=(0, 1)).argmax())
    assert drawn["note"].endswith(f"the strongest is {strongest}")
    inspect("activations", net, Asked(layer="conv1", unit="0"))
    assert list(drawn["maps"])[-1] == f"channel {strongest}, the strongest"
    assert next(iter(drawn["maps"].values())).shape == (1, 28, 28)


def test_couplings_are_drawn_by_iteration(net, drawn):
    inspect("couplings", net, Asked(index=2, target="4"))
    assert list(drawn["maps"]) == ["iteration 1", "iteration 2", "iteration 3"]
    expected = interpret.coupling_maps(net, net.data.test.images[2:3], 4)[0]
    np.testing.assert_allclose(np.concatenate([*drawn["maps"].values()]), expected, rtol=1e-5)


@pytest.mark.slow
def test_a_photograph_is_looked_at_whole(squeezenet, drawn, tmp_path):
    photo = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    photo.save(tmp_path / "photo.png")
    _, name = inspect("grad_cam", squeezenet, Asked(image=str(tmp_path / "photo.png")))
    assert re.fullmatch("grad_cam-photo_[0-9a-f]{4}", name)
    np.testing.assert_array_equal(drawn["images"][0], np.asarray(photo.resize((227, 227), Image.Resampling.BILINEAR)))
    assert list(drawn["maps"]) == ["bow tie, by conv10"]
    heat = drawn["maps"]["bow tie, by conv10"][0, :, :, 0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 120 < row < 190, "the tie is below the chin"
    assert 70 < column < 150


@pytest.mark.slow
def test_what_there_is(net, squeezenet):
    text = describe(net)
    assert "  conv1                  20×20×4" in text
    assert "10 capsules: --unit=CAPSULE or CAPSULE,DIMENSION" in text
    assert "not here" not in text
    assert "not here: dead_channels, top_images, visualize_dimensions, couplings" in describe(squeezenet)
    lines = describe(squeezenet).split("\n")
    assert lines.index(next(line for line in lines if "fire9 " in line)) > lines.index(
        next(line for line in lines if "fire2 " in line)
    )
    assert "1000 classes for --target, by name or number: tench, goldfish," in describe(squeezenet)
    assert describe(None).endswith("layers: name a --workdir with a finished run, or --model=squeezenet")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--inspect=gradcam"], "--inspect has no 'gradcam'; did you mean 'grad_cam'?"),
        (["--inspect=activations", "--layer=conv2"], "--layer has no 'conv2'; did you mean 'conv1'?"),
        (["--inspect=gradient", "--target=11"], "--target=11: there are 10 classes, counted from 0"),
        (["--inspect=gradient", "--target=six"], "--target has no 'six'; did you mean "),
        (["--inspect=gradient", "--unit=3"], "--unit counts in a layer; name it by --layer"),
        (["--inspect=gradient", "--layer=conv1"], "--layer=conv1 needs the --unit that is meant"),
        (["--inspect=gradient", "--layer=conv1", "--unit=x"], "--unit=x is no number"),
        (["--inspect=gradient", "--layer=conv1", "--unit=9"], "conv1 has 4 channels, counted from 0, and no 9"),
        (["--inspect=gradient", "--layer=conv1", "--unit=20,0,0"], "conv1 has 20 rows, counted from 0, and no 20"),
        (["--inspect=gradient", "--layer=lengths", "--unit=1,2,3"], "--unit of lengths is UNIT; got 3 numbers"),
        (["--inspect=visualize", "--layer=capsules", "--unit=3,4"], "capsules has 4 dimensions, counted from 0, and"),
        (["--inspect=visualize", "--layer=capsules", "--unit=3,2,1"], "CAPSULE or CAPSULE,DIMENSION; got 3 numbers"),
        (["--inspect=gradient", "--layer=conv1", "--unit=1", "--target=2"], "these are two targets; leave one out"),
        (["--inspect=visualize", "--layer=conv1", "--target=2"], "these are two targets; leave one out"),
        (["--inspect=top_images", "--layer=conv1", "--unit=1,2"], "CHANNEL or ROW,COLUMN,CHANNEL; got 2 numbers"),
        (["--inspect=top_images", "--layer=conv1", "--unit=0,0,3"], "all positions of conv1; name the channel alone"),
        (["--inspect=top_images", "--layer=capsules", "--unit=10,0"], "capsules has 10 capsules, counted from 0, and"),
        (["--inspect=weights", "--layer=conv1", "--unit=1,2"], "is one number, a filter's; got 2"),
        (["--inspect=activations", "--layer=lengths"], "lengths has no positions to draw; name one of conv1"),
        (["--inspect=gradient", "--index=-1"], "--index=-1: mnist_5k has 1000 test images, counted from 0"),
        (["--inspect=gradient", "--index=1", "--image=a.png"], "--image and --index are two images; name one"),
        (["--inspect=gradient", "--image=none.png"], "none.png is not a picture that can be read (there is"),
        (["--inspect=weights", "--index=1"], "--inspect=weights does not use --index; leave it out"),
        (["--inspect=weights", "--layer=lengths"], "--layer has no 'lengths'; did you mean "),
        (["--inspect=gradient", "--seeds=3"], "--inspect does not use --seeds; leave it out"),
        (["--inspect=couplings", "--model=squeezenet"], "needs a CapsNet: squeezenet does not route"),
        (["--inspect=top_images", "--model=squeezenet"], "goes through a data set's images"),
        (["--inspect=gradient", "--model=squeezenet", "--index=1"], "squeezenet came without images to count"),
        (["--inspect=gradient", "--model=squeeze"], "there are no weights called squeeze: give squeezenet"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(flags, message, workdir, capsys):
    where = [] if any(flag.startswith("--model") for flag in flags) else [f"--workdir={workdir}"]
    code, out, error = tiny.call(capsys, *flags, *where)
    assert (code, out, error.count("\n")) == (2, "", 1), error
    assert message in error


def test_a_workdir_is_no_model(workdir, capsys):
    code, _, error = tiny.call(capsys, "--inspect=gradient", f"--model={workdir}")
    assert code == 2
    assert error == f"{workdir} is a workdir; name it by --workdir, or take its best run away by --export\n"


def test_the_figure_is_named(workdir, capsys):
    code, out, error = tiny.call(capsys, "--inspect=weights", f"--workdir={workdir}")
    assert (code, error, out) == (0, "", f"{workdir / 'figures' / 'inspect-weights.png'}\n")
    assert Image.open(out.strip()).width > 500


@pytest.mark.slow
@pytest.mark.parametrize("method", views.VIEWS)
def test_every_method_draws(method, net, monkeypatch):
    for name in ("visualize", "invert"):
        monkeypatch.setattr(views.interpret, name, short(getattr(interpret, name), steps=2))
    figure, _ = inspect(method, net, Asked())
    assert figure.get_supxlabel()


def short(method, **fewer):
    return lambda *arguments, **how: method(*arguments, **{**how, **fewer})


def test_a_class_without_a_choice_is_the_nets_own(net, drawn):
    inspect("occlusion", net, Asked(index=8))
    own = int(jnp.argmax(net.outputs(net.data.test.images[8:9])["lengths"][0]))
    assert list(drawn["maps"]) == [str(own)]


def test_the_target_of_a_layer_without_positions(net):
    with pytest.raises(ConfigError, match="counted from 0, and no 10"):
        inspect("gradient", net, Asked(layer="capsules", unit="10"))


def test_released_weights_keep_their_stem_on_small_images(squeezenet):
    images = np.zeros((1, 40, 48, 3), np.uint8)
    assert squeezenet.outputs(images)["conv1"].shape == (1, 19, 23, 64)  # 3×3, every second position, no padding


@pytest.mark.slow
def test_a_net_of_one_size_dreams_in_it():
    config = overrides.build({"model.name": "cnn_small"})
    model = models.build(config, 10)
    variables = models.init(model, jax.random.key(0), (64, 64, 3))
    dataset = LazyDataset("large", Description((64, 64, 3), tuple("0123456789")), lambda: None)
    net = Network(config, model, *variables, dataset, None)
    assert views.refusal(net.forward, (150, 200, 3))
    assert views._dreaming(net, (64, 64, 3)) == {"octaves": 1}
