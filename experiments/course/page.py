"""What a page is made of, and the parts of it as HTML: pictures, tables, things to move by hand, and code."""

import ast
import csv
import html
import inspect
import io
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from PIL import Image

import capsnet_jax.figures.style as style
from capsnet_jax.report.html import img
from capsnet_jax.statistics import mean_interval

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "experiments" / "results" / "figures"


class Excerpt(NamedTuple):
    """Lines of the source.

    Attributes:
        of: a function or a class.
        first: what stands in the first line that is shown; "": the first of all.
        last: what stands in the last one.
    """

    of: Callable[..., Any]
    first: str = ""
    last: str = ""


class Page(NamedTuple):
    """A page of the course.

    Attributes:
        title: its name.
        text: a few sentences, Markdown.
        shown: figures, tables and things to move, each as HTML.
        code: the lines that did it.
        commands: flags of launch.py that show more.
    """

    title: str
    text: str
    shown: Sequence[str]
    code: Sequence[Excerpt]
    commands: Sequence[str]


@style.styled
def drawn(figure: Figure, alt: str) -> str:
    """Return a figure as an element."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi)
    return img(Image.open(file).convert("RGB"), html.escape(alt))


def saved(name: str, alt: str) -> str:
    """Return a figure of `experiments/results`, which took longer than a page should, as an element.

    Where it is missing, as in a package without the checkout, its words stand in its place.
    """
    file = FIGURES / f"{name}.png"
    if not file.is_file():
        return f'<p class="missing">{html.escape(alt)} ({name}.png is not there; it comes with a checkout)</p>'
    source = f'<p class="quiet">From <code>{file.relative_to(ROOT)}</code></p>'
    return img(Image.open(file), html.escape(alt)) + source


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; the first cell of a row is its name."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(str(row[0]))}</th>'
        + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(text: str) -> str:
    """Return a table that is aligned text."""
    return f'<pre class="aligned" tabindex="0">{html.escape(text)}</pre>'


def movable(kind: str, values: Any, words: str) -> str:
    """Return something to move by hand, which `course.js` makes.

    Args:
        kind: "kernel", "squash" or "routing".
        values: what it is made of, as JSON.
        words: what stands there on paper.
    """
    data = html.escape(json.dumps(values, separators=(",", ":"), allow_nan=False))
    return f'<div class="movable" data-{kind}="{data}"><p class="fallback">{html.escape(words)}</p></div>'


def lines_of(excerpt: Excerpt) -> str:
    """Return the lines of an excerpt, without the docstring.

    Raises:
        ValueError: nothing stands there that begins or ends so.
    """
    lines = textwrap.dedent(inspect.getsource(excerpt.of)).splitlines()
    first = ast.parse("\n".join(lines)).body[0].body[0]  # type: ignore[attr-defined]  # a function or a class
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        end = first.end_lineno or first.lineno
        del lines[first.lineno - 1 : end + (not lines[end : end + 1] or not lines[end].strip())]
    begin = next((n for n, line in enumerate(lines) if excerpt.first in line), None)
    stop = next(
        (n for n, line in enumerate(lines) if n >= (begin or 0) and excerpt.last and excerpt.last in line), None
    )
    if begin is None or (excerpt.last and stop is None):
        raise ValueError(f"{excerpt.of.__qualname__} has no lines from {excerpt.first!r} to {excerpt.last!r}")
    return textwrap.dedent("\n".join(lines[begin : len(lines) if stop is None else stop + 1])).strip("\n")


def place_of(excerpt: Excerpt) -> str:
    """Return the file and the name of what an excerpt is of."""
    file = Path(inspect.getsourcefile(inspect.unwrap(excerpt.of)) or "")
    return f"{file.relative_to(ROOT)}: {excerpt.of.__qualname__}"


def recorded(file: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of `experiments/results`; none where it is missing."""
    path = FIGURES.parent / f"{file}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def measured(file: str, settings: Mapping[str, str], quantity: str = "test_error") -> str:
    """Return the mean over seeds of what a CSV file records in percent, with its 95 % interval."""
    rows = [row for row in recorded(file) if all(row[name] == value for name, value in settings.items())]
    if not rows:
        return "(not there)"
    estimate = mean_interval([float(row[quantity]) for row in rows])
    return f"{estimate.mean:.2f} ± {estimate.half_width:.2f} %" if estimate.mean else "none"
