import dataclasses
import hashlib
import os
import re
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError, Data
from capsnet_jax.figures import style
from capsnet_jax.interpret import network as restoring
from capsnet_jax.report import predict as predicting
from capsnet_jax.report.predict import own_name
from capsnet_jax.sweeps import best as choosing
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.plan import load_data
from tests import tiny


def predict(path, workdir, **how):
    return predicting.predict(path, restoring.restore(workdir), workdir / "figures", **how)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The study's records, where pictures may be drawn."""
    folder = tmp_path_factory.mktemp("predict") / "work"
    shutil.copytree(tiny.study().folder, folder)
    return folder


@pytest.fixture(scope="module")
def dataset():
    return load_data(Data())


@pytest.fixture(scope="module")
def digit(dataset, tmp_path_factory):
    """A test image as a file, and its pixels."""
    path = tmp_path_factory.mktemp("digit") / "digit.png"
    Image.fromarray(dataset.test.images[17][:, :, 0]).save(path)
    return path, dataset.test.images[17]


def best(workdir):
    return min(records.load_all(workdir).values(), key=lambda record: record.result["validation_error"])


def lengths(record, pixels):
    """The model's own answer, past everything that `predict` does."""
    model = models.build(overrides.build(record.settings), 10)
    out = model.apply(
        {"params": tiny.params(record.workdir, record.name)}, jnp.asarray(pixels[None], jnp.float32) / 255
    )
    return np.asarray(out["lengths"][0])


def scores(text):
    """{class: length} of what is printed, the greatest first."""
    return {name: float(value) for name, value in re.findall(r"^  (\d) +(\d\.\d{3})", text, re.MULTILINE)}


@pytest.fixture(scope="module")
def predicted(workdir, digit):
    return predict(digit[0], workdir)


@pytest.mark.slow
def test_class_and_lengths_are_the_models_own(workdir, digit, predicted):
    (_, pixels), (text, _, path) = digit, predicted
    wanted = lengths(best(workdir), pixels)
    first, second, third, fourth, fifth, *_ = text.splitlines()
    assert first == f"digit.png: {wanted.argmax()}"
    assert second == f"  by {best(workdir).name}"
    assert third == "  picture: light ink on dark, cropped to the ink, centred"
    best_five = [f"{k} {scores(text)[str(k)]:.3f}" for k in np.argsort(-wanted)[:5]]
    assert fourth.endswith(f"confidence {best_five[0][2:]}; top 5: {', '.join(best_five)}")
    assert fourth.startswith("  UNSURE, as its score is below 0.5; ") == (float(best_five[0][2:]) < 0.5)
    assert fifth == "  capsule length of each class:"
    printed = scores(text)
    assert list(printed) == [str(k) for k in np.argsort(-wanted)]
    assert [printed[str(k)] for k in range(10)] == pytest.approx(wanted, abs=0.02)  # its faintest pixels are cut
    assert path == workdir / "figures" / f"prediction-{own_name(digit[0])}.png"
    assert not path.exists()  # the answer comes first
    assert predicted.save() == path
    with Image.open(path) as drawn:
        assert min(drawn.size) > 100


def test_as_is_the_picture_is_what_the_model_gets(workdir, digit):
    prediction = predict(digit[0], workdir, as_is=True)
    assert "  picture: as it is" in prediction.text.splitlines()
    printed = scores(prediction.text)
    assert [printed[str(k)] for k in range(10)] == pytest.approx(lengths(best(workdir), digit[1]), abs=6e-4)


@pytest.mark.slow
def test_the_run_with_the_least_validation_error_speaks(workdir, digit, predicted, tmp_path):
    """Another run is made the best but one; the one before it has no parameters, as runs that diverged."""
    path, pixels = digit
    folder = tmp_path / "work"
    shutil.copytree(workdir, folder)
    first = best(folder)
    (first.folder / "params.safetensors").unlink()
    *_, worst = sorted(records.load_all(folder).values(), key=lambda record: record.result["validation_error"])
    result = worst.result | {"validation_error": first.result["validation_error"] + 0.01}
    records.append([dataclasses.replace(worst, result=result)], folder)
    text = predict(path, folder, as_is=True).text
    assert text.splitlines()[1] == f"  by {worst.name}"
    assert [scores(text)[str(k)] for k in range(10)] == pytest.approx(lengths(worst, pixels), abs=6e-4)
    assert scores(text) != scores(predicted.text)


