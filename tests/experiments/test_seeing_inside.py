import types

import jax
import numpy as np
import pytest

from capsnet_jax.figures.galleries import gallery, grey, heat, signed, wrap
from capsnet_jax.interpret.inside import count_channels
from capsnet_jax.report import seen_photographs, seen_runs
from capsnet_jax.report.seen_photographs import most_correlated, most_selective
from experiments import seeing_inside
from tests import tiny
from tests.figures.synthetic import fake_record

RANDOM = np.random.default_rng(0)


def test_the_channel_that_goes_with_values_is_found():
    array = RANDOM.normal(size=(3, 5, 6, 7)).astype(np.float32)
    array[..., 2] = 0  # a dead one has no correlation
    values = (0.7 * array[..., 4] - 0.1 * array[..., 5]).astype(np.float32)
    channel, correlation = most_correlated(array, values)
    alive = [c for c in range(7) if c != 2]
    expected = {c: np.corrcoef(array[..., c].ravel(), values.ravel())[0, 1] for c in alive}
    assert channel == max(expected, key=expected.get) == 4
    np.testing.assert_allclose(correlation, expected[4], rtol=1e-5)
    assert most_correlated(-array, values)[0] != 4  # one that goes against them is not meant


def test_the_channel_of_a_part_is_the_one_that_is_weaker_everywhere_else():
    array = RANDOM.uniform(1, 2, size=(2, 4, 8, 5)).astype(np.float32)
    array[0, 1:3, 4:6, 3] = 5  # rows ¼ to ¾, columns ½ to ¾
    array[1, 2, 5, 1] = 9  # the same place of another image is not the part
    array[..., 0] = 0
    array[0, 1, 4, 0] = 1e-3  # active there and nowhere else, but hardly
    channel, ratio = most_selective(array, (0.25, 0.75, 0.5, 0.75))
    elsewhere = [v for (i, y, x), v in np.ndenumerate(array[..., 3]) if i or y not in (1, 2) or x not in (4, 5)]
    assert channel == 3
    np.testing.assert_allclose(ratio, 5 / max(elsewhere), rtol=1e-6)


def test_rows_of_a_gallery_may_have_different_lengths():
    pictures = RANDOM.uniform(size=(3, 50, 60))
    rows = [[("a", pictures[0]), ("b", pictures[1])], [("c", pictures[2])]]
    figure = gallery(rows, row_names=["first", "second"], note="a net")
    [axes] = figure.axes
    [mosaic] = [np.asarray(image.get_array()) for image in axes.images]
    header = mosaic.shape[0] - 2 * 50 - 2  # two rows with names above, and a gap between them
    header = header // 2
    for (row, column), picture in zip([(0, 0), (0, 1), (1, 0)], pictures, strict=True):
        top, left = row * (50 + 2 + header) + header, column * (60 + 2)
        np.testing.assert_allclose(mosaic[top : top + 50, left : left + 60], picture, rtol=1e-6)
    assert (mosaic[-50:, 62:] == 1).all()  # nothing
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c", ""]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["first", "second"]
    assert figure.get_supxlabel() == "a net"
    with pytest.raises(ValueError, match="no tiles"):
        gallery([])


