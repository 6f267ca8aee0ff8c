"""How closely the rational certificates enclose the worst cases, a metric each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from theory.worst_case.certificate import width
from theory.worst_case.certify import FOLDER, read


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """The certificates of one metric.

    Attributes:
        metric: its name.
        cells: how many.
        most: the largest K R.
        step_sizes: of the cells, in multiples of 1/L, as fractions.
        growth: mu/L of the class where it has one, else "0".
        widest, median: widths of the enclosures, in units of L D (of D for a distance).
    """

    metric: str
    cells: int
    most: int
    step_sizes: tuple[str, ...]
    growth: str
    widest: float
    median: float


def enclosure(certificates: Sequence[dict[str, Any]]) -> Enclosure:
    """What the certificates of one metric say together."""
    cells = [c["cell"] for c in certificates]
    widths = sorted(map(width, certificates))
    return Enclosure(
        metric=cells[0]["metric"],
        cells=len(cells),
        most=max(cell["local_steps"] * cell["rounds"] for cell in cells),
        step_sizes=tuple(sorted({cell["step_size"] for cell in cells}, key=Fraction)),
        growth=max((cell["growth"] for cell in cells), key=Fraction),
        widest=widths[-1],
        median=widths[len(widths) // 2],
    )


def read_enclosures(folder: Path = FOLDER) -> list[Enclosure]:
    """Of every file of certificates in a folder, in the order of their names."""
    found = [list(read(path).values()) for path in sorted(folder.glob("*.jsonl"))]
    return [enclosure(certificates) for certificates in found if certificates]
