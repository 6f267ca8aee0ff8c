"""theory/worst_case/findings.md is what theory/results says, and that what the code computes."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import pytest
from worst_case_cells import make_cell

import theory
from theory.worst_case import __main__ as command
from theory.worst_case import document as documents
from theory.worst_case import evidence_document, markdown, sentences
from theory.worst_case import outer_document as outer_documents
from theory.worst_case import record as records
from theory.worst_case.cells import standard_grid
from theory.worst_case.certify import FOLDER
from theory.worst_case.document import document, pick
from theory.worst_case.enclosures import read_enclosures
from theory.worst_case.evidence_document import enclosure_section, solver_section
from theory.worst_case.findings import findings
from theory.worst_case.outer_findings import outer_findings
from theory.worst_case.record import Record
from theory.worst_case.reduction import CLARABEL, INTERIOR_POINT, worst_case
from theory.worst_case.rows import EXACT, FAILED, HOLDS, TIME_LIMIT, judge
from theory.worst_case.sentences import SENTENCES

PAGE = Path(theory.__file__).parent / "worst_case" / "findings.md"


@pytest.fixture(scope="module")
def record() -> Record:
    assert records.RECORD.stat().st_size < 1_500_000
    return records.read_record()


def test_the_page_is_what_the_command_writes(tmp_path: Path) -> None:
    again = tmp_path / "findings.md"
    assert command.write_findings(again) == 0
    assert again.read_text() == PAGE.read_text(), "make it anew with --write-findings"


@pytest.mark.parametrize(
    "module", [documents, outer_documents, evidence_document, sentences, markdown]
)
def test_no_number_of_the_page_is_typed_by_hand(module: ModuleType) -> None:
    # A measured number has decimals; the template's strings have none but in formats and references.
    tree = ast.parse(Path(str(module.__file__)).read_text())
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    for text in (t for t in texts if isinstance(t, str)):
        plain = re.sub(r"\{[^}]*\}|arXiv [\d.]+", "", text)
        assert not re.findall(r"\d+\.\d+", plain), plain


def test_a_changed_number_changes_the_page(record: Record) -> None:
    page = document(record, None)
    for moved in (
        replace(record, findings=[replace(f, value=f.value + 1) for f in record.findings]),
        replace(record, limits=[replace(r, last=r.last * 2) for r in record.limits]),
        replace(record, tuned=[replace(t, value=t.value * 2) for t in record.tuned]),
        replace(
            record, routes=[replace(r, pepit_seconds=r.pepit_seconds + 1) for r in record.routes]
        ),
    ):
        before, after = page.splitlines(), document(moved, None).splitlines()
        assert sum(a != b for a, b in zip(before, after, strict=True)) > 4


def test_findings_and_verdicts_follow_from_the_rows(record: Record) -> None:
    assert {row.verdict for row in record.rows if row.worst_case is not None} == {HOLDS}
    assert not [row for row in record.rows if row.verdict == FAILED]
    assert all(judge(row) == row for row in record.rows)
    again = findings(record.rows, record.routes, record.limits, record.spirals, record.tuned)
    assert [(f.key, f.about, f.where, f.standing, f.agrees, f.cells) for f in again] == [
        (f.key, f.about, f.where, f.standing, f.agrees, f.cells) for f in record.findings
    ]
    assert [f.value for f in again] == pytest.approx([f.value for f in record.findings], rel=1e-9)
    assert {f.key for f in record.findings} <= set(SENTENCES)


def test_what_this_project_found_about_its_own_conjecture(record: Record) -> None:
    # Against C1, of which two parts were wrong; and nothing that is called proved is refuted.
    refuted = {f.key for f in record.findings if f.agrees is False}
    assert refuted == {"last.few_percent", "last.never_rises"}
    assert not [f for f in record.findings if f.standing == "proved" and f.agrees is False]
    most = pick(record.findings, "last.few_percent")
    assert most is not None and most.value > 1.1


def test_the_record_has_every_cell_of_the_standard_grid_and_says_how_exact_it_is(
    record: Record,
) -> None:
    cells = {
        (c.metric, c.local_steps, c.rounds, c.step_size, c.growth_of, c.one_node)
        for c in standard_grid(0.1)
    }
    rows = {
        (
            r.metric,
            r.local_steps,
            r.rounds,
            r.step_size,
            "mean" if r.theorem == "T4'" else "nodes",
            r.theorem == "T3",
        )
        for r in record.rows
    }
    assert rows == cells and len(record.rows) == 1120
    solved = [r for r in record.rows if r.verdict != TIME_LIMIT]
    assert max(abs(r.duality_gap or 0.0) for r in solved) < 1e-7
    assert {r.theorem for r in solved if r.kind != EXACT} == {"T4'"}


@pytest.mark.parametrize("cell", [(3, 2), (4, 3), (12, 1)])
def test_recorded_values_are_what_is_computed_now(record: Record, cell: tuple[int, int]) -> None:
    (row,) = (
        r
        for r in record.rows
        if (r.local_steps, r.rounds, r.step_size, r.metric) == (*cell, 1.0, "last")
    )
    assert worst_case(make_cell(*cell)).value == pytest.approx(row.worst_case, abs=1e-7)


def test_a_missing_or_broken_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"is missing: python -m theory.worst_case --json makes it"
    ):
        records.read_record(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    for text in ("", "[]", '{"rows": [{}]}', '{"rows": []}'):
        broken.write_text(text)
        with pytest.raises(ValueError, match=re.escape(str(broken))):
            records.read_record(broken)


# ---- certificates and solvers --------------------------------------------------------------------


def test_every_certificate_is_in_the_table_of_enclosures() -> None:
    found = {e.metric: e for e in read_enclosures()}
    for path in FOLDER.glob("*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        widths = [Fraction(c["upper"]["bound"]) - Fraction(c["lower"]["value"]) for c in lines]
        assert found[path.stem].cells == len(lines)
        assert found[path.stem].widest == float(max(widths)) < 1e-6
        assert min(widths) >= 0
    page = "\n".join(enclosure_section(list(found.values())))
    assert all(f"{e.widest:.1e}" in page for e in found.values())
    assert enclosure_section([]) == []


def test_the_solver_that_the_rule_asks_for_is_the_one_in_use() -> None:
    content = records.read_solvers()
    assert content is not None
    cells = [c for c in content["cells"] if c["ours_finished"] or c["clarabel_finished"]]
    ours, clarabel = sum(c["ours"] for c in cells), sum(c["clarabel"] for c in cells)
    assert clarabel / ours == pytest.approx(content["total"]["ratio"])
    stays = clarabel / ours >= content["required"] == 3.0
    assert worst_case(make_cell(2, 2)).solver == (INTERIOR_POINT if stays else CLARABEL)
    text = "\n".join(solver_section(content))
    assert f"{clarabel / ours:.2f}" in text and ("ours stays" in text) == stays


# ---- outer steps ---------------------------------------------------------------------------------


@pytest.mark.skipif(not records.OUTER_RECORD.exists(), reason="the sweep was not run yet")
def test_the_record_of_outer_steps_follows_from_its_pairs() -> None:
    found = records.read_outer_steps()
    content = json.loads(records.OUTER_RECORD.read_text())
    assert [records.as_finding(f) for f in content["findings"]] == outer_findings(found)
    assert all(f.agrees is not False for f in outer_findings(found))
    for pair in found.pairs:
        assert pair.value <= pair.plain_value + 1e-9 and pair.certified - pair.value < 1e-7
        # No fixed pair goes below I6.
        assert pair.lower_bound < pair.floor <= pair.certified + 1e-9
    pair = next(p for p in found.pairs if (p.metric, p.local_steps, p.rounds) == ("last", 3, 1))
    cell = make_cell(3, 1, pair.step_size, outer_step=pair.outer_step)
    assert worst_case(cell).value == pytest.approx(pair.value, abs=1e-8)
