"""theory/worst_case/findings.md says what theory/results/worst_case.json says, and that what the code computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import theory
from theory.worst_case.cells import FAILED, HOLDS, Row, judge
from theory.worst_case.closed_forms import best_crossing
from theory.worst_case.findings import REFUTED, findings
from theory.worst_case.many_local_steps import LimitRow, SpiralRow
from theory.worst_case.reduction import Schedule, worst_case

FOLDER = Path(theory.__file__).parent


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    text = (FOLDER / "results" / "worst_case.json").read_text()
    assert len(text) < 1_500_000
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def document() -> str:
    return (FOLDER / "worst_case" / "findings.md").read_text()


def tables(text: str) -> list[list[list[str]]]:
    """Every Markdown table as rows of cells, heads first."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set("".join(cells)) <= {"-"}:
                found[-1].append(cells)
        inside = line.startswith("|")
    return found


def test_the_table_of_the_last_iterate_is_the_record(record: dict[str, Any], document: str) -> None:
    heads, *rows = next(t for t in tables(document) if "I1" in t[0])
    last = {
        (r["local_steps"], r["rounds"]): r["worst_case"]
        for r in record["rows"]
        if r["metric"] == "last" and r["step_size"] == 1
    }
    limits = {r["rounds"]: r["last"] for r in record["limits"]}
    compared = 0
    for cells in rows:
        rounds = int(cells[0])
        for head, cell in zip(heads[1:], cells[1:], strict=True):
            if not cell:
                continue
            if head == "I1":
                expected = best_crossing(Schedule(1, rounds, 1.0, "last"))[0]
            elif head.startswith("K=∞"):
                expected = limits[rounds]
            else:
                expected = last[int(head.removeprefix("K=")), rounds]
            assert float(cell) == pytest.approx(expected, abs=6e-6)
            compared += 1
    assert compared > 40


def test_numbers_of_the_findings_are_in_the_document(record: dict[str, Any], document: str) -> None:
    for start in ("K>=3: last within", "eta=1/L: K=1 needs", "best eta for each K: K=1"):
        (finding,) = (f for f in record["findings"] if f["statement"].startswith(start))
        assert f"{finding['value']:.3f}" in document


def test_findings_and_verdicts_follow_from_the_rows(record: dict[str, Any]) -> None:
    rows = [Row(**row) for row in record["rows"]]
    assert {row.verdict for row in rows if row.worst_case is not None} == {HOLDS}
    assert not [row for row in rows if row.verdict == FAILED]
    assert all(judge(row) == row for row in rows)
    limits = [LimitRow(**row) for row in record["limits"]]
    spirals = [SpiralRow(**row) for row in record["spirals"]]
    again = {f.statement: f for f in findings(rows, limits=limits, spirals=spirals)}
    shared = [f for f in record["findings"] if f["statement"] in again]
    assert len(shared) > 20
    for finding in shared:
        assert again[finding["statement"]].value == pytest.approx(finding["value"], rel=1e-9)
        assert again[finding["statement"]].standing == finding["standing"]
    # What this project found against its own conjecture C1.
    refuted = [f["statement"] for f in record["findings"] if f["standing"] == REFUTED]
    assert any("within 5% of I1" in s for s in refuted) and any("never rises" in s for s in refuted)


@pytest.mark.parametrize("cell", [(3, 2), (4, 3), (12, 1)])
def test_recorded_values_are_what_is_computed_now(
    record: dict[str, Any], cell: tuple[int, int]
) -> None:
    (row,) = (
        r
        for r in record["rows"]
        if (r["local_steps"], r["rounds"], r["step_size"], r["metric"]) == (*cell, 1.0, "last")
    )
    assert worst_case(Schedule(*cell, 1.0, "last")).value == pytest.approx(
        row["worst_case"], abs=1e-7
    )
