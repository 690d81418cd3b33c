"""report.html: workdirs as one page that opens from the disk, with everything in it.

It tells what the Markdown pages tell, made of the same parts, with failures first, learning curves that can be hovered,
and every run with its settings, environment and the command that repeats it.
"""

import base64
import contextlib
import html
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from markdown_it import MarkdownIt
from PIL import Image

from capsnet_jax.config import ConfigError
from capsnet_jax.figures.labels import dataset_label, setting_label
from capsnet_jax.report.grouping import group, shown_paths
from capsnet_jax.report.pages import Page, findings
from capsnet_jax.sweeps.files import write_text
from capsnet_jax.sweeps.records import Record

FILE = "report.html"
DIGITS = 5  # of numbers in the page


def write_report(composed: Mapping[Path, Sequence[Page]]) -> Path:
    """Write `report.html` into the first of some workdirs; it tells of all of them, one after the other.

    Args:
        composed: {workdir: its pages, as `pages.compose` makes them}; figures are PNG files of the workdir.

    Returns:
        The file.
    """
    parts: list[str] = []
    data: list[dict[str, Any]] = []
    links: list[str] = []
    for workdir, pages in composed.items():
        for page in pages:
            title = page.name if len(composed) == 1 else f"{page.name} in {workdir}"
            anchor = f"section{len(links)}"
            links.append(f'<a href="#{anchor}">{html.escape(title)}</a>')
            parts.append(f'<section id="{anchor}" aria-label="{html.escape(title)}">')
            parts += [f"<h1>{html.escape(title)}</h1>", *_section(page, workdir, len(data))]
            data.append(_data(page.runs, page.swept))
            parts.append("</section>")
    nav = f"<nav aria-label='experiments'>{' '.join(links)}</nav>" if len(links) > 1 else ""
    title = ", ".join(str(workdir) for workdir in composed)
    path = next(iter(composed)) / FILE
    text = page_of(title, nav + f"<main>{''.join(parts)}</main>", data, name="report")
    write_text(path, text)
    return path


def page_of(title: str, body: str, data: Any, *, name: str, scripts: Sequence[str] = ()) -> str:
    """Return a page that needs no other file.

    Args:
        title: of the window.
        body: HTML.
        data: what its script reads, as JSON.
        name: of its style sheet and script in the folder `web`, beside the style that all pages share.
        scripts: of that folder too, which come before its own.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    whole = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{asset('page.css')}{asset(f'{name}.css')}</style></head><body>"
        f'{body}<script type="application/json" id="data">{text}</script>'
        + "".join(f"<script>{asset(script)}</script>" for script in (*scripts, f"{name}.js"))
        + "</body></html>\n"
    )
    return whole.encode("utf-8", "replace").decode()  # a folder's name need not be text


def asset(name: str) -> str:
    """Return the text of a file of the folder `web`."""
    return (resources.files("capsnet_jax.report") / "web" / name).read_text(encoding="utf-8")


def _section(page: Page, workdir: Path, number: int) -> list[str]:
    """Return what is told of an experiment: question, failures, prose, findings, tables, curves, figures, runs."""
    parts = [to_html(f"**{page.question}**"), *_failures(page.runs, page.swept), to_html(page.prose)]
    with contextlib.suppress(ConfigError):  # a file of another kind of that name
        if written := findings(workdir / f"{page.name}.md").strip():
            parts.append(f"<h2>Findings</h2>{_embed(to_html(written), workdir)}")
    parts.append(to_html("\n\n".join(page.results)))
    if page.runs:
        parts.append(f'<h2>Learning curves</h2><div class="curves" data-curves="{number}"></div>')
    parts.append(_embed(to_html("\n\n".join(page.figures)), workdir))
    if page.runs:
        parts.append(f'<h2>Every run</h2><div data-runs="{number}"></div>')
    return parts


def _failures(runs: Sequence[Record], swept: Sequence[str]) -> list[str]:
    """Return a list of the runs whose loss was no longer finite; nothing if there is none."""
    names = _setting_names(runs, swept)
    failed = []
    for record in runs:
        if record.diverged:
            setting = f"{dataset_label(record.settings['data.dataset'])}: {names[record.name]}, seed {record.seed}"
            step = int(record.result["diverged_step"])
            failed.append(f"<li>{html.escape(setting)}: not finite from step {step} on</li>")
    title = f"<b>{len(failed)} of {len(runs)} runs diverged</b>"
    return [f'<div class="failures">{title}<ul>{"".join(failed)}</ul></div>'] if failed else []


def _setting_names(runs: Sequence[Record], swept: Sequence[str]) -> dict[str, str]:
    """Return for each run what tells its setting from the others', in words."""
    paths = [path for path in shown_paths(runs, swept) if path != "data.dataset"]
    by = [path for path in paths if len({json.dumps(record.settings.get(path)) for record in runs}) > 1]
    return {record.name: setting_label(by, [record.settings.get(path) for path in by]) for record in runs}


