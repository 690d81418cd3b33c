"""explorer.html in a browser: its numbers beside JAX's, and what one does with it."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from capsnet_jax.data import frame_of
from capsnet_jax.data.picture import read
from capsnet_jax.interpret.capsule_maps import KINDS, coupling_maps, trace_routing
from capsnet_jax.interpret.network import restore
from capsnet_jax.models.capsnet import decode
from capsnet_jax.ops.squash import SQUASHES
from capsnet_jax.report import explorer, packed
from tests.report.untrained import TINY, network, save

pytestmark = pytest.mark.slow

AGREE = 1e-3
IMAGES = 20
MILLISECONDS = 100

RUN = """([packed, images, classes, kinds]) => {
  const model = unpackModel(packed), list = (values) => values && Array.from(values);
  return images.map((pixels, n) => {
    const start = performance.now(), out = forward(model, Float32Array.from(pixels)), ms = performance.now() - start;
    const spread = (kind, step) =>
      list(overImage(positionMap(model, out, step, classes[n], kind), out.grid, model.shape, model.kernel));
    const steps = out.steps.map((step) => ({
      capsules: list(step.capsules), activations: list(step.activations), couplings: list(step.couplings),
      maps: Object.fromEntries(kinds.map((kind) => [kind, spread(kind, step)])),
    }));
    return { ms, steps, primary: list(out.primary), reconstruction: list(out.reconstruction) };
  });
}"""


DROP = """(bytes) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(bytes)], "red.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""


