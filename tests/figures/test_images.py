import dataclasses

import matplotlib as mpl
import numpy as np
import pytest

from capsnet_jax import overrides
from capsnet_jax.figures import images, prediction, reconstructions, style
from capsnet_jax.figures.images import network_note, network_paths, setting_slug, single_networks
from tests.figures.synthetic import fake_record

DIGITS = [str(k) for k in range(10)]


def pictures(count, channels=1):
    return np.random.default_rng(0).random((count, 6, 6, channels))


def bars(figure):
    return figure.axes[-1].patches


def test_prediction_shows_the_arrays_and_marks_the_longest():
    image, rebuilt = pictures(2)
    lengths = np.linspace(0.1, 0.5, 10)
    lengths[3] = 0.9
    figure = prediction(image, rebuilt, lengths, DIGITS, note="MNIST")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), image[..., 0])
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), rebuilt[..., 0])
    assert [axes.get_title() for axes in figure.axes] == ["input", "reconstruction", "prediction: 3"]
    np.testing.assert_allclose([bar.get_width() for bar in bars(figure)], lengths)
    marked = [mpl.colors.to_hex(bar.get_facecolor()).upper() == style.VERMILLION for bar in bars(figure)]
    assert marked == [k == 3 for k in range(10)]
    assert figure.axes[-1].get_xlabel() == "capsule length"
    assert figure.get_supxlabel().startswith("MNIST; one image")


def test_a_prediction_of_two_classes():
    lengths = np.array([0.1, 0.8, 0.2, 0.9])
    figure = prediction(pictures(1)[0], None, lengths, list("abcd"), shown=2)
    assert figure.axes[-1].get_title() == "prediction: d and b"
    marked = [mpl.colors.to_hex(bar.get_facecolor()).upper() == style.VERMILLION for bar in bars(figure)]
    assert marked == [False, True, False, True]
    assert "the predicted ones in red" in figure.get_supxlabel()


def test_prediction_without_a_decoder():
    figure = prediction(pictures(1)[0], None, np.linspace(0, 1, 10), DIGITS)
    assert [axes.get_title() for axes in figure.axes] == ["input", "prediction: 9"]


def test_scores_that_are_no_lengths_are_not_called_so():
    figure = prediction(pictures(1)[0], None, np.linspace(0, 1, 10), DIGITS, measure="probability")
    assert figure.axes[-1].get_xlabel() == "probability"
    assert "probability of each class" in figure.get_supxlabel()
    assert "capsule" not in figure.get_supxlabel()


