import math

import pytest

from capsnet_jax.figures.labels import (
    dataset_label,
    dataset_slug,
    interval_label,
    label,
    left_out_label,
    possible_range,
    seeds_label,
    setting_label,
)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("routing.iterations", "routing iterations r"),
        ("test_error", "test error [%]"),
        ("model.primary_channels", "primary channels"),
        ("unknown", "unknown"),
    ],
)
def test_label(path, text):
    assert label(path) == text


def test_setting_label():
    by = ["routing.name", "routing.iterations", "routing.gradient", "train.batch_size", "model.decoder"]
    text = "dynamic routing, r = 3, inner gradient stopped, batch size = 128, decoder = False"
    assert setting_label(by, ["dynamic", 3, "stop", 128, False]) == text


def test_setting_label_passes_over_what_makes_no_difference_or_a_setting_does_not_have():
    assert setting_label(["model.name", "routing.iterations"], ["resnet8", None]) == "resnet8"
    assert setting_label(["routing.name", "routing.iterations"], ["learned", None]) == "learned routing"
    assert setting_label(["routing.iterations", "model.name"], [None, "capsnet"]) == "capsnet"
    assert setting_label([], []) == "all runs"
    augmented = ["data.max_rotation", "train.ema_epochs"]
    assert setting_label(["model.name", *augmented], ["capsnet", 0.0, 0.0]) == "capsnet"
    assert setting_label(augmented, [15.0, 2.13]) == "turned by up to 15.0°, mean over 2.13 epochs"
    assert setting_label(["model.name"], ["_mine"]) == " _mine"  # matplotlib leaves "_mine" out of a legend


def test_dataset_label():
    assert dataset_label("fashion_mnist") == "Fashion-MNIST"
    assert dataset_label("my_data") == "my_data"


@pytest.mark.parametrize(
    ("counts", "text"), [([1], "n = 1 seed"), ([5, 5], "n = 5 seeds"), ([3, 5], "n = 3 to 5 seeds")]
)
def test_seeds_label(counts, text):
    assert seeds_label(counts) == text


def test_interval_label():
    assert interval_label([5], 0.9, "bar") == "bar: 90% Student t interval of the mean"
    assert interval_label([1, 1], 0.9, "bar") == "one seed has no interval, so no bar"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (("dynamic", 3, "full", "none"), "dynamic routing, r = 3, full gradient"),
        (("dynamic", 1, None, "none"), "dynamic routing, r = 1"),
        (("learned", None, None, "none"), "learned routing"),
        (("dynamic", 3, "full", "class_capsules"), "dynamic routing, r = 3, full gradient, W frozen at random"),
        (("dynamic", 3, "full", "conv1"), "dynamic routing, r = 3, full gradient, frozen conv1"),
    ],
)
def test_only_what_a_setting_takes_is_said(setting, text):
    assert setting_label(["routing.name", "routing.iterations", "routing.gradient", "train.frozen"], setting) == text


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("test_error", (0, 100)),
        ("validation_top5_error", (0, 100)),
        ("test_error_at_3", (0, 100)),
        ("train_reconstruction_mse", (0, math.inf)),
        ("images_per_second", (0, math.inf)),
        ("validation_entropy_at_1", (-math.inf, math.inf)),
    ],
)
def test_what_a_metric_can_be(name, limits):
    assert possible_range(name) == limits


def test_left_out():
    assert left_out_label(0, 6) == ""
    assert left_out_label(1, 6) == "1 of 6 runs left out: no finite value"


def test_a_data_set_in_a_files_name():
    assert dataset_slug("fashion_mnist") == "fashion_mnist"
    assert dataset_slug("folder/mine") == "folder_mine"


def test_an_object_of_another_version_is_told_as_text():
    assert setting_label(["train.sharpness"], [{"at": 2}]) == "sharpness {'at': 2}"
