"""Pieces of Markdown that the generated page is made of."""

from __future__ import annotations

from collections.abc import Sequence

from theory.worst_case.sentences import agreement, sentence
from theory.worst_case.statements import Finding


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, as lines, and an empty line."""
    lines = [heads, ["---"] * len(heads), *rows]
    return [*("| " + " | ".join(cells) + " |" for cells in lines), ""]


def said(finding: Finding) -> str:
    """A finding with its standing, and whether the cells refute it."""
    refuted = ", **refuted**" if agreement(finding) == "REFUTED" else ""
    return f"{finding.about}, *{finding.standing}{refuted}:* {sentence(finding)} ({finding.cells} cells)."
