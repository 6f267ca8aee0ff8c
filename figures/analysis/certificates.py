"""The rational certificates of the worst cases: how many there are and how closely they enclose."""

from __future__ import annotations

from dataclasses import dataclass

from figures.analysis.sources import MissingResult, Sources
from theory.worst_case.certificate import width

CERTIFICATES = "theory/results/certificates/*.jsonl"
CERTIFY_COMMAND = "python -m theory.worst_case.certify"


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The certificates of one metric.

    Attributes:
        metric: its name.
        cells: how many.
        most: the largest K R.
        step_sizes: of the cells, in multiples of 1/L, as fractions.
        growth: mu/L of the class where it has one, else "0".
        widest: the widest enclosure, in units of L D (of D for a distance).
    """

    metric: str
    cells: int
    most: int
    step_sizes: tuple[str, ...]
    growth: str
    widest: float


def certified(sources: Sources) -> list[Certified]:
    """What is certified, a metric each.

    Raises:
        MissingResult: there is no certificate.
        UserError: a line of a file is no JSON object.
    """
    paths = sources.match(CERTIFICATES)
    if not paths:
        raise MissingResult(f"{CERTIFICATES} is missing; make it with: {CERTIFY_COMMAND}")
    found = []
    for path in paths:
        certificates = sources.read_lines(path, CERTIFY_COMMAND)
        cells = [c["cell"] for c in certificates]
        steps = sorted({cell["step_size"] for cell in cells}, key=_float)
        found.append(
            Certified(
                metric=cells[0]["metric"],
                cells=len(cells),
                most=max(cell["local_steps"] * cell["rounds"] for cell in cells),
                step_sizes=tuple(steps),
                growth=max((cell["growth"] for cell in cells), key=_float),
                widest=max(map(width, certificates)),
            )
        )
    return found


def _float(fraction: str) -> float:
    over, _, under = fraction.partition("/")
    return int(over) / int(under or 1)
