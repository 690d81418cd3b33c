"""The pages in their order, and the file that holds them."""

import errno
import html
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from capsnet_jax.report.html import page_of, to_html
from capsnet_jax.sweeps.files import make_folder, write_text
from capsnet_jax.sweeps.interrupt import check
from experiments.course import (
    capsnets,
    capsules,
    convolution,
    deeper,
    imagenet,
    inside,
    made,
    pooling,
    practice,
    routing,
)
from experiments.course.material import Material
from experiments.course.page import FIGURES, Page, lines_of, place_of

WORKDIR = Path("runs/course")
FILE = "course.html"
WIDE = 84  # characters of a line, beside which no others fit
NAME = "Convolutional networks and capsules"

CHAPTERS: dict[str, Sequence[Callable[[Material], Page]]] = {
    "Convolution": (convolution.images, convolution.kernel, convolution.features, convolution.hyperparameters),
    "Pooling and fully connected layers": (pooling.pool, pooling.connected, pooling.invariance),
    "ImageNet": (
        imagenet.classification,
        imagenet.errors,
        imagenet.alexnet,
        imagenet.vgg,
        deeper.inception,
        deeper.residual,
        deeper.densenet,
    ),
    "Practice": (practice.transfer,),
    "Looking inside": (
        inside.activations,
        inside.red,
        inside.parts,
        inside.weights,
        inside.dead,
        made.heat_maps,
        made.deep_dream,
        made.maximal,
        made.reconstruction,
    ),
    "Capsules": (
        capsules.limits,
        capsules.capsule,
        capsules.squashing,
        routing.routing,
        capsnets.capsnet,
        capsnets.mnist,
        capsnets.fashion,
    ),
    "Backstage": (routing.backpropagation, routing.others, routing.memory),
}


def write(workdir: Path = WORKDIR, stop: Callable[[], int | None] = lambda: None) -> Path:
    """Make all pages and write them as one file, which needs no other.

    Args:
        workdir: where it is written, and where the nets are that it trains; those that are there are used again.
        stop: as of `Plan`; asked before every page.

    Returns:
        The file.

    Raises:
        OSError: it cannot be written.
    """
    make_folder(workdir)
    if not os.access(workdir, os.W_OK):  # told now, and not when all pages are made
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(workdir))
    if not FIGURES.is_dir():
        print(f"{FIGURES} is not there, which comes with a checkout; its figures are left out", flush=True)
    material, number, links, sections = Material(workdir, stop), 0, [], []
    for chapter, pages in CHAPTERS.items():
        links.append(f"<h2>{html.escape(chapter)}</h2><ol start={number + 1}>")
        for make in pages:
            check(stop)
            page, number = make(material), number + 1
            anchor = re.sub(r"\W+", "-", page.title.lower()).strip("-")
            links.append(f'<li><a href="#{anchor}">{html.escape(page.title)}</a></li>')
            sections.append(section(page, anchor, chapter, workdir))
            print(f"{number:2} {page.title}", flush=True)
        links.append("</ol>")
    cover = (
        f'<section class="page" id="contents" aria-label="Contents"><h1>{NAME}</h1>{to_html(INTRODUCTION)}'
        f'<nav class="contents" aria-label="Contents">{"".join(links)}</nav></section>'
    )
    path = workdir / FILE
    write_text(path, page_of(NAME, f"{BAR}<main>{cover}{''.join(sections)}</main>", None, name="course"))
    return path


def section(page: Page, anchor: str, chapter: str, workdir: Path) -> str:
    """Return a page as HTML: words and commands, what is shown, and the lines that did it."""
    code = ""
    for each in page.code:
        lines = lines_of(each)
        wide = ' class="wide"' if max(map(len, lines.splitlines())) > WIDE else ""
        code += f"<figure{wide}><figcaption>{html.escape(place_of(each))}</figcaption>"
        code += f'<pre tabindex="0"><code>{html.escape(lines)}</code></pre></figure>'
    place = shlex.quote(str(workdir))
    commands = "\n".join(f"python launch.py {flags.format(workdir=place)}" for flags in page.commands)
    return (
        f'<section class="page" id="{anchor}" aria-label="{html.escape(page.title)}">'
        f'<p class="chapter">{html.escape(chapter)}</p><h1>{html.escape(page.title)}</h1>'
        f'<div class="sheet"><div class="words">{to_html(page.text)}'
        f'<h2>See more</h2><pre class="commands" tabindex="0"><code>{html.escape(commands)}</code></pre></div>'
        f'<div class="shown">{"".join(page.shown)}</div>'
        f'<div class="code"><h2>The lines that did it</h2>{code}</div></div></section>'
    )


INTRODUCTION = """A picture book to a course on convolutional networks and capsules: the pages of its slides, in our
own words. Every page has a figure or a number that this project's code computed, on real images, the lines that did
it, taken from the source when this file was made, and a command that shows more.

The arrow keys ← and →, or Page Up and Page Down, turn the pages; *Contents* leads back here. Three pages can be moved
by hand: the filter that slides, the squash, and the votes that are routed."""

BAR = (
    '<nav class="bar" aria-label="Pages"><a href="#contents">Contents</a><span id="where" aria-live="polite"></span>'
    '<span class="turn"><button type="button" id="back" aria-label="page before">←</button>'
    '<button type="button" id="on" aria-label="next page">→</button></span></nav>'
)
