"""A run of the study, exported: what is in the folder, and what it computes elsewhere."""

import ast
import json
import math
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from safetensors.numpy import load_file
from scipy import stats

from capsnet_jax import models
from capsnet_jax.data import babi
from capsnet_jax.interpret.network import load_released, restore
from capsnet_jax.models import pretrained
from capsnet_jax.models.exported import checksum_of
from capsnet_jax.models.state_dict import PretrainedError
from capsnet_jax.report import export
from capsnet_jax.report.model_card import model_card
from capsnet_jax.report.predict import own_name
from capsnet_jax.sweeps import records
from tests import tiny

FILES = ["README.md", "config.json", "model_float32.stablehlo", "model_uint8.stablehlo", "params.safetensors"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def net():
    return restore(tiny.study().folder)


@pytest.fixture(scope="module")
def folder(net, tmp_path_factory):
    return export.export(net, tmp_path_factory.mktemp("exported") / "digits net")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_the_folder_read_back_is_the_run(net, folder):
    back = load_released(folder)
    assert (back.name, back.config, back.data.label_names) == (net.name, net.config, net.data.label_names)
    wanted, found = net.outputs(IMAGES), back.outputs(IMAGES)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    weights = pretrained.load(str(folder))
    model = models.MODELS["capsnet_small"]
    assert (weights.model, weights.classes, weights.normalize) == ("capsnet_small", 10, None)
    assert model.decodes
    assert (
        sum(leaf.size for leaf in load_file(folder / "params.safetensors").values()) == net.record.result["parameters"]
    )


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_program_computes_the_same(dtype, net, folder):
    program = jax_export.deserialize(bytearray((folder / f"model_{dtype}.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert str(tiny.ROOT).encode() not in (folder / f"model_{dtype}.stablehlo").read_bytes()
    wanted = net.outputs(IMAGES)
    for images in (IMAGES, IMAGES[:1]):
        given = images if dtype == "uint8" else images.astype(np.float32) / 255
        found = program.call(given)
        assert found.keys() == {"scores", "lengths", "reconstruction"}
        np.testing.assert_allclose(found["lengths"], wanted["lengths"][: len(images)], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["reconstruction"], wanted["reconstruction"][: len(images)], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found["scores"], found["lengths"])


def test_the_card_tells_data_errors_and_how_to_use_it(net, folder):
    card = (folder / "README.md").read_text()
    record = net.record
    error, n, z = record.result["test_error"] / 100, 1000, stats.norm.ppf(0.975)
    middle, half = (
        (error + z**2 / (2 * n)) / (1 + z**2 / n),
        z / (1 + z**2 / n) * math.sqrt(error * (1 - error) / n + z**2 / (4 * n**2)),
    )  # Wilson 1927
    low, high = (100 * (middle + sign * half) for sign in (-1, 1))
    assert f"{100 * error:.2f} % of 1,000 test examples (Wilson's 95 % interval: {low:.2f} to {high:.2f} %)" in card
    alike = [r for r in records.load_all(record.workdir).values() if r.settings == record.settings]
    assert len(alike) == 2
    mean = np.mean([r.result["test_error"] for r in alike])
    assert re.search(rf"Test error of its setting: {mean:.2f} .*\(n = 2\) .* over seeds 0, 1", card)
    assert "256 examples are for training, 400 held out" in card
    assert " ".join(record.command.split()) in " ".join(card.replace("\\\n", " ").split())
    assert "Apache 2.0" in card
    assert "--model='digits net'" in card
    about = json.loads((folder / "config.json").read_text())
    assert about["checksums"]["params.safetensors"] in card
    assert about["settings"] == record.settings
    assert about["environment"]["packages"]["jax"]
    program = ast.parse(re.search(r"```python\n(.*?)```", model_card(net, 'my "net"', ""), re.DOTALL)[1])
    assert 'my "net"/model_uint8.stablehlo' in [getattr(node, "value", None) for node in ast.walk(program)]


@pytest.mark.slow
def test_the_cards_lines_need_jax_alone(folder):
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code += "import sys\nassert not any(name.startswith(('capsnet_jax', 'flax')) for name in sys.modules)\n"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0.") == 10


@pytest.mark.slow
def test_a_question_written_by_the_cards_words_is_answered_as_by_the_net(tmp_path, capsys):
    settings = ("model.name=memory_network", "loss.name=cross_entropy", "train.epochs=1")
    arguments = ["--dataset=babi_1", "--seeds=1", *(f"--set={setting}" for setting in settings)]
    code, _, error = tiny.call(capsys, *arguments, f"--workdir={tmp_path / 'work'}")
    assert code == 0, error
    net = restore(tmp_path / "work")
    card = (export.export(net, tmp_path / "net") / "README.md").read_text()
    assert not re.search("image|picture|pixel", card, re.IGNORECASE)
    number = {
        word: int(digits)
        for digits, word in re.findall(r"(\d+) ([a-z]+)", card.split("0 is no word, ")[1].split(".")[0])
    }
    story, question = ["mary went to the office", "john went back to the garden"], "where is mary"
    example = np.zeros((1, 51, 7, 1), np.uint8)
    for row, sentence in enumerate([question, *reversed(story)]):
        example[0, row, : len(sentence.split()), 0] = [number[word] for word in sentence.split()]
    asked = babi.Question([sentence.split() for sentence in story], question.split(), "office")
    program = jax_export.deserialize(bytearray((tmp_path / "net/model_uint8.stablehlo").read_bytes()))
    wanted = net.outputs(babi.encode([asked]).images)["logits"]
    np.testing.assert_allclose(program.call(example)["logits"], wanted, rtol=0, atol=1e-5)


def test_only_a_new_folder_is_written(net, folder, tmp_path, capsys):
    assert sorted(os.listdir(folder)) == FILES
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    workdir = net.record.workdir
    code, out, error = tiny.call(capsys, f"--export={mine}", f"--workdir={workdir}")
    assert (code, out) == (2, "")
    assert error == f"--export={mine} is not empty; name a new folder, nothing there is changed\n"
    assert (mine / "thesis.txt").read_text() == "years of work"
    code, _, error = tiny.call(capsys, f"--export={mine / 'thesis.txt'}", f"--workdir={workdir}")
    assert (code, error.count("\n")) == (2, 1)
    (empty := tmp_path / "empty").mkdir()
    assert tiny.call(capsys, f"--export={empty}", f"--workdir={workdir}") == (0, f"{empty}\n", "")
    assert [name for name in FILES if (empty / name).read_bytes() != (folder / name).read_bytes()] == ["README.md"]


def test_what_fails_leaves_nothing(net, tmp_path, monkeypatch):
    written = []

    def full(path, data):
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr(export, "write_bytes", full)
    monkeypatch.setattr(export, "to_stablehlo", lambda *_: b"")
    with pytest.raises(OSError, match="No space") as raised:
        export.export(net, tmp_path / "out")
    assert raised.value.filename == str(tmp_path / "out")
    assert len(written) == 2
    assert list(tmp_path.iterdir()) == []


def edit(folder, **changes):
    path = folder / "config.json"
    about = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(about | {"checksum": checksum_of(about)}))


def damage_text(folder, old, new):
    path = folder / "config.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip(folder):
    data = bytearray((folder / "params.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "params.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"params\.safetensors is damaged, or of another run than config\.json beside it"),
        (lambda folder: (folder / "params.safetensors").unlink(), r"params\.safetensors is missing; export"),
        (lambda folder: (folder / "config.json").write_text('{"format": 1,'), r"config\.json is damaged \("),
        (lambda folder: (folder / "config.json").write_text("[1]"), r"config\.json is damaged, or was edited"),
        (lambda folder: damage_text(folder, '"0",', '"O",'), r"config\.json is damaged, or was edited"),
        (lambda folder: damage_text(folder, '"routing.iterations": 1', '"routing.iterations": 3'), r"or was edited"),
        (lambda folder: edit(folder, name="../../x"), r"config\.json: \.\./\.\./x is no name of a run"),
        (lambda folder: edit(folder, format=2), r"is of format 2, and this version of capsnet_jax reads 1"),
        (lambda folder: edit(folder, label_names=["a", "b"]), r"its parameters are not those of its settings \("),
        (lambda folder: edit(folder, settings={"model.name": "lenet"}), r"is of the model lenet, which"),
    ],
)
def test_what_is_damaged_is_named_in_a_line(damage, message, copy):
    damage(copy)
    with pytest.raises(PretrainedError, match=message) as raised:
        load_released(copy)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_picture_is_classified_and_looked_into_as_by_the_run(net, folder, tmp_path, capsys):
    workdir = shutil.copytree(tiny.study().folder, tmp_path / "work")
    picture = tmp_path / "digit.png"
    Image.fromarray(net.data.test.images[3][:, :, 0]).save(picture)
    told = [
        tiny.call(capsys, f"--predict={picture}", *flags)[1].splitlines()[:-1]
        for flags in ([f"--workdir={workdir}"], [f"--model={folder}", f"--workdir={tmp_path / 'other'}"])
    ]
    assert told[0] == told[1]
    assert (tmp_path / "other" / "figures" / f"prediction-{own_name(picture)}.png").exists()
    flags = ("--inspect=gradient", "--index=3", f"--model={folder}", f"--workdir={tmp_path / 'other'}")
    code, out, _ = tiny.call(capsys, *flags)
    assert code == 0
    assert (tmp_path / "other" / "figures" / out.strip().rpartition("/")[2]).exists()
