"""Short names for what the tests of the worst cases share."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from theory.worst_case.cells import Cell

needs_clarabel = pytest.mark.skipif(
    importlib.util.find_spec("clarabel") is None,
    reason="CLARABEL is not installed: pip install '.[pep]'",
)
needs_pepit = pytest.mark.skipif(
    importlib.util.find_spec("PEPit") is None or importlib.util.find_spec("clarabel") is None,
    reason="PEPit or CLARABEL is not installed: pip install '.[pep]'",
)


def make_cell(
    local_steps: int, rounds: int, step_size: float = 1.0, metric: str = "last", **options: Any
) -> Cell:
    """A cell by K, R, eta L and metric."""
    return Cell(
        local_steps=local_steps, rounds=rounds, step_size=step_size, metric=metric, **options
    )
