"""The words of a verdict, the same in every table and result file."""

from __future__ import annotations

HOLDS = "HOLDS"
FAILED = "FAILED"
UNDECIDED = "UNDECIDED"
NOT_APPLICABLE = "NOT APPLICABLE"
OBSERVED = "observed"
