import html
import inspect
import re
import shlex
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.report.views import VIEWS
from experiments import cli
from experiments.cli.asked import DEFAULT_EXPERIMENT, module_of, resolve_flags
from experiments.course import build, capsules, convolution, deeper, imagenet, material, page, pooling, routing
from tests import tiny

PUBLISHED = {  # parameters, of the papers and of torchvision
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
}


def test_the_slides_worked_convolution():
    output = convolution.example("", convolution.IMAGE, convolution.KERNEL)["output"]
    assert output[0] == [2, -6, -7, 10]
    assert (output[1][:2], output[2][:2]) == ([7, 8], [3, -1])  # what else the slides show
    image, kernel = np.array(convolution.IMAGE), np.array(convolution.KERNEL)
    slow = [[(image[r : r + 3, c : c + 3] * kernel).sum() for c in range(4)] for r in range(3)]
    assert output == slow


def test_the_slides_pooling_and_flattening():
    assert pooling.pooled(pooling.ROWS, pooling.pooling.max_pool) == [[5, 3]]
    channels = jnp.moveaxis(jnp.array(pooling.CHANNELS), 0, -1)
    assert pooling.flatten(channels).tolist() == [5, 3, 3, 1, 2, 2, 4, 1]


def test_sizes_that_a_convolution_leaves():
    told = convolution.TOLD
    assert convolution.output_shape((28, 28, 1), *told["CapsNet, first layer"]) == (20, 20, 256)
    assert convolution.output_shape((20, 20, 256), *told["CapsNet, primary capsules"]) == (6, 6, 256)
    assert convolution.output_shape((28, 28, 1), 64, 3, 1, "SAME") == (28, 28, 64)
    assert convolution.output_shape((28, 28, 1), 64, 3, 2, "SAME") == (14, 14, 64)


def test_curves_of_every_squash():
    curves, lengths = capsules.squash_curves(), capsules.LENGTHS
    assert [*curves] == [*SQUASHES] == [*capsules.TEXTBOOK]
    np.testing.assert_allclose(curves["sabour"], lengths**2 / (1 + lengths**2), atol=2e-6)
    np.testing.assert_allclose(curves["exponential"], 1 - np.exp(-lengths), atol=2e-6)
    np.testing.assert_allclose(curves["half"], lengths**2 / (0.5 + lengths**2), atol=2e-6)
    assert np.ptp(curves["layer_norm"][1:]) < 1e-4  # it has forgotten the length
    assert 1.0 in lengths.round(4)  # where the slider starts


def test_votes_that_agree_are_coupled():
    couplings = routing.route(jnp.array(routing.VOTES), 3).couplings
    assert couplings[0, 0] > 0.7
    assert couplings[1, 0] > 0.7
    assert couplings[2, 0] < 0.5


@pytest.mark.slow
def test_moving_by_a_pixel_changes_less_after_pooling():
    rows, columns = np.mgrid[:20, :20]
    digit = jnp.array(np.exp(-((rows - 10) ** 2 + (columns - 8) ** 2) / 3), jnp.float32)
    kernel = jnp.array(convolution.KERNELS["edges, upright"], jnp.float32)
    changes = [pooling.change(digit, kernel, 1, window) for window in (1, 4, 8)]
    assert changes[0] > changes[1] > changes[2]
    moved = convolution.slide(pooling.shift(digit, 3), kernel) - pooling.shift(convolution.slide(digit, kernel), 3)
    assert np.abs(moved).max() < 1e-6  # what leaves on the right comes in on the left


@pytest.mark.slow
def test_residual_blocks_start_as_the_identity():
    photo = jnp.linspace(0.1, 1, 4 * 4 * 3).reshape(1, 4, 4, 3)
    after, slope = deeper.through_blocks(photo, 20)
    assert (after == photo).all()
    assert (slope == 1).all()


