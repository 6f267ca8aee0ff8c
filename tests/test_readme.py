"""What the README shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from theory.claim import __main__ as claims
from theory.support.command import run_command

README = Path(__file__).resolve().parent.parent / "README.md"
CLAIMS = README.parent / "theory" / "claim" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run(block: str) -> str:
    """What a block prints; names must not leak from one block to the next."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, str(README), "exec"), {"__name__": "readme"})
    return printed.getvalue()


def test_the_notebook_example_prints_a_line_a_theorem() -> None:
    lines = run(BLOCKS[0]).splitlines()
    assert lines[0].startswith("margin ")
    verdicts = {line.split()[0]: line.split()[1] for line in lines[1:]}
    assert verdicts["T1"] == verdicts["T2"] == verdicts["T4'"] == verdicts["T6"] == "HOLDS"
    assert verdicts["T3"] == verdicts["T5"] == "NOT"  # APPLICABLE


def test_a_new_problem_is_verified_and_a_bold_bound_fails() -> None:
    verdicts = run(BLOCKS[1])
    assert verdicts.count("HOLDS") >= 2 and "FAILED" not in verdicts
    assert run(BLOCKS[2]).strip() == "FAILED"


def test_a_sweep_runs_on_a_backend_of_joblib() -> None:
    scope: dict[str, object] = {}
    exec(BLOCKS[3], scope)
    checks = scope["checks"]
    assert isinstance(checks, list) and {c.problem for c in checks} == {"realizable logistic", "I0"}


def test_variants_of_a_few_lines_run() -> None:
    ends = dict(line.split() for line in run(BLOCKS[4]).splitlines())
    assert list(ends) == ["FedAvg", "TwoAtATime", "Bold", "Momentum"]
    # The start's loss is 0.5; a bold server and one with momentum end far below the plain means.
    plain = min(float(ends["FedAvg"]), float(ends["TwoAtATime"]))
    assert plain < 0.05 and max(float(ends["Bold"]), float(ends["Momentum"])) < plain


TOUR = re.findall(
    r"^\$ python -m theory\.claim (.*?)\n(.*?)(?=\n\n\$ |\n```)",
    CLAIMS.read_text(),
    re.DOTALL | re.MULTILINE,
)


def tokens(line: str) -> list[str | float]:
    """Words and numbers, but the seconds that it took."""
    words = re.sub(r"[\d.]+ s$", "", line.strip()).split()
    return [float(w) if re.fullmatch(r"\d+\.\d+", w) else w for w in words]


@pytest.mark.parametrize(("arguments", "printed"), TOUR, ids=[a for a, _ in TOUR])
def test_the_tour_of_claims_is_what_the_commands_print(
    arguments: str,
    printed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    status = run_command(claims.app, "python -m theory.claim", shlex.split(arguments))
    assert status == ("\nREFUTED" in printed)
    found, shown = (text.strip().splitlines() for text in (capsys.readouterr().out, printed))
    assert len(found) == len(shown)
    for was, said in zip(found, shown, strict=True):
        if said.startswith("adversary") and "found data" in said:
            # Where an optimiser ends differs from machine to machine, and stays below the claim.
            assert tokens(was)[:2] == tokens(said)[:2]
            assert 0.95 < float(tokens(was)[2]) <= 1 + 1e-9
            continue
        for one, other in zip(tokens(was), tokens(said), strict=True):
            assert one == (pytest.approx(other, rel=1e-6) if isinstance(other, float) else other)


def test_the_tour_has_the_four_claims_and_both_outcomes() -> None:
    assert len(TOUR) == 5 and sum("\nREFUTED" in printed for _, printed in TOUR) == 3


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README.read_text()))))
def test_every_link_and_picture_is_there(target: str) -> None:
    assert (README.parent / target).is_file()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:theory|deep|figures)/[\w./]+)`", README.read_text())))
)
def test_every_file_and_folder_named_is_there(path: str) -> None:
    assert (README.parent / path).exists()