def test_scales_of_a_gallery():
    np.testing.assert_allclose(grey(np.array([[2.0, 3], [4, 6]])), [[0, 0.25], [0.5, 1]])
    assert not grey(np.full((2, 2), 3.0)).any()
    red, blue = signed(np.array([[0.5, -2.0]]))[0]
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    np.testing.assert_allclose(signed(np.zeros((1, 1))), 0.97, atol=0.01)  # the map's middle
    images = RANDOM.uniform(size=(2, 3, 4, 3))
    maps = np.zeros((2, 3, 4))
    maps[0, 1, 1], maps[1, 2, 2] = 8, 2
    laid = heat(images, maps)
    np.testing.assert_allclose(laid[0, 1, 1], [1, 0, 0])
    dimmed = 0.25 + 0.6 * images.mean(axis=-1)
    np.testing.assert_allclose(laid[0, 0, 0], dimmed[0, 0, 0])
    np.testing.assert_allclose(laid[1, 2, 2], 0.75 * dimmed[1, 2, 2] + 0.25 * np.array([1, 0, 0]))  # one scale for both
    np.testing.assert_allclose(heat(images, 0 * maps), np.broadcast_to(dimmed[..., None], images.shape))
    assert wrap([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]


def test_channels_are_counted_over_all_images():
    images = RANDOM.uniform(size=(100, 4, 5, 1)).astype(np.float32)
    kernel = np.array([1, -1, 2, 0.5], np.float32).reshape(1, 1, 1, 4)
    shift = np.array([0, 0, -0.8, 0], np.float32).reshape(1, 1, 1, 4)
    images[7] = 0.1
    images[7, 0, 0] = 0.2  # where channel 2 is off

    def net(pixels):
        return {"conv": jax.nn.relu(pixels * kernel + shift)}

    array = np.maximum(images * kernel + shift, 0)
    dead = sum(not (array[..., c] > 0).any() for c in range(4))
    leading = {int(image.max(axis=(0, 1)).argmax()) for image in array}
    assert (dead, leading) == (1, {0, 2})
    found = {name: counts.tolist() for name, counts in count_channels(net, images, ["conv"]).items()}
    assert found == {"channels": [4], "dead": [1], "near_dead": [0], "leading": [2]}


def fake_observation(record, name):
    assert name == "seeing_inside"
    return {
        "layer": np.array("conv3"),
        "units": np.array([0, 7]),
        "found": np.array([1.0, 2.0]),
        "made": np.array([2.0 + record.seed, 1.0]),
        "layers": np.array(["conv1", "conv3"]),
        "channels": np.array([32, 128]),
        "dead": np.array([3 + 2 * record.seed, 0]),
        "near_dead": np.array([0, 1]),
        "leading": np.array([5, 6]),
    }


def test_what_was_observed_is_told_over_seeds(monkeypatch):
    monkeypatch.setattr(seeing_inside, "load_observation", fake_observation)
    rows = seeing_inside.observed_rows([fake_record(seed, model__name="cnn_small") for seed in range(2)])
    assert len(rows) == 8
    made, channels = seeing_inside.observed_tables(rows)
    # Ratios: 2 and ½, mean 1.25; 3 and ½, mean 1.75. t of 97.5 % with one degree of freedom is 12.706.
    half = 12.706 * np.std([1.25, 1.75], ddof=1) / np.sqrt(2)
    assert half > 1.5  # so the interval is cut off at 0
    assert made.rows == [["MNIST", "cnn_small", "conv3", "2 of 4", f"1.50 [0.00, {1.5 + half:.2f}]", "2"]]
    [first, last] = channels.rows
    assert first == ["MNIST", "cnn_small", "conv1", "32.0 ± 0.0", "4.0 [0.0, 16.7]", "0.0 ± 0.0", "5.0 ± 0.0", "2"]
    assert last[2:5] == ["conv3", "128.0 ± 0.0", "0.0 ± 0.0"]

    rows = [row | {"found": 0.0} if row.get("unit") == 7 else row for row in rows]  # no test image activates it
    assert seeing_inside.observed_tables(rows)[0].rows[0][3:5] == ["4 of 4", "2.50 [0.00, 8.85]"]  # of 2 and 3
    rows = [row | {"found": 0.0} if "unit" in row else row for row in rows]
    assert seeing_inside.observed_tables(rows)[0].rows[0][3:5] == ["4 of 4", ""]
    monkeypatch.setattr(seeing_inside, "load_observation", lambda record, name: None)
    assert seeing_inside.observed_rows([fake_record()]) == []


def without_squeezenet(monkeypatch):
    monkeypatch.setattr(seeing_inside, "load_released", lambda name: None)
    monkeypatch.setattr(seen_photographs, "load", lambda net: None)
    monkeypatch.setattr(seen_photographs, "PAGES", {})
    monkeypatch.setattr(seeing_inside, "SQUEEZENET", ())


def test_every_page_has_its_caption_and_the_run_of_least_seed_is_drawn(monkeypatch):
    pages = {name: lambda net, shown, name=name: name for name in seen_photographs.PAGES}
    of_runs = {name: lambda net, shown, name=name: (name, net.seed) for name in seen_runs.ANY}
    of_capsules = {name: lambda net, shown, name=name: (name, net.seed) for name in seen_runs.CAPSULES}
    monkeypatch.setattr(seeing_inside, "load_released", lambda name: None)
    monkeypatch.setattr(seen_photographs, "load", lambda net: None)
    monkeypatch.setattr(seen_photographs, "PAGES", pages)
    monkeypatch.setattr(seen_runs, "ANY", of_runs)
    monkeypatch.setattr(seen_runs, "CAPSULES", of_capsules)
    monkeypatch.setattr(seen_runs, "examples", lambda net: None)
    monkeypatch.setattr(seeing_inside, "inspect", lambda method, net, asked: ((method, net and net.seed, asked), ""))

    def network(record):
        routes = record.settings["model.name"] == "capsnet_small"
        layers = ["conv1", "conv3"]
        return types.SimpleNamespace(is_capsnet=routes, seed=record.seed, layers_with_positions=lambda: layers)

    monkeypatch.setattr(seeing_inside, "restore_record", network)
    monkeypatch.setattr(seeing_inside, "has_params", lambda record: record.settings["data.dataset"] == "mnist")
    models = ("cnn_small", "capsnet_small")
    found = [fake_record(seed, model__name=model) for seed in (2, 1) for model in models]
    found += [fake_record(0, model__name=model, data__dataset="fashion_mnist") for model in models]  # no parameters
    drawn = seeing_inside.figures(found)
    nets = {title.partition("-")[2] for title in drawn}
    assert nets == {"squeezenet", "mnist-cnn_small", "mnist-capsnet_small"}
    assert drawn["inverted-mnist-cnn_small"] == ("inverted", 1)
    method, seed, asked = drawn["strongest_parts-mnist-cnn_small"]
    assert (method, seed, asked.layer) == ("top_images", 1, "conv3")
    assert "couplings-mnist-capsnet_small" in drawn
    assert "couplings-mnist-cnn_small" not in drawn
    assert {title.partition("-")[0] for title in drawn} == set(seeing_inside.CAPTIONS)


@pytest.mark.slow
def test_trained_networks_are_observed_and_drawn(monkeypatch, tmp_path, capsys):
    without_squeezenet(monkeypatch)
    monkeypatch.setattr(seen_runs, "STEPS", 4)
    flags = ("--experiment=seeing_inside", "--dataset=mnist_5k", *tiny.SIZES, "--seeds=1", f"--workdir={tmp_path}")
    flags = [flag for flag in flags if "max_routing" not in flag]
    code, printed, error = tiny.call(capsys, *flags)
    assert (code, error) == (0, "")
    assert "Images made for units" in printed
    pictures = {path.stem.removeprefix("seeing_inside-") for path in (tmp_path / "figures").glob("*.png")}
    shared = {*seen_runs.ANY, *(title for title, *_ in seeing_inside.TRAINED)}
    capsnet = shared | {*seen_runs.CAPSULES, *(title for title, *_ in seeing_inside.CAPSNET)}
    expected = {f"{title}-mnist_5k-capsnet_small" for title in capsnet}
    assert pictures == expected | {f"{title}-mnist_5k-cnn_small" for title in (*shared, "strongest_parts")}


@pytest.mark.slow
def test_the_photographs_are_read_and_a_channel_is_red():
    released = seeing_inside.load_released("squeezenet")
    photographs = seen_photographs.load(released)
    assert photographs.pixels.shape == (3, *released.data.image_shape)
    figure = seen_photographs.red_channel(released, photographs)
    assert "correlation 0.8" in " ".join(figure.get_supxlabel().split())