def rounded(net):
    """The network with weights that float16 has."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float16).astype(jnp.float32), net.params)
    return dataclasses.replace(net, params=params)


def check(page, net, images, kinds=(), *, weights=rounded, agree=1e-4):
    """Compare what the page's script makes of images with JAX's, and maps of some kinds; return each image's time."""
    pixels = [(image.astype(np.float32) / 255).ravel().tolist() for image in images]
    classes = [n % net.data.classes for n in range(len(images))]
    found = page.evaluate(RUN, [packed.pack_model(net, ""), pixels, classes, list(kinds)])
    net = weights(net)
    out = net.outputs(images)
    trace = trace_routing(net, images, getattr(net.config.routing.settings, "iterations", 1))

    def same(values, wanted, scale=1.0):
        np.testing.assert_allclose(np.ravel(values), np.ravel(wanted), atol=agree * scale, rtol=0)

    for n, each in enumerate(found):
        same(each["primary"], out["primary"][n])
        for name in ("capsules", "activations", "couplings"):
            steps = [step[name] for step in each["steps"]]
            same(steps, getattr(trace, name)[n])
        same(each["steps"][-1]["activations"], out["lengths"][n])
        if net.model.reconstruction:
            same(each["reconstruction"], out["reconstruction"][n])
    for kind in kinds:
        maps = coupling_maps(net, images, np.array(classes), kind=kind, iterations=trace.couplings.shape[1])
        same([[step["maps"][kind] for step in each["steps"]] for each in found], maps, max(1, np.abs(maps).max()))
    return [each["ms"] for each in found]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The `small` net, routed once and three times."""
    folder = tmp_path_factory.mktemp("explorer")
    for iterations, validation_error in ((3, 1.0), (1, 2.0)):
        save(folder, validation_error=validation_error, test_error=1.5, routing__iterations=iterations)
    explorer.write_explorer(folder)
    return folder


@pytest.fixture
def page(visit, workdir):
    return visit(workdir / "explorer.html")


def test_the_small_net_agrees_with_jax_on_20_test_images_in_a_tenth_of_a_second(page, workdir):
    net = restore(workdir)
    images = np.asarray(net.data.test.images[:IMAGES])
    times = check(page, net, images, KINDS)
    assert np.median(times) < MILLISECONDS
    check(page, net, images, weights=lambda net: net, agree=AGREE)  # before they were rounded


ROUTINGS = {
    "once": {"routing__iterations": 1},
    "temperature": {"routing__iterations": 3, "routing__temperature": 0.3},
    "leaky": {"routing__iterations": 2, "routing__leaky": True},
    "bias": {"routing__iterations": 2, "routing__bias": True},
    "bias, once": {"routing__iterations": 1, "routing__bias": True},
    "inputs": {"routing__iterations": 3, "routing__softmax_over": "inputs"},
    **{name: {"routing__name": name} for name in explorer.FORMULAS},
    **{f"parents {name}": {"routing__squash": name} for name in SQUASHES},
    **{f"primary {name}": {"model__squash": name} for name in SQUASHES},
    "self_routing by presence": {"routing__name": "self_routing", "model__squash": "layer_norm"},
    "shared": {"model__share_weights": True},
    "divided": {"model__divide_primary": True},
    "no decoder": {"loss__reconstruction": False},
    "pairs": {"data__dataset": "multi_mnist"},
}


@pytest.mark.parametrize("name", ROUTINGS)
def test_every_setting_agrees_with_jax(page, name):
    net = network(**TINY | ROUTINGS[name])
    check(page, net, net.data.test.images[:3])


@pytest.mark.parametrize("shape", [(16, 16, 3), (11, 13, 2)])
def test_other_images_agree_with_jax(page, shape):
    net = network(shape, 4, **TINY)
    check(page, net, net.data.test.images[:3], KINDS)


def lengths(page, panel=0):
    rows = page.locator(".model").nth(panel).locator(".row")
    return [float(text) for text in rows.locator(".number").all_text_contents()]


def test_a_test_image_is_chosen_by_the_arrow_keys(page, workdir):
    net = rounded(restore(workdir))
    page.locator("#gallery [aria-checked=true]").focus()
    for key, index in (("ArrowRight", 1), ("End", -1), ("ArrowRight", 0), ("ArrowLeft", -1), ("Home", 0)):
        page.keyboard.press(key)
        image = page.evaluate("page.images.index")[index]
        assert page.locator("#told").text_content().startswith(f"test image {image}, ")
        wanted = np.asarray(net.outputs(net.data.test.images[image : image + 1])["lengths"][0])
        assert lengths(page) == pytest.approx(wanted, abs=AGREE)
    assert page.locator("#gallery [tabindex='0']").count() == 1


def test_a_slider_moves_one_dimension_of_the_decoded_capsule(page, workdir):
    net = rounded(restore(workdir))
    [index] = page.evaluate("page.images.index")[:1]
    capsules = np.asarray(net.outputs(net.data.test.images[index : index + 1])["capsules"]).copy()
    page.locator("#chosen").select_option("7")
    model = page.locator(".model").first
    slider = model.locator("input[type=range]").nth(4)
    slider.focus()
    page.keyboard.press("End")
    capsules[0, 7, 4] = float(slider.get_attribute("max"))
    pixels = decode(net.model, net.params, jnp.asarray(capsules), jnp.eye(10)[jnp.array([7])])[0]
    shown = page.evaluate(
        "(canvas) => Array.from(canvas.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)",
        model.locator(".pictures canvas").nth(1).element_handle(),
    )
    np.testing.assert_allclose(shown, 255 * np.asarray(pixels), atol=1)
    page.get_by_role("button", name="As routed").first.click()
    assert float(slider.input_value()) == pytest.approx(
        np.asarray(net.outputs(net.data.test.images[index : index + 1])["capsules"])[0, 7, 4], abs=0.006
    )


def test_iterations_are_played_and_changed(page, workdir):
    net = rounded(restore(workdir))
    [index] = page.evaluate("page.images.index")[:1]
    images = net.data.test.images[index : index + 1]
    trace = trace_routing(net, images, 5)
    panel = page.locator(".model").first
    assert (panel.locator(".step").count(), page.locator(".model").nth(1).locator(".step").count()) == (3, 1)
    panel.locator("input[type=number]").fill("5")
    panel.locator("input[type=number]").press("Enter")
    assert panel.locator(".step").count() == 5
    for t in (0, 2, 4):
        panel.locator(".step").nth(t).click()
        assert lengths(page) == pytest.approx(np.asarray(trace.activations)[0, t], abs=AGREE)
    page.locator("#play").click()
    assert "after iteration 1 of 5" in panel.locator("h4").first.text_content()
    page.wait_for_function("document.querySelector('.bars h4').textContent.includes('iteration 5 of 5')")


def test_a_drawing_is_placed_as_the_digits_of_mnist_are(page):
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    points = [(30, 30), (70, 30), (40, 90)]  # a seven, in a corner
    page.mouse.move(box["x"] + points[0][0], box["y"] + points[0][1])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    page.mouse.up()
    page.wait_for_function("document.getElementById('told').textContent.startsWith('your drawing')")
    check_placed(np.array(page.evaluate("Array.from(state.pixels)")).reshape(28, 28))
    page.locator("#pad").focus()
    page.keyboard.press("Delete")
    page.wait_for_function("document.getElementById('told').textContent.startsWith('nothing')")
    for _ in range(6):
        page.keyboard.press("ArrowDown")
    page.wait_for_function("document.getElementById('told').textContent.startsWith('your drawing')")
    check_placed(np.array(page.evaluate("Array.from(state.pixels)")).reshape(28, 28))


def check_placed(pixels):
    """LeCun et al. 1998: 20 pixels for the longer side, the centre of mass in the middle of 28."""
    rows, columns = (np.flatnonzero((pixels > 0.1).any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20, 21)
    for axis in (0, 1):
        assert np.average(np.arange(28), weights=pixels.sum(axis=1 - axis)) == pytest.approx(14, abs=0.6)


@pytest.mark.parametrize("dark", [True, False])
def test_a_picture_of_a_digit_becomes_the_digit(page, workdir, tmp_path, dark):
    """A test image, five times as large, in a corner of a page that is lit from one side: as `--predict` reads it."""
    digit = np.asarray(restore(workdir).data.test.images[2])[:, :, 0]
    ink = np.asarray(Image.fromarray(digit).resize((140, 140), Image.Resampling.BICUBIC)) / 255.0
    sheet = np.zeros((300, 260))
    sheet[20:160, 90:230] = ink
    light = np.linspace(0.6, 1, 260)[None] if dark else 1.0
    grey = light * (1 - 0.9 * sheet) if dark else 0.9 * sheet
    Image.fromarray(np.uint8(255 * grey)).save(tmp_path / "digit.png")
    page.locator("#file").set_input_files(tmp_path / "digit.png")
    page.wait_for_function("document.getElementById('told').textContent.startsWith('digit.png')")
    assert ("dark ink" in page.locator("#told").text_content()) == dark
    seen = 255 * np.array(page.evaluate("Array.from(state.pixels)")).reshape(28, 28)
    framed = read(tmp_path / "digit.png", (28, 28, 1), frame=frame_of("mnist_5k")).pixels[:, :, 0]
    assert np.corrcoef(seen.ravel(), framed.ravel())[0, 1] > 0.98
    assert np.abs(seen - framed).mean() < 4


def test_what_is_no_picture_is_refused(page, tmp_path):
    (tmp_path / "note.txt").write_text("a note")
    page.locator("#file").set_input_files(tmp_path / "note.txt")
    page.wait_for_function("document.getElementById('told').textContent.startsWith('This is no picture')")
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    page.locator("#gallery button").first.click()
    page.locator("#file").set_input_files(tmp_path / "blank.png")
    page.wait_for_function("document.getElementById('told').textContent === 'blank.png shows no ink.'")
    assert page.locator("#gallery [aria-checked=true]").count() == 1  # the image that is still shown


def test_colour_images_are_not_drawn_but_dropped(visit, tmp_path, monkeypatch):
    net = network((16, 12, 3), 4, **TINY | {"data__dataset": "cifar10", "loss__reconstruction": False})
    monkeypatch.setattr(explorer, "ranked", lambda workdir, experiment: [net.record])
    monkeypatch.setattr(explorer, "restore_record", lambda _: net)
    page = visit(explorer.write_explorer(tmp_path))
    assert page.locator("#drawing").is_hidden()
    red = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 51)).save(red, "PNG")
    page.evaluate(DROP, list(red.getvalue()))
    page.wait_for_function("document.getElementById('told').textContent.startsWith('red.png')")
    np.testing.assert_allclose(page.evaluate("Array.from(state.pixels.slice(-3))"), [1, 0, 0.2], atol=0.01)
    assert "no decoder" in page.locator(".model").text_content()


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_and_the_dark(visit, workdir, width, scheme):
    page = visit(workdir / "explorer.html", viewport={"width": width, "height": 700}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    told = "(canvas) => canvas.ariaLabel || canvas.closest('button').ariaLabel"
    assert page.evaluate(f"[...document.querySelectorAll('canvas')].every({told})")
