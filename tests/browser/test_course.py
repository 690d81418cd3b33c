"""course.html in a browser: pages are turned, and what is moved by hand agrees with JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsnet_jax.routing.dynamic import dynamic_routing
from experiments.course import build, capsules, convolution, made, practice, routing
from experiments.course.page import Page, movable

pytestmark = pytest.mark.slow

TITLES = ["A filter slides over an image", "Votes", "Squashing: a length is a probability", "Deep dream", "Transfer"]


def votes(_):
    return Page(
        "Votes", "Two parents.", [movable("routing", {"votes": routing.VOTES, "iterations": 3}, "")], [], ["--list"]
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """The pages that need no network."""
    pages = (convolution.kernel, votes, capsules.squashing, made.deep_dream, practice.transfer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CHAPTERS", {"First": pages[:1], "Second": pages[1:]})
        return build.write(tmp_path_factory.mktemp("course"))


def expect_shown(page, title):
    """One page is shown, at the latest when the browser has told of a changed address."""
    from playwright.sync_api import expect

    expect(page.locator("section.page:visible h1")).to_have_text([title])


def test_keys_buttons_and_links_turn_pages(visit, course):
    page = visit(course)
    expect_shown(page, build.NAME)
    assert page.locator("nav.contents a").count() == len(TITLES)
    for key, title in (
        ("ArrowRight", TITLES[0]),
        ("PageDown", TITLES[1]),
        ("PageDown", TITLES[2]),
        ("PageUp", TITLES[1]),
    ):
        page.keyboard.press(key)
        expect_shown(page, title)
    page.locator("#on").click()
    expect_shown(page, TITLES[2])
    assert page.locator("#where").text_content() == f"3 of 5: {TITLES[2]}"
    page.go_back()
    expect_shown(page, TITLES[1])
    page.locator("nav.bar a").click()
    expect_shown(page, build.NAME)
    assert page.locator("#back").is_disabled()
    page.get_by_role("link", name="Deep dream").click()
    expect_shown(page, "Deep dream")
    assert page.url.rpartition("#")[2] == "deep-dream"
    expect_shown(visit(course.with_name("course.html")), build.NAME)


def test_a_link_leads_to_a_page_and_no_key_is_lost(visit, course):
    page = visit(course)
    page.evaluate("location.hash = 'votes'")
    page.wait_for_function("document.querySelector('.current').id == 'votes'")
    page.evaluate("for (let n = 0; n < 2; n++) dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    expect_shown(page, "Deep dream")


def test_the_filter_slides(visit, course):
    page = visit(course)
    page.keyboard.press("ArrowRight")
    total, grids = page.locator(".sum b"), page.locator(".movable svg")
    assert total.text_content() == "2"
    grids.nth(0).focus()
    seen = ["2"]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        seen.append(total.text_content())
    assert seen == ["2", "−6", "−7", "10"]
    page.keyboard.press("ArrowDown")
    assert page.locator(".sum").text_content() == "sum 3 in row 2, column 4 of the output"
    expect_shown(page, TITLES[0])  # the arrow keys moved the filter, and turned no page
    box = grids.nth(1).bounding_box()
    grids.nth(1).hover(position={"x": box["width"] * 0.6, "y": box["height"] * 0.5})
    assert total.text_content() == "−12"
    box = grids.nth(0).bounding_box()
    grids.nth(0).hover(position={"x": box["width"] * 0.25, "y": box["height"] * 0.7})
    assert total.text_content() == "3"


@pytest.mark.parametrize("number", range(3))
def test_every_sum_is_what_conv2d_made(visit, course, number):
    """What the page adds up by itself is what JAX computed, at every position of every example."""
    page = visit(course)
    page.keyboard.press("ArrowRight")
    page.locator(".movable select").select_option(str(number))
    page.locator(".movable svg").nth(0).focus()
    examples = page.evaluate("JSON.parse(document.querySelector('[data-kernel]').dataset.kernel)")
    output = examples[number]["output"]
    for row in range(len(output)):
        for column in range(0, len(output[0])):
            told = page.locator(".sum b").text_content().replace("−", "-")
            assert float(told) == output[row][column], (row, column)
            page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        for _ in output[0]:
            page.keyboard.press("ArrowLeft")


def test_the_slider_reads_every_squash(visit, course):
    page = visit(course)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    curves, slider = capsules.squash_curves(), page.locator("input[type=range]:visible")
    rows = page.locator(".movable:visible tbody tr")
    assert page.locator(".movable:visible output").text_content() == "|s| = 1.00"
    for at in (20, 0, 33, len(capsules.LENGTHS) - 1):
        slider.fill(str(at))
        told = {row.locator("th").text_content(): float(row.locator("td").first.text_content()) for row in rows.all()}
        assert told == {name: pytest.approx(curve[at], abs=6e-4) for name, curve in curves.items()}
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect_shown(page, TITLES[2])


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
def test_votes_are_routed_as_in_jax(visit, course, iterations):
    page = visit(course)
    for seed in range(5):
        drawn = jax.random.uniform(jax.random.key(seed), (3, 2, 2), minval=-1.25, maxval=1.25)
        made = page.evaluate("([votes, count]) => route(votes, count)", [drawn.tolist(), iterations])
        trace = dynamic_routing(drawn, iterations=iterations, trace=True).trace
        np.testing.assert_allclose(made["couplings"], trace.couplings, atol=1e-5)
        np.testing.assert_allclose(made["capsules"], trace.capsules, atol=1e-5)
    nothing = page.evaluate("route([[[0, 0], [0, 0]], [[0, 0], [0, 0]]], 3)")
    assert np.isfinite(nothing["capsules"]).all()


def test_a_vote_is_dragged_and_moved_by_keys(visit, course):
    page = visit(course)
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    cells = page.locator(".movable:visible tbody tr").nth(2).locator("td")
    told = lambda: [float(text) for text in cells.all_text_contents()]  # noqa: E731
    expected = lambda votes: dynamic_routing(jnp.array(votes)).couplings.ravel()  # noqa: E731
    votes = [[list(of_parent) for of_parent in of_input] for of_input in routing.VOTES]
    np.testing.assert_allclose(told(), expected(votes), atol=6e-4)
    handle = page.locator(".handle:visible").nth(0)
    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    votes[0][0][0] -= 0.2
    np.testing.assert_allclose(told(), expected(votes), atol=6e-4)
    box = page.locator(".movable:visible svg").nth(0).bounding_box()
    handle.hover()
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + box["width"] / 2.7, steps=3)
    page.mouse.up()
    votes[0][0] = [0.0, -1.0]
    np.testing.assert_allclose(told(), expected(votes), atol=0.01)  # to a pixel
    page.get_by_role("button", name="as at first").click()
    np.testing.assert_allclose(told(), expected(routing.VOTES), atol=6e-4)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_narrow_screens_and_the_dark(visit, course, width, scheme):
    page = visit(course, viewport={"width": width, "height": 700}, color_scheme=scheme)
    for _ in range(len(TITLES) + 1):
        assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
        page.keyboard.press("ArrowRight")
    colours = [page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")]
    ink, ground = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
    assert (ink < 200 and ground > 700) if scheme == "light" else (ink > 600 and ground < 100)


def test_all_pages_are_printed(visit, course):
    page = visit(course)
    page.emulate_media(media="print")
    assert page.locator("section.page:visible").count() == len(TITLES) + 1
    assert page.locator("nav.bar").is_hidden()
    for image in page.locator("img").all():
        assert image.get_attribute("alt")
        assert image.evaluate("image => image.loading") == "eager"  # of pages that were never shown, too
