"""A workdir's records as Markdown: a page for each experiment, and README.md with a line for each page.

Pages are made of records, the figures that are there already, and the experiments' docstrings, and of nothing else: the
same records give the same bytes. What a person writes between a page's two markers is kept.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import quote

from capsnet_jax.config import ConfigError
from capsnet_jax.report.docstrings import code_block, question_and_prose
from capsnet_jax.report.render import Table, to_markdown
from capsnet_jax.report.tables import all_tables, count_runs, describe_revisions, with_counts, write_csv, write_rows
from capsnet_jax.sweeps import records
from capsnet_jax.sweeps.files import write_text
from capsnet_jax.sweeps.records import Record

BEGIN, END = "<!-- findings -->", "<!-- /findings -->"
NOTICE = "<!-- Made by `python launch.py --report`, which keeps what stands between the markers of findings. -->"
FILES = """`runs.jsonl` holds a line for every finished run: settings, seed, command, environment, code, result, and \
the metrics of each epoch. `experiments.jsonl` says which runs an experiment asked for. `<experiment>.csv` has a row \
for each setting and seed; every mean and interval here can be computed from it. `<experiment>-observed.csv` has what \
was counted on trained networks, if there is more. `figures/` holds the pictures.

To draw the figures again, and to write these pages again:

