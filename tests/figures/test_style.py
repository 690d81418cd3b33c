from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from capsnet_jax import figures
from capsnet_jax.figures import style
from tests.figures.synthetic import fake_record


def draw():
    return figures.learning_curves([fake_record(seed) for seed in range(3)], ["routing.name"])


def test_the_same_records_give_the_same_bytes(tmp_path):
    first = figures.save(draw(), tmp_path / "new" / "folder" / "a.png").read_bytes()
    second = figures.save(draw(), tmp_path / "b.png").read_bytes()
    assert first[:8] == b"\x89PNG\r\n\x1a\n"
    assert first == second
    assert b"tEXt" not in first  # neither date nor version


def test_saving_one_figure_twice_gives_the_same_bytes(tmp_path):
    figure = draw()
    first = figures.save(figure, tmp_path / "a.png").read_bytes()
    assert figures.save(figure, tmp_path / "a.png").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = figures.save(draw(), tmp_path / "a.png")
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        figures.save(draw(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_vectors_have_text_and_neither_date_nor_version(form, tmp_path):
    figure = draw()
    first = figures.save(figure, tmp_path / f"a.{form}").read_bytes()
    assert figures.save(draw(), tmp_path / f"b.{form}").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{form}", f"b.{form}"]
    if form == "svg":
        words = [element.text for element in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")]
        assert "validation error [%]" in words
    else:
        assert first.startswith(b"%PDF")
        assert b"/FontFile2" in first  # TrueType: text that can be selected
    assert b"Matplotlib v" not in first
    assert b"CreationDate" not in first
    assert b"<dc:date>" not in first


def test_other_formats(tmp_path):
    with pytest.raises(ValueError, match=r"written as png, svg, pdf, got 'a\.jpg'"):
        figures.save(draw(), tmp_path / "a.jpg")


def test_drawing_leaves_matplotlibs_settings_alone():
    before = dict(mpl.rcParams)
    draw()
    assert dict(mpl.rcParams) == before


def test_no_text_is_too_small_or_outside(tmp_path):
    figure = draw()
    figures.save(figure, tmp_path / "a.png")
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 9
    width, height = figure.get_size_inches() * figure.dpi
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def test_a_caption_as_wide_as_they_get_fits(tmp_path):
    figure = style.new_figure(2)
    figure.subplots()
    style.caption(figure, "mean of seeds and their Student t interval; " * 8)
    figures.save(figure, tmp_path / "a.png")
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= style.WIDTH * figure.dpi


def test_a_caption_is_made_of_what_there_is_to_say():
    figure = style.new_figure(2)
    style.caption(figure, "", "one image", "", "one network")
    assert figure.get_supxlabel() == "one image; one network"


def test_shades_go_from_dark_to_light():
    shades = [style.shade(index, 5) for index in range(5)]
    light = [sum(mpl.colors.to_rgb(colour)) for colour in shades]
    assert light == sorted(light)
    assert style.shade(0, 1) == shades[0]


def test_a_logarithmic_axis_has_plain_numbers():
    axes = style.new_figure(2).subplots()
    axes.set(xscale="log", xlim=(0.01, 30))
    style.log_ticks(axes.xaxis)
    axes.figure.draw_without_rendering()
    texts = [tick.get_text() for tick in axes.get_xticklabels()]
    assert {"0.01", "0.02", "0.05", "0.1", "10", "20"} <= set(texts)


def test_series_styles_do_not_repeat():
    styles = [tuple(style.series_style(index).values()) for index in range(28)]
    assert len(set(styles)) == 28
    assert len({colour for colour, _ in styles[:7]}) == 7


def test_legend_holds_every_series_once():
    figure = style.new_figure(2)
    panels = figure.subplots(1, 2)
    for axes, names in zip(panels, ("ab", "bc"), strict=True):
        for name in names:
            axes.plot([0, 1], label=name)
    style.legend(figure, panels)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert np.all([axes.get_legend() is None for axes in panels])
