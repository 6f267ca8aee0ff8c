"""Claims and games that the tests of claims share."""

from __future__ import annotations

from typing import Any

from theory.claim.adversary import Game
from theory.claim.claim import from_formula
from theory.claim.expression import parse


def claim(text: str, metric: str = "last", family: str = "convex", gradient: str = "full"):  # type: ignore[no-untyped-def]
    return from_formula(parse(text), metric=metric, family=family, gradient=gradient)


def game(text: str, metric: str, **changes):  # type: ignore[no-untyped-def]
    numbers: dict[str, Any] = {
        "gradient": "full",
        "local_steps": 2,
        "rounds": 2,
        "step_factor": 1.0,
    } | changes
    return Game(claim=parse(text), metric=metric, **numbers)