```bash
python launch.py --figures_only --experiment=NAME --workdir=DIR
python launch.py --report --workdir=DIR
```"""


class Page(NamedTuple):
    """What there is to tell of an experiment of a workdir, in Markdown.

    Attributes:
        name: of the experiment.
        question: the first line of its docstring.
        prose: the rest of it.
        extent: how many runs there are, in words.
        results: the parts on tables and runs.
        figures: the parts on figures.
        runs: the finished runs; [] of an experiment that measures.
        swept: paths swept with them.
    """

    name: str
    question: str
    prose: str
    extent: str
    results: list[str]
    figures: list[str]
    runs: list[Record]
    swept: list[str]


def write(workdir: Path, pages: Sequence[Page]) -> list[Path]:
    """Write the pages of a workdir, and README.md.

    Args:
        workdir: where to.
        pages: as `compose` makes them of it.

    Returns:
        The files, README.md first.

    Raises:
        ConfigError: an existing file lacks the markers, so that text of a person's would be lost. No page is changed.
    """
    rows = [[f"[{page.name}]({page.name}.md)", page.question, page.extent] for page in pages]
    overview = to_markdown(Table("", ["experiment", "question", "runs"], rows, []))
    readme = workdir / "README.md"
    texts = {readme: _page(["# Results", overview], findings(readme), ["## Files", FILES])}
    for page in pages:
        above = [f"# {page.name}", f"**{page.question}**", page.prose]
        path = workdir / f"{page.name}.md"
        texts[path] = _page(above, findings(path), [*page.results, *page.figures])
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def compose(workdir: Path, experiments: Mapping[str, ModuleType]) -> list[Page]:
    """Return a page for each experiment that a workdir has results of, and write their CSV files. No figure is drawn.

    Args:
        workdir: holds records, and figures as `--figures_only` draws them.
        experiments: modules by name, in the order of README.md. CONFIG, SWEEP and figures are as always; BASELINE
          {path: value} and CAPTIONS {figure's title, or its beginning: caption} are optional, and so are the two
          functions that `observed_tables` needs.

    Raises:
        ConfigError: the workdir has no results.
    """
    pages = []
    for name, module in experiments.items():
        runs: list[Record] = []
        swept: list[str] = []
        if hasattr(module, "report"):
            extent, results = _measured(workdir, name, module)
        else:
            runs, swept = records.load(workdir, name)
            extent, results = _trained(workdir, name, module, runs, swept)
        if results:
            question, prose = question_and_prose(module)
            figures = _figures(workdir, name, module)
            pages.append(Page(name, question, prose, extent, results, figures, runs, swept))
    if not pages:
        raise ConfigError(f"no results in {workdir}; name the --workdir of finished runs")
    return pages


def _page(above: Sequence[str], findings: str, below: Sequence[str]) -> str:
    """Join a page's parts; the findings have a heading if there are any."""
    heading = ["## Findings"] if findings.strip() else []
    parts = [above[0], NOTICE, *above[1:], *heading, f"{BEGIN}{findings}{END}", *below]
    return "\n\n".join(part for part in parts if part) + "\n"


def findings(path: Path) -> str:
    """Return what a person has written between the markers of an existing page, to the byte.

    Raises:
        ConfigError: it has no markers, or is no text in UTF-8.
    """
    if not path.exists():
        return "\n"
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not in UTF-8; save it so, or move it away") from error
    start, end = text.find(BEGIN), text.rfind(END)
    if start < 0 or end < start:
        remedy = f"put {BEGIN} and {END} around what is to be kept, or move the file away"
        raise ConfigError(f"{path} would be replaced, but has no markers: {remedy}")
    return text[start + len(BEGIN) : end]


def _trained(
    workdir: Path, name: str, module: ModuleType, runs: Sequence[Record], swept: Sequence[str]
) -> tuple[str, list[str]]:
    """Write the CSV file; return how many runs there are, and a page's parts that tell of them; [] without runs."""
    if not runs:
        return "", []
    results = with_counts(runs, module)
    write_csv(workdir / f"{name}.csv", results, swept)
    tables = all_tables(results, swept, getattr(module, "BASELINE", {}))
    facts = [
        f"{count_runs(len(results))}, seeds {_ranges(record.seed for record in results)}",
        f"code of revision {describe_revisions(results)}",
        f"machines: {_tally(_machine(record) for record in results)}",
        f"each run's results: [{name}.csv]({name}.csv)",
    ]
    # Runs that another experiment trained are used too; a command of this experiment says more.
    commands = sorted((r.command for r in results if r.command), key=lambda c: f"--experiment={name} " not in c)
    alone = ["`runs.jsonl` holds the command that trains a run alone, for example:", code_block(commands[:1])]
    tables += observed_tables(workdir, name, module, results)
    parts = ["## Results", *map(to_markdown, tables), "## Runs", "\n".join(f"- {fact}" for fact in facts)]
    return count_runs(len(results)), [*parts, *(alone if commands else [])]


def observed_tables(workdir: Path, name: str, module: ModuleType, results: Sequence[Record]) -> list[Table]:
    """Write what an experiment observed of its runs as a CSV file, and return its tables; [] where it has none.

    Args:
        workdir: where the file is written, as `<experiment>-observed.csv`.
        name: of the experiment.
        module: of the experiment. `observed_rows(records)` are rows of {column: value}, and `observed_tables(rows)` the
            tables made of them, if any are.
        results: its finished runs.
    """
    rows = module.observed_rows(results) if hasattr(module, "observed_rows") else []
    if not rows:
        return []
    write_rows(workdir / f"{name}-observed.csv", rows)
    return module.observed_tables(rows) if hasattr(module, "observed_tables") else []


def _measured(workdir: Path, name: str, module: ModuleType) -> tuple[str, list[str]]:
    """Write the CSV file; return what stands for the runs of an experiment that measures, and its text; [] without."""
    text, measured = module.report(workdir)
    if not measured:
        return "measured", []
    write_text(workdir / f"{name}.csv", module.to_csv(measured))
    return "measured", ["## Results", f"```text\n{text}\n\n{name}.csv\n```"]


def _figures(workdir: Path, name: str, module: ModuleType) -> list[str]:
    """Return an experiment's pictures, each with its caption, in the order of its captions."""
    captions: dict[str, str] = getattr(module, "CAPTIONS", {})
    titles = sorted(path.stem.removeprefix(f"{name}-") for path in (workdir / "figures").glob(f"{name}-*.png"))
    keys = [*captions, ""]  # "" is the key of figures without a caption, which come last
    key_of = {title: next(key for key in keys if not key or f"{title}-".startswith(f"{key}-")) for title in titles}
    parts = ["## Figures"] if titles else []
    for title in sorted(titles, key=lambda title: keys.index(key_of[title])):
        words, key = _words(title), key_of[title]
        caption = f"{words}: {captions[key]}" if key else words
        parts += [f"![{words}](figures/{quote(f'{name}-{title}.png')})", f"*{caption}*"]
    return parts


def _words(title: str) -> str:
    """Return a figure's title in words: "changes-fashion_mnist" is "Changes (fashion_mnist)"."""
    what, *which = title.split("-")
    text = what.replace("_", " ")
    return text[:1].upper() + text[1:] + (f" ({', '.join(which)})" if which else "")


def _machine(record: Record) -> str:
    """Return what a run was trained on."""
    known = record.environment
    cores = f"{known['cores']} cores" if known.get("cores") else ""
    version = known.get("packages", {}).get("jax")
    parts = [known.get("device"), cores, known.get("platform"), f"JAX {version}" if version else ""]
    return ", ".join(filter(None, parts)) or "unknown"


def _tally(texts: Iterable[str]) -> str:
    return "; ".join(f"{text} ({count_runs(n)})" for text, n in Counter(texts).items())


def _ranges(seeds: Iterable[int]) -> str:
    """Return whole numbers with runs of them joined: "0 to 4, 7"."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