def test_counts_and_errors_are_the_published_ones():
    table = deeper.costs("resnet") + deeper.costs("densenet")
    for name, count in PUBLISHED.items():
        assert re.search(rf">{name}</th><td>{count:,}</td>", table), name
    assert {(year, error) for year, _, _, error in imagenet.WINNERS} >= {
        (2010, 28.2), (2011, 25.8), (2012, 16.4), (2013, 11.7), (2014, 6.7), (2015, 3.57), (2016, 2.99), (2017, 2.25),
    }  # fmt: skip
    assert imagenet.HUMAN == 5.1


def test_a_flag_that_it_does_not_use(capsys):
    code, _, error = tiny.call(capsys, "--course", "--dataset=mnist")
    assert (code, error) == (2, "--course does not use --dataset; leave it out\n")


@pytest.mark.slow
def test_the_whole_course(tmp_path, monkeypatch, capsys):
    """Every page is there, with a figure or a number, few lines of the real source, and commands that exist."""
    monkeypatch.setitem(material.DIGITS, "train.epochs", 1)
    monkeypatch.setitem(material.STORIES, "train.epochs", 1)
    pages = {}
    monkeypatch.setattr(build, "section", keep(build.section, pages))
    file = build.write(tmp_path)
    text = file.read_text()
    assert file.stat().st_size < 8e6
    assert len(pages) == sum(map(len, build.CHAPTERS.values())) == text.count('<section class="page"') - 1
    assert len(re.findall(r'href="#([^"]+)"', text)) == len(pages) + 1
    assert not [anchor for anchor in re.findall(r'href="#([^"]+)"', text) if f'id="{anchor}"' not in text]
    assert all(alt for alt in re.findall(r'<img [^>]*alt="([^"]*)"', text))
    assert "(not there)" not in text
    for title, each in pages.items():
        assert 2 <= len(re.findall(r"[.?!:](?:\s|$|\*)", each.text)) <= 9, title
        assert each.shown, title
        assert each.code, title
        for excerpt in each.code:
            lines = page.lines_of(excerpt).splitlines()
            source = Path(inspect.getsourcefile(inspect.unwrap(excerpt.of))).read_text()
            assert len(lines) <= 25, title
            assert not [line for line in lines if line.strip() not in source], title
    for number in ("60,965,224", "6,998,552", "6,804,224", "1,411,344", "8,215,568", "9,893,632", *counts_of_vgg()):
        assert number in text
    for said in ("bow tie, 0.648", "suit, 0.273", "bell cote, 0.353", "coral fungus, 0.515", "59 of 60", "50 of 60"):
        assert said in text
    check_commands([c.format(workdir=tmp_path) for each in pages.values() for c in each.commands], monkeypatch, capsys)


def keep(section, pages):
    def kept(each, *rest):
        pages[each.title] = each
        return section(each, *rest)

    return kept


def counts_of_vgg():
    return ("132,863,336", "133,047,848", "133,638,952", "138,357,544", "143,667,240")


def check_commands(commands, monkeypatch, capsys):
    """Every command's flags are taken; experiments are resolved as far as their settings, and methods exist."""
    asked = []

    def note(flags):
        asked.append(flags)
        if flags.inspect is not None:
            assert flags.inspect in ("list", *VIEWS)
            assert flags.layer is None or flags.layer.split(".")[0] in ("conv1", "fire5", "fire7", "fire9")

    def resolve(flags):
        asked.append(flags)
        assert resolve_flags(module_of(flags.experiment or DEFAULT_EXPERIMENT), flags).configs

    tiny.replace_work(monkeypatch, resolve)
    for task in ("inspect", "predict"):
        monkeypatch.setitem(cli.TASKS, task, (note, cli.TASKS[task][1]))
    for command in commands:
        code, _, error = tiny.call(capsys, *shlex.split(html.unescape(command)))
        assert code == 0, f"{command}: {error}"
    assert len(asked) == len([command for command in commands if "--describe" not in command])
