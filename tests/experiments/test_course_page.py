from pathlib import Path

import pytest

from experiments.course import build, page
from experiments.course.page import Excerpt, Page


def test_what_was_measured_is_the_mean_of_the_records():
    told = page.measured(
        "transfer_cases", {"data.train_size": "100", "data.transform": "rotated", "train.frozen": "conv1+conv2"}
    )
    assert told == "6.59 ± 0.27 %"  # as the page of that experiment says: 6.6 ± 0.3
    assert page.measured("transfer_cases", {"data.train_size": "7"}) == "(not there)"


def test_figures_that_are_not_there_leave_words(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "FIGURES", tmp_path / "figures")
    assert "a cat" in page.saved("cats", "a cat")
    assert "<img" not in page.saved("cats", "a cat")
    assert page.measured("cats", {}) == "(not there)"


def test_commands_can_be_typed_whatever_the_workdir_is_called():
    one = Page("Title", "Text.", [], [], ["--workdir={workdir} --inspect=couplings"])
    assert "--workdir=&#x27;my runs&#x27; --inspect" in build.section(one, "title", "Chapter", Path("my runs"))


def test_a_place_that_cannot_be_written_is_told_before_any_page_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CHAPTERS", {"Chapter": [lambda material: pytest.fail("a page was made")]})
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        build.write(tmp_path / "file" / "course")
    monkeypatch.setattr(build.os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        build.write(tmp_path)


def documented():
    """Say much.

    And more.
    """
    first = 1
    second = 2
    return first + second


def test_excerpts_are_lines_of_the_source():
    assert (
        page.lines_of(Excerpt(documented))
        == "def documented():\n    first = 1\n    second = 2\n    return first + second"
    )
    assert page.lines_of(Excerpt(documented, "second", "return")) == "second = 2\nreturn first + second"
    assert page.place_of(Excerpt(documented)) == "tests/experiments/test_course_page.py: documented"
    with pytest.raises(ValueError, match="documented has no lines from 'third' to ''"):
        page.lines_of(Excerpt(documented, "third"))
    with pytest.raises(ValueError, match="documented has no lines"):
        page.lines_of(Excerpt(documented, "return", "first ="))
