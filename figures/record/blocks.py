"""The tables of ``paper_repro.md`` and ``README.md``, written between markers from the result files.

    <!-- begin NAME -->
    ... generated ...
    <!-- end NAME -->

Everything outside the markers is prose, and keeps out of results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from figures.analysis.places import ROOT
from figures.analysis.sources import MissingResult, Sources
from figures.record import (
    baseline_tables,
    book_table,
    deep_tables,
    energy_tables,
    ladder_tables,
    sources_table,
    speed_table,
    theory_tables,
    worst_case_tables,
)
from figures.record.claims import claims
from figures.record.set_up import set_up
from figures.record.table import Table
from theory.support.errors import UserError
from theory.support.files import write_text

RECORDS = ("paper_repro.md", "README.md")
#: Marker -> the function that makes its table. "files" is last: it names what the others read.
TABLES: dict[str, Callable[[Sources], Table]] = {
    "claims": claims,
    "deep-runs": deep_tables.deep_runs,
    "deep-phases": deep_tables.deep_phases,
    "deep-orders": deep_tables.deep_orders,
    "deep-fixed": deep_tables.deep_fixed,
    "ladder-heterogeneity": ladder_tables.ladder_heterogeneity,
    "ladder-exponents": ladder_tables.ladder_exponents,
    "ladder-steps": ladder_tables.ladder_steps,
    "ladder-variants": ladder_tables.ladder_variants,
    "ladder": ladder_tables.ladder,
    "energy": energy_tables.energy,
    "energy-phases": energy_tables.energy_phases,
    "energy-questions": energy_tables.energy_questions,
    "set-up": set_up,
    "deviations": deep_tables.deviations,
    "verification": theory_tables.verification,
    "sharper": theory_tables.sharper,
    "tightness": theory_tables.tightness,
    "orders": theory_tables.orders,
    "communication": theory_tables.communication,
    "clients": theory_tables.clients,
    "server-steps": theory_tables.server_steps,
    "rounds-to-eps": baseline_tables.rounds_to_eps,
    "equal-budgets": baseline_tables.equal_budgets,
    "worst-cases": worst_case_tables.worst_cases,
    "outer-steps": worst_case_tables.outer_steps,
    "certificates": worst_case_tables.certificates,
    "book": book_table.book,
    "speed": speed_table.speed,
    "files": sources_table.files,
}
_BLOCK = re.compile(r"(<!-- begin (?P<name>[a-z-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def make_tables(root: Path = ROOT) -> dict[str, Table | str]:
    """Every table, or the message that names the missing result.

    Raises:
        UserError: a result file that is no JSON.
    """
    sources = Sources(root)
    made: dict[str, Table | str] = {}
    for name, make in TABLES.items():
        try:
            made[name] = make(sources)
        except MissingResult as error:
            made[name] = str(error)
    return made


def fill(text: str, tables: dict[str, Table | str]) -> str:
    """The record with every block between markers made anew.

    Raises:
        UserError: a block that no table has, or one without its other marker.
    """

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in tables:
            raise UserError(f"the record has a block {name!r}; known: {', '.join(tables)}")
        table = tables[name]
        body = f"No result yet: {table}" if isinstance(table, str) else table.markdown()
        return f"{match[1]}{body}\n{match[3]}"

    filled, count = _BLOCK.subn(block, text)
    if count != len(re.findall(r"<!-- (?:begin|end) ", text)) / 2:
        raise UserError("the record has a begin or an end marker without the other")
    return filled


def update_record(path: Path, root: Path = ROOT) -> tuple[bool, list[str]]:
    """Write the record's tables, where they are not what they were.

    Returns:
        Whether the file was written, and the messages of the missing results.

    Raises:
        UserError: the record can't be read or written, or its markers are broken.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't read {path}: {error}") from None
    tables = make_tables(root)
    filled = fill(text, tables)
    if filled != text:
        write_text(path, filled)
    return filled != text, list(dict.fromkeys(t for t in tables.values() if isinstance(t, str)))
