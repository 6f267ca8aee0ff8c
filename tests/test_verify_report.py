"""What python -m theory.verify_rates prints: tables that fit, medians, sharper variants."""

from __future__ import annotations

import io
import re
import statistics
import sys
from dataclasses import replace

import numpy as np
import pytest

from theory import verify_rates
from theory.support import command as cli
from theory.support import files
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.verification.clients_and_servers import (
    against_clients,
    against_outer_step,
    families,
)
from theory.verification.communication import typical_communication
from theory.verification.other_steps import STEP_FACTORS, s1_at_other_steps, t6_without_s8
from theory.verification.report import Report, as_json, make_report
from theory.verification.summary import median
from theory.verification.sweep import Sweep, make_problem
from theory.verification.tables import number


def plain(text: str) -> str:
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def widths(text: str) -> list[int]:
    """Columns that each line takes, colours apart."""
    return [len(line) for line in plain(text).splitlines()]


@pytest.fixture(scope="module")
def report() -> Report:
    """Everything a call finds, small."""
    sweep = Sweep(
        rounds=8, seeds=4, n_nodes=2, dimension=64, local_steps=(3,), heterogeneity=("iid",)
    )
    found = make_report(sweep, quick=True)
    for problem, eps in families(5):
        found.clients += against_clients(problem, eps)
        found.outer_steps += against_outer_step(problem, eps)
    found.at_steps = s1_at_other_steps(sweep)
    found.without_s8 = t6_without_s8(sweep)
    found.communication.append(typical_communication("similar", (1, 2, 5, 10, 20), eps=0.05))
    # The widest numbers: a full family of communication, and a check at the end of rounding.
    found.communication[1] = replace(
        found.communication[1], accuracy=9.19e-05, bound=1.72e6 / np.array([1, 2, 5, 10, 20])
    )
    found.checks.append(
        replace(
            found.checks[0],
            heterogeneity="50% similar",
            gradient="full",
            local_steps=20,
            measured=7.604e-18,
            low=7.604e-18,
            high=7.604e-18,
            bound=0.00321,
            ratio=2.62e15,
            verdict=HOLDS,
        )
    )
    undecided = replace(found.checks[0], verdict=UNDECIDED, why="a reason " * 20)
    found.checks.append(undecided)
    return found


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("setting", ["80 columns", "pipe", "no colour", "forced colour", "ascii"])
def test_every_table_fits_80_columns_anywhere(
    report: Report, details: bool, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        *{
            "80 columns": ("COLUMNS", "80"),
            "no colour": ("NO_COLOR", "1"),
            "forced colour": ("FORCE_COLOR", "1"),
        }.get(setting, ("UNUSED", ""))
    )
    raw = io.BytesIO()
    encoding = "ascii" if setting == "ascii" else "utf-8"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict"))
    verify_rates.show(cli.console(), report, 1.0, details)
    sys.stdout.flush()
    printed = raw.getvalue().decode()
    assert max(widths(printed)) <= 80
    assert ("\x1b[" in printed) == (setting == "forced colour")
    if not details:
        assert len(printed.splitlines()) <= 45, "one screen"
        assert "--details" in printed and "T2/S3" not in printed
        where = "T0 on least squares, iid, K = 3"
        assert f"Undecided: {where}" in " ".join(plain(printed).split())
    # No column has lost its content: every theorem, and the three digits of a median.
    for row in report.summary[:10]:
        line = next(
            x
            for x in plain(printed).splitlines()
            if re.match(rf"\s*{row.theorem}\s", x) and row.title[:12] in x
        )
        assert re.search(r"\d", line.split(row.title[:12])[1])


def test_the_printed_medians_are_those_of_the_file_and_of_the_readme(report: Report) -> None:
    content = files.plain(as_json(report))
    for row in content["summary"]:
        mine = [c for c in content["checks"] if c["theorem"] == row["theorem"]]
        held = [c["ratio"] for c in mine if c["verdict"] == HOLDS]
        held = [r for r in held if isinstance(r, float | int)]
        if held:
            assert row["median"] == pytest.approx(statistics.median(held))
            assert row["least"] == min(held)
        assert row["undecided"] == sum(c["verdict"] == UNDECIDED for c in mine)
    # An even number of checks: the mean of the middle two, not the upper one.
    assert median([1.0, 2.0, 10.0, 40.0]) == 6.0


