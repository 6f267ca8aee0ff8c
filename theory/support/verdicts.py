"""The words of a verdict, the same in every table and result file."""

from __future__ import annotations

HOLDS = "HOLDS"
FAILED = "FAILED"
UNDECIDED = "UNDECIDED"
NOT_APPLICABLE = "NOT APPLICABLE"
OBSERVED = "observed"


def beside_bounds(verdict: str, *bounds: float | None) -> str:
    """HOLDS only beside a bound: without one what was solved and simulated is only observed."""
    return OBSERVED if verdict == HOLDS and all(bound is None for bound in bounds) else verdict
