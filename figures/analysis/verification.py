"""The verification record: where it is, what makes it."""

from __future__ import annotations

from typing import Any

from figures.analysis.sources import Sources

VERIFY_PATH = "theory/results/verify_rates.json"
VERIFY_COMMAND = f"python -m theory.verify_rates --json {VERIFY_PATH}"


def load_verification(sources: Sources) -> dict[str, Any]:
    """The record of ``python -m theory.verify_rates``; raises as :meth:`Sources.read`."""
    return sources.read(VERIFY_PATH, VERIFY_COMMAND)
