"""explorer.html by its text; tests/browser opens it."""

import base64
import html
import json
import re

import numpy as np
import pytest

from capsnet_jax.config import ConfigError
from capsnet_jax.report import explorer, packed
from tests import tiny
from tests.report.untrained import TINY, network, save


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_the_best_run_and_the_best_of_another_routing_are_shown(tmp_path):
    best = save(tmp_path, validation_error=1.0, test_error=1.25, **TINY)
    save(tmp_path, validation_error=1.1, **{**TINY, "model__channels": 5})
    save(tmp_path, validation_error=1.4, routing__iterations=1, **TINY)
    other = save(tmp_path, validation_error=1.3, routing__name="max_min", **TINY)
    path = explorer.write_explorer(tmp_path)
    data = data_of(path)
    assert path == tmp_path / "explorer.html"
    assert [model["run"] for model in data["models"]] == [best, other]
    assert [model["label"] for model in data["models"]] == ["dynamic routing, r = 3", "max min routing, r = 3"]
    assert data["models"][0]["error"] == 1.25
    assert (data["shape"], data["frame"]) == ([28, 28, 1], {"side": 20, "centre": "mass", "transposed": False})
    text = path.read_text(encoding="utf-8")
    assert "softmax(b / T)" in text
    assert "(b − min b) / (max b − min b)" in text
    assert "prior" not in re.search(r"<dl>.*</dl>", text)[0]  # of routers that are not here
    files = re.findall(r"<summary><code>capsnet_jax/(.*?)</code>.*?<pre>(.*?)</pre>", text, re.DOTALL)
    assert {file for file, _ in files} == {*explorer.SOURCES, "routing/dynamic.py", "routing/max_min.py"}
    for file, source in files:
        assert html.unescape(source) == (explorer.PACKAGE / file).read_text(encoding="utf-8")


def test_of_one_routing_what_differs_elsewhere_is_shown_and_other_seeds_are_not(tmp_path):
    save(tmp_path, validation_error=1.0, **TINY)
    save(tmp_path, seed=1, validation_error=1.1, **TINY)
    assert len(data_of(explorer.write_explorer(tmp_path))["models"]) == 1
    other = save(tmp_path, validation_error=5.0, **{**TINY, "model__channels": 5})
    assert data_of(explorer.write_explorer(tmp_path))["models"][1]["run"] == other


def test_what_the_page_does_not_know_is_refused_or_left_out(tmp_path, capsys, caplog):
    save(tmp_path, validation_error=1.0, routing__name="em", **TINY)
    save(tmp_path, validation_error=1.1, model__name="cnn_small")
    code, _, error = tiny.call(capsys, "--explore", f"--workdir={tmp_path}")
    assert code == 2
    assert error.startswith("explorer.html cannot compute model.name=capsnet_small with routing.name=em; it knows ")
    assert "model.name=capsnet,capsnet_small with routing.name=dynamic,max_min,uniform,learned,random" in error
    assert error.count("\n") == 1
    known = save(tmp_path, validation_error=9.0, **TINY)
    assert [model["run"] for model in data_of(explorer.write_explorer(tmp_path))["models"]] == [known]
    assert "routing.name=em" in caplog.text


def test_a_workdir_without_runs_is_refused(tmp_path, capsys):
    code, _, error = tiny.call(capsys, "--explore", f"--workdir={tmp_path / 'none'}")
    assert (code, error) == (2, f"no finished run in {tmp_path / 'none'}; train one first, or name its --workdir\n")


def test_weights_are_float16_in_the_order_that_is_told():
    net = network(**TINY)
    told = packed.pack_model(net, "")
    halves = np.frombuffer(base64.b64decode(told["weights"]), "<f2")
    assert len(halves) == told["parameters"] == sum(int(np.prod(shape)) for _, shape in told["arrays"])
    start = 0
    for name, shape in told["arrays"]:
        array = net.params
        for part in name.split("/"):
            array = array[part]
        size = int(np.prod(shape))
        np.testing.assert_array_equal(halves[start : start + size].reshape(shape), np.asarray(array).astype(np.float16))
        start += size


def test_weights_that_float16_lacks_are_refused():
    net = network(**TINY)
    net.params["conv1"]["bias"] *= 1e6
    with pytest.raises(ConfigError, match="beyond ±65504"):
        packed.pack_model(net, "")


def test_images_of_all_classes_and_hard_ones_are_chosen():
    present = np.eye(3, dtype=bool)[[0, 0, 0, 1, 2, 1, 0]]
    wrong = np.array([True, False, False, False, False, False, True])
    assert packed.choose(present, wrong).tolist() == [1, 3, 4, 2, 5, 0, 6]
    many = np.eye(100, dtype=bool)[np.arange(500) % 100]
    assert packed.choose(many, np.ones(500, bool)).tolist() == list(range(packed.HARD))
    assert packed.choose(many, np.zeros(500, bool)).tolist() == list(range(packed.SHOWN))