@pytest.mark.parametrize(("channels", "shape"), [(1, (6, 6)), (2, (6, 6)), (3, (6, 6, 3))])
def test_channels(channels, shape):
    image = pictures(1, channels)[0]
    drawn = prediction(image, None, np.ones(2), ["a", "b"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, image if channels == 3 else image.mean(axis=-1))
    assert drawn.shape == shape


def test_of_many_classes_the_longest_are_shown():
    lengths = np.random.default_rng(1).random(100)
    figure = prediction(pictures(1)[0], None, lengths, [f"class {k}" for k in range(100)])
    assert sorted(bar.get_width() for bar in bars(figure)) == sorted(lengths)[-images._BARS :]
    assert figure.axes[-1].get_title() == f"prediction: class {lengths.argmax()}"
    assert "(the 12 longest of 100)" in figure.get_supxlabel()


def test_broken_lengths_and_pixels_do_not_win():
    lengths = np.array([np.nan, 0.2, 0.7, np.inf])
    image = np.full((6, 6, 1), np.nan)
    figure = prediction(image, image + 2, lengths, list("abcd"))
    assert figure.axes[-1].get_title() == "prediction: c"
    assert not np.isnan(figure.axes[0].images[0].get_array()).any()


@pytest.mark.parametrize("lengths", [np.ones(3), np.ones((10, 1)), np.ones(())])
def test_one_length_a_class(lengths):
    with pytest.raises(ValueError, match="need one length a class"):
        prediction(pictures(1)[0], None, lengths, DIGITS)


def test_image_needs_three_axes():
    with pytest.raises(ValueError, match=r"shape \[H, W, C\], got \(6, 6\)"):
        prediction(np.ones((6, 6)), None, np.ones(10), DIGITS)


def test_reconstructions_stand_under_their_images():
    inputs, rebuilt = pictures(12), 1 - pictures(12)
    labels = np.arange(12) % 10
    guesses = labels.copy()
    guesses[11] = 7
    figure = reconstructions(inputs, rebuilt, labels, guesses, note="MNIST")
    grid = np.array(figure.axes).reshape(4, 6)  # rows are equally long where that is possible
    for index in range(12):
        above, below = grid[2 * (index // 6), index % 6], grid[2 * (index // 6) + 1, index % 6]
        np.testing.assert_array_equal(above.images[0].get_array(), inputs[index, ..., 0])
        np.testing.assert_allclose(below.images[0].get_array(), rebuilt[index, ..., 0])
    assert grid[2, 4].get_title() == "0"
    assert grid[2, 5].get_title() == "1 → 7"
    assert grid[2, 5].title.get_color() == style.VERMILLION
    assert "where wrong (1 of 12)" in figure.get_supxlabel()


def test_reconstructions_by_name():
    figure = reconstructions(pictures(1), pictures(1), [0], [1], label_names=["cat", "dog"])
    assert figure.axes[0].get_title() == "cat\n→ dog"


def test_reconstructions_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="no images to draw"):
        reconstructions(pictures(0), pictures(0), [], [])
    with pytest.raises(ValueError, match="got 2, 2, 2 and 1"):
        reconstructions(pictures(2), pictures(2), [1, 2], [1])


def record(changes, seed=0):
    """Of a run that starts from a preset."""
    settings = overrides.flatten(overrides.from_preset(changes.get("preset", "small"), changes))
    return dataclasses.replace(fake_record(seed, 2), settings=settings)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "capsnet_small, dynamic routing, r = 3, seed 0; small preset"),
        (
            {"train.epochs": 1, "model.decoder": (8, 16)},
            "capsnet_small, dynamic routing, r = 3, seed 0; small preset but for decoder 8x16, epochs = 1",
        ),
        ({"preset": "paper"}, "capsnet, dynamic routing, r = 3, seed 0; paper preset"),
        ({"model.name": "cnn_small"}, "cnn_small, seed 0; small preset but for cnn_small, cross-entropy"),
        ({"routing.iterations": 1}, "capsnet_small, dynamic routing, r = 1, seed 0; small preset but for r = 1"),
    ],
)
def test_a_caption_calls_a_run_by_its_preset_only_if_it_is_the_presets(changes, told):
    assert network_note(record(changes), "test images") == f"mnist_5k, test images; {told}"


def test_a_run_of_no_known_preset_has_none_in_its_caption():
    other = fake_record(2, 2, model__name="capsnet", preset="mine")
    assert network_note(other, "one image") == "MNIST, one image; capsnet, dynamic routing, seed 2"
    other.settings |= {"preset": "small", "model.name": "gone"}
    assert network_note(other, "one image") == "MNIST, one image; gone, dynamic routing, seed 2"


def test_of_each_data_set_and_setting_the_run_with_the_least_seed_is_drawn():
    found = [
        record({"data.dataset": dataset, "routing.iterations": r}, seed)
        for seed in (4, 2)
        for dataset in ("mnist", "emnist/letters")
        for r in (1, 3)
    ]
    drawn = single_networks(found)
    assert list(drawn) == [
        "mnist-iterations1",
        "mnist-iterations3",
        "emnist_letters-iterations1",
        "emnist_letters-iterations3",
    ]
    assert {each.seed for each in drawn.values()} == {2}
    assert list(single_networks(found[:1])) == ["mnist"]
    assert single_networks([]) == {}


def test_networks_are_told_apart_by_name_and_by_what_varies_with_one_name():
    found = [
        record(changes | {"train.learning_rate": 0.003 if r == 1 else 0.01})
        for changes in ({}, {"routing.name": "uniform"}, {"model.name": "cnn_small"})
        for r in (1, 3)
    ]
    assert network_paths(found) == ["model.name", "routing.name", "train.learning_rate"]
    assert network_paths(found[:1], ["routing.iterations"]) == ["routing.iterations"]


def test_a_setting_is_part_of_a_files_name():
    paths = ("model.name", "routing.iterations", "train.frozen", "model.decoder", "data.label")
    assert (
        setting_slug(paths, ("cnn", 3, "conv1+conv2", [8, 16], "a/b c"))
        == "cnn-iterations3-frozenconv1+conv2-decoder8x16-labela_b_c"
    )
    assert setting_slug(paths[:2], ("cnn", None)) == "cnn"