def _data(runs: Sequence[Record], swept: Sequence[str]) -> dict[str, Any]:
    """Return what the page's script reads of an experiment's runs."""
    names, settings = _setting_names(runs, swept), [list(each.runs.values()) for each in group(runs, swept)]
    number = {record.name: index for index, members in enumerate(settings) for record in members}
    firsts = [members[0] for members in settings]
    labels = [{"name": names[r.name], "dataset": dataset_label(r.settings["data.dataset"])} for r in firsts]
    environments = list({json.dumps(r.environment, sort_keys=True): r.environment for r in runs}.values())
    first = runs[0].settings if runs else {}
    common = {p: v for p, v in first.items() if all(p in r.settings and r.settings[p] == v for r in runs)}
    return {
        "settings": labels,
        "common": common,
        "environments": environments,
        "runs": [
            {
                "name": record.name,
                "seed": record.seed,
                "setting": number[record.name],
                "diverged": int(record.result["diverged_step"]),
                "command": record.command,
                "revision": record.revision,
                "environment": environments.index(record.environment),
                "settings": {path: value for path, value in record.settings.items() if path not in common},
                "result": {name: _number(value) for name, value in record.result.items()},
                "metrics": {name: [_number(v) for v in np.ravel(values)] for name, values in record.metrics.items()},
            }
            for record in runs
            if record.name in number
        ],
    }


def _number(value: Any) -> Any:
    """Return a number with as many digits as are read; None for one that is not finite, which JSON lacks."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.{DIGITS}g}")


def to_html(markdown: str) -> str:
    """Return Markdown as HTML, without the links to other files of the workdir, which need not be beside the page."""
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return re.sub(r'<a href="(?![a-z]+:|#)[^"]*">(.*?)</a>', r"\1", made)


def img(picture: Image.Image, alt: str) -> str:
    """Return a picture as an `img` element that holds it.

    Args:
        picture: it need not be read yet.
        alt: what it shows, as HTML.
    """
    packed = io.BytesIO()
    picture.save(packed, "WEBP", lossless=True, method=1)
    source = base64.b64encode(packed.getvalue()).decode()
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img loading="lazy" src="data:image/webp;base64,{source}" alt="{alt}" {size}>'


def _embed(text: str, folder: Path) -> str:
    """Put the pictures that `img` elements name into the page; one that is not there leaves its words."""

    def embedded(match: re.Match[str]) -> str:
        file, words = folder / unquote(html.unescape(match["file"])), match["words"]
        if not file.is_file():
            return f"<span>{words}</span>"
        try:
            return img(Image.open(file), words)
        except Exception:  # a damaged file can raise anything
            return f"<span>{words}: {file.name} is damaged; --figures_only draws it again</span>"

    return re.sub(r'<img src="(?P<file>[^":]*)" alt="(?P<words>[^"]*)"[^>]*>', embedded, text)
