"""A table of the record, as Markdown and as HTML, and how its cells write numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.support.verdicts import FAILED, HOLDS
from theory.verification.tables import number

COMMAND = "python "
_NUMBER = re.compile(r"-?[\d.,e+-]+( ?\[[\d.,e+ -]+\])?|-")
#: Letters from which a cell is text to be read, not looked up.
_LONG = 60


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; ``note`` is a line below."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        """A Markdown table, its title in bold above."""
        if not self.rows:
            return f"**{_mark(self.title)}**: nothing yet."
        lines = [f"**{_mark(self.title)}**", "", _line(self.head), _line(("---",) * len(self.head))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, *(["", _mark(self.note)] if self.note else [])])

    def html(self) -> str:
        """An HTML table that scrolls sideways, or stacks its cells if they are text, on a phone."""
        if not self.rows:
            return f"<p class=note>{html.escape(self.title)}: nothing yet.</p>"
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        body = "".join(
            "<tr>" + "".join(map(_cell, self.head, row)) + "</tr>\n" for row in self.rows
        )
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        prose = " class=prose" if any(len(c) > _LONG for row in self.rows for c in row) else ""
        return (
            f"<div class=scroll><table{prose}><caption>{html.escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{note}"
        )


def _mark(cell: str) -> str:
    # A command is to be copied; elsewhere a bar would end the cell, stars and "<" would be formatting.
    if cell.startswith(COMMAND):
        return f"`{cell}`"
    for character in "|*<":
        cell = cell.replace(character, f"\\{character}")
    return cell


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_mark(cell) for cell in cells) + " |"


def _cell(head: str, cell: str) -> str:
    text = html.escape(cell)
    text = f"<code>{text}</code>" if cell.startswith(COMMAND) else text
    return f'<td{_class(cell)} data-head="{html.escape(head)}">{text}</td>'


def _class(cell: str) -> str:
    if cell.startswith((HOLDS, "reproduced")):
        return " class=good"
    if cell == FAILED or cell == "not":
        return " class=bad"
    if cell.startswith(("partly", "not run")):
        return " class=so-so"
    return " class=number" if _NUMBER.fullmatch(cell) else ""


def interval(fit: dict[str, Any] | None) -> str:
    """Slope and interval of a fit in a result file, as "s [low, high]"."""
    if not fit or fit["slope"] is None:
        return "-"
    low, high = fit.get("interval") or (fit["low"], fit["high"])
    return f"{fit['slope']:.2f} [{low:.2f}, {high:.2f}]"


def value_text(value: float | str | None, form: str) -> str:
    """A number of a result file, where NaN is null and infinity a word."""
    return "-" if value is None else value if isinstance(value, str) else format(value, form)


def is_finite(value: Any) -> bool:
    """Whether a value of a result file is a number; NaN is null there and infinity a word."""
    return isinstance(value, int | float) and bool(np.isfinite(value))


def number_text(value: Any) -> str:
    """A number to a few digits; a dash for anything that is not finite."""
    return number(value) if is_finite(value) else "-"