@pytest.mark.slow
def test_the_command(workdir, digit, predicted):
    """A picture that is dark on light says what the digit itself says, with --invert and without."""
    path, pixels = digit
    dark = path.with_name("dark.png")
    Image.fromarray(255 - pixels[:, :, 0]).save(dark)
    for flags in ([], ["--invert"]):
        *printed, figure = tiny.succeed(f"--predict={dark}", *flags, f"--workdir={workdir}").splitlines()
        assert printed[2] == "  picture: dark ink on light: inverted, cropped to the ink, centred"
        assert printed[3:] == predicted.text.splitlines()[3:]
        assert figure == str(workdir / "figures" / f"prediction-{own_name(dark)}.png")
        assert Path(figure).exists()


def test_a_figure_that_cannot_be_saved_does_not_take_the_answer(capsys, monkeypatch, workdir, digit):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(style, "write_bytes", full)
    code, out, error = tiny.call(capsys, f"--predict={digit[0]}", f"--workdir={workdir}")
    assert out.startswith("digit.png: ")
    assert "No space left" in error
    assert error.count("\n") == 1
    assert code != 0


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("a $x^2$", "a__x_2_"),
        ("größe", "größe"),
        ("a" * 240, "a" * 91 + "-" + hashlib.sha256(b"a" * 240).hexdigest()[:8]),
        (os.fsdecode(b"a\xff"), "a_"),
    ],
)
def test_the_figures_name_is_legal(name, legal, workdir, digit, tmp_path):
    path = shutil.copy(digit[0], tmp_path / f"{name}.png")
    assert re.fullmatch(f"prediction-{re.escape(legal)}_[0-9a-f]{{4}}[.]png", predict(path, workdir).path.name)


def test_pictures_of_one_name_have_a_name_each(tmp_path):
    paths = [tmp_path / "a/7.png", tmp_path / "b/7.png", tmp_path / "b/7.jpg", tmp_path / "b"]
    assert len({own_name(path) for path in paths}) == 4
    assert own_name(paths[0]) == own_name(tmp_path / "b/../a/7.png")


def test_a_tilde_is_the_home_directory(workdir, digit, monkeypatch):
    monkeypatch.setenv("HOME", str(digit[0].parent))
    assert predict("~/digit.png", workdir).text.startswith("digit.png: ")


def test_the_training_images_are_not_needed(workdir, digit, predicted, monkeypatch):
    monkeypatch.setattr(restoring, "load_data", lambda _: pytest.fail("loaded"))
    assert predict(digit[0], workdir).text == predicted.text


def test_a_conv_net_tells_probabilities(workdir, digit, monkeypatch):
    logits = np.log(np.arange(1, 11) / 55)[None]
    monkeypatch.setattr(restoring.Network, "outputs", lambda *_: {"logits": logits})
    prediction = predict(digit[0], workdir)
    assert "  probability of each class:" in prediction.text.splitlines()
    assert scores(prediction.text)["9"] == pytest.approx(10 / 55, abs=6e-4)
    assert prediction.figure.axes[-1].get_xlabel() == "probability"
    assert "capsule" not in prediction.text + prediction.figure.get_supxlabel()


def test_a_picture_is_transformed_as_the_training_images_were(workdir, digit, monkeypatch):
    """The model gets dark on light; the picture may be either."""
    seen = []
    monkeypatch.setattr(
        restoring.Network, "outputs", lambda _, images: seen.append(images) or {"logits": np.zeros((1, 10))}
    )
    monkeypatch.setattr(choosing, "build", lambda settings: overrides.build(settings | {"data.transform": "inverted"}))
    text = predict(digit[0], workdir).text
    predict(digit[0], workdir, as_is=True)
    assert "inverted as the training images" in text
    np.testing.assert_allclose(seen[0][0].astype(int), 255 - digit[1].astype(int), atol=6)
    np.testing.assert_array_equal(seen[1][0], digit[1])


def test_nothing_to_predict_with(tmp_path, digit):
    with pytest.raises(ConfigError, match=r"no finished run in .*; train one first, or name its --workdir"):
        predict(digit[0], tmp_path)