def test_sharper_variants_are_compared_on_the_same_checks(report: Report) -> None:
    rows = {row.variant: row for row in report.sharper if row.step_factor is None}
    assert rows["T2/S3"].checks > 0 and rows["T2/S3"].median > rows["T2/S3"].median_sharper >= 1
    assert rows["T6/S7"].median_sharper < rows["T6/S7"].median
    # Steps of their own, nothing to compare with, or a plain bound that uses more of the path.
    apart = ("T0/S1", "T1/S9", "T2/S9", "T2/S2")
    assert np.isnan(rows["T2/S2"].median)
    assert rows["T2/S3'"].median == pytest.approx(2 * rows["T2/S3'"].median_sharper)
    for row in rows.values():
        if row.checks and row.variant not in apart:
            assert row.median_sharper <= row.median * (1 + 1e-9)


def test_s1_is_compared_at_the_steps_at_which_it_differs(report: Report) -> None:
    rows = {(row.variant, row.step_factor): row for row in report.sharper}
    K, R = 3, 8
    for factor in STEP_FACTORS:
        a = factor * (2 - factor) if factor > 1 else 1 - (1 - factor) ** (2 * K)
        if factor <= 1:
            a /= 1 + (1 - factor) ** (2 * K - 1)
        # Without the code of the bounds, in units of L D: the theorem's, then S1's.
        smallest = min(1, 2 - factor) * factor
        plain = {"T1": 1 / (2 * smallest * K * R), "T2": 1 / (2 * smallest * R)}
        sharp = {
            "T1": 1 / (2 * (1 + factor * (K * R - 1)))
            if factor <= 1
            else (1 - (1 - factor) ** (2 * K * R)) / (2 * K * R * factor * (2 - factor)),
            "T2": (1 - (1 - a) ** R) / (2 * R * a),
        }
        for theorem in ("T1", "T2"):
            row = rows[f"{theorem}/S1", factor]
            assert row.checks > 0
            assert row.median_bounds == pytest.approx(sharp[theorem] / plain[theorem])
            assert row.median_sharper / row.median == pytest.approx(row.median_bounds, rel=1e-6)
    # At 1/L nothing is gained; at a small step much is, and local steps don't count.
    assert rows["T1/S1", None].median_bounds == pytest.approx(1)
    assert rows["T1/S1", 0.01].median_bounds < 0.3 and rows["T2/S1", 0.5].median_bounds < 0.6


def test_s8_is_compared_with_t6_at_the_smoothness_of_before(report: Report) -> None:
    row = next(row for row in report.sharper if row.variant == "T6/S8")
    assert row.checks == len(report.without_s8) > 0
    # The bound is proportional to L, and L is half.
    assert row.median_bounds == pytest.approx(0.0770 / 0.1587, abs=5e-4)
    assert row.median_sharper < row.median
    problem = make_problem(report.sweep, "sigmoid", "iid")
    for check in report.without_s8:
        own = next(
            c
            for c in report.checks
            if (c.theorem, c.problem, c.gradient) == ("T6", check.problem, check.gradient)
        )
        assert check.step_size == pytest.approx(own.step_size * row.median_bounds)
    with pytest.raises(UserError, match="below the data's own"):
        problem.declared(0.5 * problem.smoothness)
    assert problem.declared(2 * problem.smoothness).smoothness == 2 * problem.smoothness


def test_what_the_comparison_adds_is_counted_and_in_the_file(report: Report) -> None:
    content = files.plain(as_json(report))
    extra = [c for mine in report.at_steps.values() for c in mine] + report.without_s8
    assert len(content["at_steps"]) + len(content["without_s8"]) == len(extra)
    assert {c["step_factor"] for c in content["at_steps"]} == set(STEP_FACTORS)
    alone = replace(report, at_steps={}, without_s8=[])
    assert report.count(HOLDS) - alone.count(HOLDS) == sum(c.verdict == HOLDS for c in extra)
    assert report.count(FAILED) == alone.count(FAILED) == 0
    broken = {0.5: [replace(extra[0], verdict=FAILED)]}
    assert replace(report, at_steps=broken).count(FAILED) == 1
    # Nothing is compared that was not asked for.
    assert s1_at_other_steps(replace(report.sweep, theorems=("T1", "T2/S1"))) == {}
    assert t6_without_s8(replace(report.sweep, theorems=("T1",))) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (0.25, "0.25"),
        (1234.5, "1.23e+03"),
        (1e-5, "1.00e-05"),
        (np.nan, "-"),
        (np.inf, "inf"),
    ],
)
def test_numbers_in_tables_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
