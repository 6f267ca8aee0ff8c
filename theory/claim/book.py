"""Claims quoted from papers read first-hand, and this project's own: ``theory/claims.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from theory.support.errors import UserError

BOOK = Path(__file__).resolve().parents[1] / "claims.toml"
LOWER, UPPER = "lower", "upper"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One claim of the book.

    Attributes:
        name: to call it by.
        says: in words.
        source: where it is from.
        read: how the text was read.
        claim: the formula.
        direction: "upper" (metric <= claim) or "lower" (for every step size some x* with metric >= claim).
        metric, family, gradient: as of :class:`theory.claim.claim.Claim`.
        local_steps, rounds, step_sizes: the grid; step sizes in units of 1/L, numbers or formulas.
        kappas: L/mu of a lower claim's family.
        came_out: the verdict, kept under test.
    """

    name: str
    says: str
    source: str
    read: str
    claim: str
    came_out: str
    direction: str = UPPER
    metric: str = "last"
    family: str = "convex"
    gradient: str = "full"
    local_steps: tuple[int, ...] = (1, 2, 3)
    rounds: tuple[int, ...] = (1, 2)
    step_sizes: tuple[float | str, ...] = (1.0,)
    kappas: tuple[float, ...] = ()


def read_book(path: Path = BOOK) -> list[Entry]:
    """The entries of a file.

    Raises:
        UserError: it can't be read, or an entry has unknown or missing keys.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} can't be read as TOML: {error}") from None
    rows = content.get("claim", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} has no [[claim]] tables")
    return [_entry(path, row) for row in rows]


def _entry(path: Path, row: dict[str, Any]) -> Entry:
    known = {f.name for f in fields(Entry)}
    unknown = [key for key in row if key not in known]
    if unknown:
        raise UserError(f"{path} has the key {unknown[0]!r}, allowed: {', '.join(sorted(known))}")
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
    }
    try:
        return Entry(**lists)
    except TypeError as error:
        raise UserError(f"{path}, {row.get('name', 'a claim')!r}: {error}") from None
