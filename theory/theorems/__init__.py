"""T1-T6: statements, assumptions, bounds, and the instances that show them tight."""

from theory.theorems.base import (
    T1,
    T2,
    T3,
    T4,
    T4_GLOBAL,
    T5,
    T5_SYNC,
    T6,
    THEOREMS,
    Instance,
    Metric,
    Setting,
    Theorem,
    find_theorems,
)

__all__ = [
    "T1",
    "T2",
    "T3",
    "T4",
    "T4_GLOBAL",
    "T5",
    "T5_SYNC",
    "T6",
    "THEOREMS",
    "Instance",
    "Metric",
    "Setting",
    "Theorem",
    "find_theorems",
]
