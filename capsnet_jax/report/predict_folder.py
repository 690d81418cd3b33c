"""What a trained model says of every picture in a folder, as a table."""

import collections
import csv
import io
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from capsnet_jax.data.arrays import DataError, note
from capsnet_jax.data.folder import MANY, files_below
from capsnet_jax.interpret.examples import to_pixels
from capsnet_jax.interpret.network import Network
from capsnet_jax.report.answers import RULE, Answer, answer, scores_of
from capsnet_jax.report.predict import own_name, read_picture
from capsnet_jax.sweeps.files import write_text

BATCH = 64
MOST = 100_000  # files; who asks for more has named another folder than was meant
NAMED = 5  # files that are no pictures, and classes

# Not `Network.outputs`: all layers of a conv net, of so many pictures, would not fit into memory.
_scores = jax.jit(lambda forward, images: scores_of(forward(images)))


class Predictions(NamedTuple):
    """What is said of a folder's pictures.

    Attributes:
        text: what to print: how many pictures are of which class, how many answers are unsure, and what is no picture.
        table: as CSV, a row for each file.
        path: where the table belongs.
    """

    text: str
    table: str
    path: Path

    def save(self) -> Path:
        """Write the table, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        write_text(self.path, self.table)
        return self.path


def predict_folder(
    folder: Path | str, net: Network, place: Path, *, invert: bool = False, as_is: bool = False
) -> Predictions:
    """Classify every picture in a folder and in the folders below.

    The table has a row for each file: `file` (below the folder), `class`, `confidence`, `unsure` (yes or no), the five
    best classes and their scores, and `problem`: why a file could not be read as a picture.

    Args:
        folder: what is in it; `~` stands for the home directory.
        net: the network.
        place: the folder that the table belongs into.
        invert: as of `predict`.
        as_is: as of `predict`.

    Raises:
        DataError: no picture is in it.
    """
    root = Path(os.path.expanduser(folder))
    hidden: list[Path] = []
    files = _find(root, hidden)
    problems = dict.fromkeys(hidden, "hidden, or a link to nothing or back")
    answers: dict[Path, Answer] = {}
    size = min(BATCH, len(files))
    pictures = _pictures(files, net, problems, invert, as_is)
    while chunk := list(islice(pictures, size)):
        paths, images = zip(*chunk, strict=True)
        # The last batch is filled up, so that all are of one size and one program.
        stacked = np.stack(images + images[-1:] * (size - len(images)))
        scores = np.asarray(_scores(net.forward, to_pixels(stacked)))
        answers |= {path: answer(row, net) for path, row in zip(paths, scores, strict=False)}
    if not answers:
        if not problems:
            raise DataError(f"{root} holds no file; name a folder of pictures")
        reason = next(iter(problems.values()))
        raise DataError(f"{root}: none of its {len(problems)} files can be read as a picture ({reason}); name others")
    path = place / f"predictions-{own_name(root)}.csv"
    return Predictions(_describe(root, net, answers, problems), _table(root, answers, problems), path)


def _find(root: Path, hidden: list[Path]) -> list[Path]:
    """Return the files in a folder and in those below; add what is hidden to `hidden`."""
    try:
        whole = root.resolve().parent == root.resolve()  # the root of all files, in which devices are
        files = [] if whole else sorted(islice(files_below(root, hidden), MOST + 1))
    except OSError as error:
        raise DataError(f"{root} cannot be read: {error}; mend that") from error
    if whole or len(files) > MOST:
        raise DataError(f"{root} holds too many files: name a folder of pictures, at most {MOST:,}")
    if len(files) > MANY:
        note(f"{root}: reading {len(files):,} files")
    return files


def _pictures(
    files: Sequence[Path], net: Network, problems: dict[Path, str], invert: bool, as_is: bool
) -> Iterator[tuple[Path, UInt8[np.ndarray, "height width channels"]]]:
    """Yield the files that are pictures; note why the others are none."""
    for path in files:
        try:
            yield path, read_picture(path, net, invert=invert, as_is=as_is).pixels
        except DataError as error:
            problems[path] = str(error)


def _describe(root: Path, net: Network, answers: dict[Path, Answer], problems: dict[Path, str]) -> str:
    counts = collections.Counter(each.label for each in answers.values()).most_common()
    unsure = sum(bool(each.unsure) for each in answers.values())
    lines = [f"{root.name or root}: {len(answers):,} pictures", f"  by {net.name}"]
    lines.append("  " + ", ".join(f"{label}: {n:,}" for label, n in counts[:20]) + (", …" if len(counts) > 20 else ""))
    lines.append(f"  {unsure:,} answers are unsure ({RULE})")
    if problems:
        named = [" ".join(os.fspath(path.relative_to(root)).splitlines()) for path in list(problems)[:NAMED]]
        more = f" and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
        lines.append(f"  {len(problems):,} files are no pictures: {', '.join(named)}{more}; the table says why")
    return "\n".join(lines)


def _table(root: Path, answers: dict[Path, Answer], problems: dict[Path, str]) -> str:
    """Return a row for each file, as CSV."""
    listed = max(len(each.top) for each in answers.values())
    header = ["file", "class", "confidence", "unsure"]
    header += [f"{what}_{place}" for place in range(1, listed + 1) for what in ("class", "score")]
    rows: dict[Path, list[Any]] = {path: [""] * (len(header) - 1) + [reason] for path, reason in problems.items()}
    for path, said in answers.items():
        top = [part for name, score in said.top for part in (name, f"{score:.4f}")]
        rows[path] = [said.label, f"{said.confidence:.4f}", "yes" if said.unsure else "no", *top, ""]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*header, "problem"])
    for path in sorted(rows):
        writer.writerow([path.relative_to(root), *rows[path]])
    # Names, and what tells of them, need not be text.
    return os.fsencode(buffer.getvalue()).decode(errors="backslashreplace")
