"""A table as rows of text, which the terminal and Markdown show alike."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """What a person reads; every row has a text for each heading.

    Attributes:
        title: one line; may be empty.
        header: the columns' headings.
        rows: the texts.
        notes: sentences that stand below.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def to_text(table: Table) -> str:
    """Return a table for the terminal."""
    rows = align([table.header, *table.rows], rule=True) if table.rows else ""
    return "\n".join([*filter(None, [table.title, rows]), *table.notes])


def to_markdown(table: Table) -> str:
    """Return a table as Markdown."""
    rows = [table.header, ["---"] * len(table.header), *table.rows] if table.rows else []
    lines = ["| " + " | ".join(map(_escape, row)) + " |" for row in rows]
    blocks = [f"**{table.title}**" if table.title else "", "\n".join(lines), *table.notes]
    return "\n\n".join(filter(None, blocks))


def _escape(text: str) -> str:
    """Keep a name's characters from being read as Markdown, HTML or mathematics."""
    return re.sub(r"([\\|`*$<])", r"\\\1", text)


def align(rows: Sequence[Sequence[str]], *, rule: bool = False) -> str:
    """Put columns under each other, with a rule under the first row if asked for; "" without rows."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], *(["  ".join("-" * width for width in widths)] if rule else []), *lines[1:]])
