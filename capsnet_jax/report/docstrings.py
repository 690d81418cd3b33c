"""An experiment's docstring as Markdown: its first line is the question, indented lines are commands or plain text."""

import inspect
import re
import textwrap
from collections.abc import Iterable
from itertools import groupby
from types import ModuleType

WIDTH = 100  # characters of a command; the rest goes on in the next line


def question_and_prose(module: ModuleType) -> tuple[str, str]:
    """Return the first line of a module's docstring, and what follows it as Markdown."""
    question, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
    blocks: list[str] = []
    for indented, lines in groupby(_paragraphs(rest), lambda lines: lines[0].startswith("    ")):
        if indented:
            blocks.append(_indented("\n\n".join("\n".join(paragraph) for paragraph in lines)))
        else:
            blocks += ["\n".join(paragraph) for paragraph in lines]
    return question, "\n\n".join(blocks)


def code_block(commands: Iterable[str]) -> str:
    """Return shell commands as Markdown; long ones go on in the next line."""
    return "\n".join(["```bash", *map(_wrap, commands), "```"])


def _paragraphs(text: str) -> list[list[str]]:
    """Split at empty lines, and where indented lines begin or end."""
    paragraphs: list[list[str]] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        paragraphs += [list(part) for _, part in groupby(lines, lambda line: line.startswith("    "))]
    return paragraphs


def _indented(text: str) -> str:
    """Return indented lines as a block of commands, or of plain text."""
    text = textwrap.dedent(text).strip("\n")
    if text.startswith(("python ", "pip ")):
        # A command that goes on in the next line is one line here: Python has joined those, or the backslash stands.
        joined = re.sub(r"\s*\\\n\s*", " ", text)
        return code_block(re.sub(r" {2,}", " ", line) for line in joined.splitlines())
    return f"```text\n{text}\n```"


def _wrap(command: str) -> str:
    """Break a long command before a flag; one with quotes is left as it is."""
    if "'" in command or '"' in command:
        return command
    joined = re.sub(r"(--\w+) (?!-)", "\\1\0", command)  # a flag stays with its value
    lines = textwrap.wrap(joined, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines).replace("\0", " ")
