"""report.html by its text; tests/browser opens it."""

import base64
import io
import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from capsnet_jax.config import ConfigError
from capsnet_jax.report import html
from capsnet_jax.report.pages import compose
from capsnet_jax.sweeps import records
from tests.report.finished import runs

DOC = """Do more iterations help?

Claim: a <b> of it & more.

    python launch.py --experiment=mine
"""


@pytest.fixture
def workdir(tmp_path):
    """Two settings of three seeds, of which one run diverged, and a figure."""
    finished = [*runs((0.5, 0.6, 0.7), routing__iterations=1), *runs((0.4, 0.5, np.nan), routing__iterations=3)]
    finished[-1].result["diverged_step"] = 17
    for record in finished:
        record.metrics["validation_error"] = np.array([2.0, np.nan, 1 / 3])
    records.append(finished, tmp_path)
    noted = {"experiment": "mine", "swept": ["routing.iterations"], "runs": [record.name for record in finished]}
    records.append_lines(tmp_path / "experiments.jsonl", [noted])
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (3, 2), (250, 10, 20)).save(tmp_path / "figures" / "mine-error.png")
    return tmp_path


EXPERIMENTS = {"mine": SimpleNamespace(__doc__=DOC, CONFIG={}, SWEEP=[], CAPTIONS={"error": "each one's"})}


def page(*workdirs):
    composed = {workdir: compose(workdir, EXPERIMENTS) for workdir in workdirs}
    return html.write_report(composed).read_text(encoding="utf-8")


def data_of(text):
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(found)


def test_the_page_needs_no_other_file(workdir):
    text = page(workdir)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text)  # a name, not an address
    [source] = re.findall(r'src="data:image/webp;base64,([^"]*)" alt="Error" width="3" height="2"', text)
    picture = Image.open(io.BytesIO(base64.b64decode(source)))
    assert np.asarray(picture.convert("RGB"))[0, 0].tolist() == [250, 10, 20]
    assert "<em>Error: each one's</em>" in text


def test_question_failures_command_and_table_are_there_in_that_order(workdir):
    text = page(workdir)
    parts = [
        "Do more iterations help?",
        "1 of 6 runs diverged",
        "mnist_5k: r = 3, seed 2: not finite from step 17 on",
        "Claim: a &lt;b&gt; of it &amp; more.",
        "python launch.py --experiment=mine",
        "<th>test error %</th>",
        "0.60 ± 0.25 (n = 3)",  # t(0.975; 2) · 0.1 / √3 = 0.248
        "data-curves",
        "data-runs",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_script_gets_every_run_once(workdir):
    [experiment] = data_of(page(workdir))
    assert [run["seed"] for run in experiment["runs"]] == [0, 1, 2] * 2
    assert [setting["name"] for setting in experiment["settings"]] == ["r = 1", "r = 3"]
    assert [run["setting"] for run in experiment["runs"]] == [0, 0, 0, 1, 1, 1]
    first, *_, last = experiment["runs"]
    assert first["metrics"]["validation_error"] == [2, None, 0.33333]
    assert first["settings"] == {"routing.iterations": 1}
    assert experiment["common"]["model.name"] == "capsnet_small"
    assert "routing.iterations" not in experiment["common"]
    assert experiment["environments"][first["environment"]]["device"] == "cpu"
    assert (first["result"]["test_error"], last["result"]["test_error"], last["diverged"]) == (0.5, None, 17)


def test_findings_are_kept_and_cannot_end_the_script(workdir):
    (workdir / "mine.md").write_text("# mine\n\n<!-- findings -->\n**Three** help.\n<!-- /findings -->\n")
    assert "<h2>Findings</h2><p><strong>Three</strong> help.</p>" in page(workdir)
    (workdir / "mine.md").write_text("notes of a person's own")
    assert "<h2>Findings</h2>" not in page(workdir)
    text = html.page_of("a < b", "", {"text": "</script>"}, name="report")
    assert "<title>a &lt; b</title>" in text
    assert data_of(text) == {"text": "</script>"}


def test_a_damaged_figure_is_told_and_one_that_is_gone_leaves_its_words(workdir):
    figure = workdir / "figures" / "mine-error.png"
    figure.write_bytes(figure.read_bytes()[:40])
    assert "<span>Error: mine-error.png is damaged; --figures_only draws it again</span>" in page(workdir)
    (workdir / "mine.md").write_text("<!-- findings -->\n![Lost](figures/lost.png)\n<!-- /findings -->\n")
    assert "<p><span>Lost</span></p>" in page(workdir)


def test_the_name_of_a_folder_need_not_be_text(workdir):
    folder = workdir.rename(workdir.with_name(os.fsdecode(b"caf\xe9")))
    assert page(folder).count("caf?</title>") == 1


def test_several_workdirs_stand_one_after_the_other(workdir, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name in ("runs.jsonl", "experiments.jsonl"):
        (other / name).write_bytes((workdir / name).read_bytes())
    text = page(workdir, other)
    assert len(data_of(text)) == 2
    assert f'<a href="#section0">mine in {workdir}</a> <a href="#section1">mine in {other}</a>' in text
    assert not (other / html.FILE).exists()
    with pytest.raises(ConfigError, match="no results in"):
        page(workdir, tmp_path_factory.mktemp("empty"))
