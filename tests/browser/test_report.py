"""report.html in a browser."""

from types import SimpleNamespace

import numpy as np
import pytest

from capsnet_jax.report import html
from capsnet_jax.report.pages import compose
from capsnet_jax.sweeps import records
from tests.report.finished import run

pytestmark = pytest.mark.slow

RATES = [round(0.001 * (n + 1), 3) for n in range(60)]
EXPERIMENTS = {"mine": SimpleNamespace(__doc__="Which rate?\n\n    python launch.py\n", CONFIG={}, SWEEP=[])}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """300 runs: 60 learning rates of five seeds, of twenty epochs."""
    workdir, finished = tmp_path_factory.mktemp("report"), []
    for number, rate in enumerate(RATES):
        for seed in range(5):
            record = run(seed, 1 + 0.1 * number + 0.01 * seed, train__learning_rate=rate)
            curve = 10 / np.arange(1, 21) + number + seed
            record.metrics.update(validation_error=curve, train_loss=curve / 100, epoch=np.arange(1, 21))
            finished.append(record)
    records.append(finished, workdir)
    noted = {"experiment": "mine", "swept": ["train.learning_rate"], "runs": [record.name for record in finished]}
    records.append_lines(workdir / "experiments.jsonl", [noted])
    return html.write_report({workdir: compose(workdir, EXPERIMENTS)})


def test_300_runs_open_in_two_seconds(visit, report):
    page = visit(report)
    assert page.seconds < 2
    assert page.locator("path.curve").count() == 60
    assert report.stat().st_size < 2e6


def test_curves_are_read_with_the_mouse_and_with_the_keyboard(visit, report):
    page = visit(report)
    plot, tip = page.locator(".curves svg"), page.locator(".tip")
    box = plot.bounding_box()
    plot.scroll_into_view_if_needed()
    plot.hover(position={"x": box["width"] - 15, "y": 100})
    # The least rate's five seeds at epoch 20: 10 / 20 + 0 + the mean of 0 to 4.
    assert tip.locator("div").nth(0).text_content() == "epoch 20, least first"
    assert tip.locator("div").nth(1).text_content() == "2.5 learning rate = 0.001"
    assert "and 50 more" in tip.text_content()
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert tip.locator("div").nth(0).text_content() == "epoch 19, least first"
    page.locator("select").first.select_option("train_loss")
    assert tip.locator("div").nth(1).locator("b").text_content() == f"{(10 / 19 + 2) / 100:.4g}"


def test_a_setting_is_taken_away_and_comes_back(visit, report):
    page = visit(report)
    button = page.locator(".legend button").first
    button.focus()
    page.keyboard.press("Enter")
    assert (button.get_attribute("aria-pressed"), page.locator("path.curve").count()) == ("false", 59)
    page.keyboard.press("Space")
    assert (button.get_attribute("aria-pressed"), page.locator("path.curve").count()) == ("true", 60)


def test_a_run_tells_all_of_it_when_it_is_opened(visit, report):
    page = visit(report)
    page.locator("summary", has_text="300 runs").click()
    page.locator("input[type=search]").fill("0.003, seed 4")
    shown = page.locator("details.run:visible")
    assert shown.count() == 1
    shown.locator("summary").click()
    shown.locator("dd").first.wait_for()  # it is written when the browser tells that it is open
    told = dict(zip(shown.locator("dt").all_text_contents(), shown.locator("dd").all_text_contents(), strict=True))
    assert (told["seed"], told["train.learning_rate"], told["test_error"]) == ("4", "0.003", "1.24")
    assert (told["model.name"], told["device"], told["code of revision"]) == ("capsnet_small", "cpu", "0123456")


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_and_the_dark(visit, report, width, scheme):
    page = visit(report, viewport={"width": width, "height": 700}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = [page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")]
    ink, ground = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert (ink < 200 and ground > 700) if scheme == "light" else (ink > 600 and ground < 100)
