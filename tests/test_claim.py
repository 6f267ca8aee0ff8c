"""Claims: false ones are refuted by an explicit problem, true ones are not, and no verdict says too much."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import pytest
from claim_cases import claim

from theory.claim import __main__ as claim_command
from theory.claim.__main__ import app, run_entry
from theory.claim.book import Entry, read_book
from theory.claim.lower import largest_loss
from theory.claim.search import search_known, search_solved
from theory.claim.verdict import HOLDS_HERE, NOT_REFUTED, REFUTED, grid, try_to_break
from theory.problems.explicit import rank_one_nodes
from theory.problems.files import load_problem
from theory.simulation.local_sgd import run_local_sgd
from theory.support import memory
from theory.support.command import run_command
from theory.support.errors import UserError

# ---- verdicts ------------------------------------------------------------------------------------


def test_a_third_of_t2_is_refuted_by_i0_at_the_smallest_size() -> None:
    outcome = try_to_break(claim("D/(6*eta*R)", "average_sync"), grid([1, 2], [1, 2], [1.0]))
    found = outcome.refutation
    assert outcome.verdict == REFUTED and found is not None
    assert found.source == "I0" and (found.cell.local_steps, found.cell.rounds) == (1, 1)
    assert found.measured.agree and found.ratio == pytest.approx(3.0)


def test_where_no_known_problem_refutes_the_exact_worst_case_does() -> None:
    outcome = try_to_break(claim("0.0425*L*D"), grid([3], [2], [1.0]))
    found = outcome.refutation
    assert found is not None and found.search == "exact worst cases"
    # The interface of the simulator: the explicit problem is run anew, here.
    run = run_local_sgd(
        found.problem, step_size=1.0, local_steps=3, rounds=2, gradient="full", engine="numpy"
    )
    assert run.history["global_loss"][0, 0, -1] > 0.0425


def test_a_true_claim_holds_at_the_sizes_that_were_solved_and_no_adversary_is_asked() -> None:
    outcome = try_to_break(claim("L*D/(4*R)", "best"), grid([2], [1, 2], [1.0]))
    assert outcome.verdict == HOLDS_HERE and outcome.claim.homogeneous
    assert outcome.reports[2].tried == 0


def test_of_the_book_what_was_tried_before_an_interruption_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Entry] = []

    def interrupted(entry: Entry, *_: object) -> tuple[str, str]:
        if done:
            raise KeyboardInterrupt
        done.append(entry)
        return entry.came_out, "a test"

    monkeypatch.setattr(claim_command, "run_entry", interrupted)
    assert command("--book", "--json", str(tmp_path / "book.json")) == 130
    content = json.loads((tmp_path / "book.json").read_text())
    assert content["interrupted"] and [c["name"] for c in content["claims"]] == [done[0].name]


def test_a_worst_case_that_does_not_fit_is_left_out_with_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1000)
    report = search_solved(claim("L*D", "last"), grid([1], [10_000], [1.0]))
    assert report.tried == 0 and "it needs about" in report.left_out[0]


def test_time_that_is_over_ends_a_search_between_two_problems() -> None:
    cells = grid([2], [1, 2], [1.0])
    report = search_known(claim("L*D", "last"), cells, deadline=-math.inf)
    assert report.tried == 0 and report.left_out == [f"the time ran out at {cells[0]}"]


def test_what_is_certified_at_one_growth_or_for_one_number_of_nodes_says_so() -> None:
    t4 = claim("(1-eta*mu)^T*D", "distance", "growth")
    outcome = try_to_break(t4, grid([2], [1], [1.0]), growth=0.2, n_nodes=3)
    assert outcome.verdict == HOLDS_HERE and outcome.scope == "for all L and D, mu = 0.2 L"
    by_nodes = try_to_break(claim("n*L*D/(4*R)", "best"), grid([2], [1], [1.0]), n_nodes=3)
    assert by_nodes.scope == "for all L and D, n = 3"


def test_outside_the_solved_classes_a_true_claim_is_only_not_refuted() -> None:
    t3 = claim("D/(2*c*eta*T)", "average_global", "similar")
    outcome = try_to_break(t3, grid([2], [1], [1.0]), seconds=4)
    assert outcome.verdict == NOT_REFUTED
    assert outcome.reports[1].left_out and outcome.reports[2].tried


def test_a_search_out_of_time_says_so() -> None:
    outcome = try_to_break(
        claim("D/(2*eta*R)", "average_sync"), grid([2, 3], [3, 4], [0.7]), seconds=0.01
    )
    assert outcome.verdict == NOT_REFUTED
    assert any("time" in reason for report in outcome.reports for reason in report.left_out)


@pytest.mark.parametrize(
    ("text", "metric", "homogeneous"),
    [
        ("L*D/R", "last", True),
        ("D/(eta*R)", "last", True),
        ("(1-eta*mu)^T*D", "distance", True),
        ("f0*L", "gradient", True),
        ("0.1", "last", False),
        ("L*D^2", "last", False),
        ("L*D", "distance", False),
    ],
)
def test_only_a_homogeneous_claim_is_decided_for_all_l_and_d(
    text: str, metric: str, homogeneous: bool
) -> None:
    assert claim(text, metric).homogeneous is homogeneous


# ---- lower bounds, the book ----------------------------------------------------------------------


def test_the_largest_loss_over_all_starts_is_the_simulators() -> None:
    kappa, k, rounds, factor = 5.0, 3, 4, 0.7
    small = 1 / kappa
    measured = []
    for start in ([1.0, 0.0], [0.0, 1.0]):
        rows = [[math.sqrt(1 - small), sign * math.sqrt(small)] for sign in (1, -1)]
        problem = rank_one_nodes(rows, start, 1.0, "crossing")
        run = run_local_sgd(
            problem,
            step_size=factor,
            local_steps=k,
            rounds=rounds,
            gradient="full",
            engine="numpy",
        )
        measured.append(run.history["global_loss"][0, 0, -1])
    assert largest_loss(kappa, k, rounds, factor) == pytest.approx(max(measured))


@pytest.mark.parametrize("entry", read_book(), ids=lambda entry: entry.name)
def test_every_claim_of_the_book_comes_out_as_it_says(entry: Entry) -> None:
    verdict, _ = run_entry(entry, seconds=3 if entry.came_out == NOT_REFUTED else 3600)
    assert verdict == entry.came_out
    assert entry.source and entry.read


def test_a_book_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    book = tmp_path / "book.toml"
    book.write_text('[[claim]]\nname = "x"\nclam = "L"\n')
    with pytest.raises(UserError, match="key 'clam'"):
        read_book(book)


# ---- the command ---------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    return run_command(app, "python -m theory.claim", list(arguments))


def test_a_counterexample_is_kept_as_data_lines_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "found.json"
    status = command("L*D/(4*K*R)", "-K", "4", "-R", "1", "--out", str(out), "--json", str(report))
    assert status == 1 and "REFUTED" in capsys.readouterr().out
    kept = runpy.run_path(str(out / "counterexample.py"))
    assert kept["run"].history["global_loss"][0, 0, -1] > 1 / 16
    assert load_problem(out / "counterexample.npz").n_nodes == 2
    assert (out / "counterexample.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(report.read_text())["verdict"] == REFUTED


def test_a_users_theorem_is_a_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom theory.theorems import T2\n"
        "BOLD = replace(T2, name='bold', bound=lambda p, s, t: T2.bound(p, s, t) / 3)\nX = 3\n"
    )
    assert command("--theorem", f"{file}:BOLD", "-K", "1", "-R", "1") == 1
    # Without convexity too, at the step size that it asks for.
    file.write_text(
        file.read_text() + "from theory.theorems import T6\n"
        "T6_5 = replace(T6, name='T6/5', bound=lambda p, s, t: T6.bound(p, s, t) / 5)\n"
    )
    own = ("--theorem", f"{file}:T6_5", "--step-size", "1/(10*rho*K)", "-K", "2", "-R")
    assert command(*own, "20") == 1 and command(*own, "1", "--time-limit", "5") == 0
    assert command("--theorem", f"{file}:X") == 2
    assert command("--theorem", f"{file}:NONE") == 2
    assert "nothing called NONE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["L", "--book"],
        ["__import__('os')"],
        ["L.real"],
        ["10^1000000"],
        ["L", "--metric", "x"],
        ["L", "--class", "x"],
        ["L", "-K", "0"],
        ["L", "-K", ""],
        ["L", "--step-size", "2"],
        ["L", "--time-limit", "nan"],
        ["L", "--json", "/"],
        ["L", "--nodes", "1"],
        ["L", "--step-size", "1/eta"],
        ["L", "--step-size", "1/gammas"],
        ["L", "--lower", "--kappa", "1"],
        *(["--lower", f"L*D*{name}"] for name in ("c", "rho", "gamma", "f0")),
        ["--lower", "log(-R)"],
        ["--lower", "-L*D"],
        ["--theorem", "none.py:X"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.parametrize(
    "arguments",
    [["L*D", "--step-size", "0*K"], ["gamma*log(c-2)"], ["f0*log(-R)", "--metric", "best"]],
)
def test_where_nothing_can_be_tried_the_claim_is_undecided(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments, "-K", "1", "-R", "1", "--time-limit", "30") == 3
    assert "nothing could be tried" in capsys.readouterr().out
