"""The rational certificates of the worst cases: how many there are and how closely they enclose."""

from __future__ import annotations

from figures.analysis.sources import MissingResult, Sources
from theory.worst_case.enclosures import Enclosure, enclosure

CERTIFICATES = "theory/results/certificates/*.jsonl"
CERTIFY_COMMAND = "python -m theory.worst_case.certify"


def certified(sources: Sources) -> list[Enclosure]:
    """What is certified, a metric each.

    Raises:
        MissingResult: there is no certificate.
        UserError: a line of a file is no JSON object.
    """
    paths = sources.match(CERTIFICATES)
    if not paths:
        raise MissingResult(f"{CERTIFICATES} is missing; make it with: {CERTIFY_COMMAND}")
    return [enclosure(sources.read_lines(path, CERTIFY_COMMAND)) for path in paths]
