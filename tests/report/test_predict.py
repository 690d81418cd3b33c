import dataclasses
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from capsnet_jax import models, overrides
from capsnet_jax.config import ConfigError, Data
from capsnet_jax.report.predict import PredictError, predict, read_image
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.plan import load_data
from tests import tiny


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


def test_class_and_lengths_are_the_models_own(workdir, digit, predicted):
    (_, pixels), (text, figure) = digit, predicted
    wanted = lengths(best(workdir), pixels)
    first, second, *_ = text.splitlines()
    assert first == f"digit.png: {wanted.argmax()}"
    assert second == f"  by {best(workdir).name}"
    printed = scores(text)
    assert list(printed) == [str(k) for k in np.argsort(-wanted)]
    assert [printed[str(k)] for k in range(10)] == pytest.approx(wanted, abs=6e-4)
    assert figure == workdir / "figures" / "prediction-digit.png"
    with Image.open(figure) as drawn:
        assert min(drawn.size) > 100


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
    text, _ = predict(path, folder)
    assert text.splitlines()[1] == f"  by {worst.name}"
    assert [scores(text)[str(k)] for k in range(10)] == pytest.approx(lengths(worst, pixels), abs=6e-4)
    assert scores(text) != scores(predicted[0])


@pytest.mark.slow
def test_the_command(workdir, digit, predicted):
    """A picture that is dark on light, with --invert, says what the digit itself says."""
    path, pixels = digit
    dark = path.with_name("dark.png")
    Image.fromarray(255 - pixels[:, :, 0]).save(dark)
    printed = tiny.succeed(f"--predict={dark}", "--invert", f"--workdir={workdir}")
    assert printed.splitlines()[1:-1] == predicted[0].splitlines()[1:]
    assert printed.splitlines()[-1] == str(workdir / "figures" / "prediction-dark.png")
    assert (workdir / "figures" / "prediction-dark.png").exists()


def test_nothing_to_predict_with(tmp_path, digit):
    with pytest.raises(ConfigError, match=r"no finished run in .*; train one first, or name its --workdir"):
        predict(digit[0], tmp_path)


def test_grey_and_colour_files_of_one_picture_are_the_same(digit, tmp_path):
    path, pixels = digit
    np.testing.assert_array_equal(read_image(path, (28, 28, 1), invert=False), pixels)
    np.testing.assert_array_equal(read_image(path, (28, 28, 3), invert=False), np.repeat(pixels, 3, axis=2))
    for mode in ("RGB", "RGBA", "LA", "P"):
        other = tmp_path / f"{mode}.png"
        Image.open(path).convert(mode).save(other)
        np.testing.assert_array_equal(read_image(other, (28, 28, 1), invert=False), pixels)


def test_colours_are_kept_or_weighed(tmp_path):
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[:2, :, 0] = 200
    colours[2:, :, 2] = 100
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (4, 4, 3), invert=False), colours)
    grey = read_image(tmp_path / "a.png", (4, 4, 1), invert=False)[:, 0, 0]
    np.testing.assert_allclose(grey, [59.8, 59.8, 11.4, 11.4], atol=1)  # 0.299 red, 0.114 blue (ITU-R 601-2)


def test_what_is_transparent_is_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)  # black wherever it is not transparent
    rgba[1:3, 1:3, 3] = 255
    rgba[0, 0, 3] = 51
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", (4, 4, 1), invert=False)[:, :, 0]
    expected = np.full((4, 4), 255)
    expected[1:3, 1:3] = 0
    expected[0, 0] = 204
    np.testing.assert_allclose(pixels, expected, atol=1)
    inverted = read_image(tmp_path / "a.png", (4, 4, 1), invert=True)[:, :, 0]
    np.testing.assert_array_equal(inverted, 255 - pixels)


@pytest.mark.parametrize("size", [(56, 56), (14, 14), (100, 40)])
def test_another_size_is_scaled(size, tmp_path):
    left = np.zeros(size[::-1], np.uint8)
    left[:, : size[0] // 2] = 255
    Image.fromarray(left).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", (28, 28, 1), invert=False)
    assert (pixels.shape, pixels.dtype) == ((28, 28, 1), np.uint8)
    np.testing.assert_array_equal(pixels[:, :12], 255)
    np.testing.assert_array_equal(pixels[:, 16:], 0)


def test_a_model_of_other_channels_cannot_be_asked(tmp_path, digit):
    with pytest.raises(PredictError, match="trained on 4 channels"):
        read_image(digit[0], (28, 28, 4), invert=False)
