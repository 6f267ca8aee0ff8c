"""Certificates: what the exact verifier accepts is a proof, and nothing else is accepted."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worst_case_cells import make_cell

from theory.support.command import run_command
from theory.support.errors import UserError
from theory.support.locks import lock
from theory.worst_case import certify as certify_command
from theory.worst_case import verify
from theory.worst_case.cells import Cell
from theory.worst_case.certificate import certify, head_of, width
from theory.worst_case.reduction import worst_case

Certificate = dict[str, Any]
CELLS = [
    make_cell(1, 1, 1.0),
    make_cell(2, 2, 1.0),
    make_cell(2, 2, 1.5, "best"),
    make_cell(2, 2, 0.5, "average_sync"),
    make_cell(2, 2, 0.75, "average_local"),
    make_cell(3, 1, 0.5, "average_local", one_node=True),
    make_cell(2, 2, 0.5, "distance", growth=0.1),
]


@pytest.fixture(scope="module")
def found() -> Certificate:
    return certify(make_cell(2, 2, 1.0))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_worst_case_is_enclosed_to_a_millionth(cell: Cell) -> None:
    certificate = certify(cell)
    lower, upper = verify.verify(certificate)
    value = worst_case(cell).value
    assert float(lower) - 1e-9 <= value <= float(upper) + 1e-9
    assert 0 <= width(certificate) < 1e-6


@pytest.mark.parametrize("local_steps", [1, 2])
def test_the_last_iterate_at_one_over_l_is_one_over_4t_plus_2(local_steps: int) -> None:
    lower, upper = verify.verify(certify(make_cell(local_steps, 2, 1.0)))
    assert lower <= Fraction(1, 8 * local_steps + 2) <= upper


def test_an_exact_certificate_by_hand() -> None:
    # K = R = 1, eta = 1, average_local: f(x_0) <= ||x_0||^2 / 2, attained by x^2 / 2.
    certificate = {
        "cell": {
            "local_steps": 1,
            "rounds": 1,
            "metric": "average_local",
            "step_size": "1",
            "outer_step": "1",
            "growth": "0",
            "one_node": True,
        },
        # f_0 <= <g_0, x_0> - ||g_0||^2/2 once, and (x_0 - g_0)^2 / 2 >= 0.
        "upper": {"start": "1/2", "shift": "0", "pairs": [[-1, 0, "1"]], "bound": "1/2"},
        "lower": {"scale": "1/2", "mean": [[2, 2], [2, 2]], "losses": [1], "value": "1/2"},
    }
    assert verify.verify(certificate) == (Fraction(1, 2), Fraction(1, 2))


def _entry(certificate: Certificate, path: tuple[Any, ...]) -> tuple[Any, Any]:
    place = certificate
    for key in path[:-1]:
        place = place[key]
    return place, path[-1]


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _leaves(v, (*path, k))]
    if isinstance(value, list):
        return [leaf for k, v in enumerate(value) for leaf in _leaves(v, (*path, k))]
    return [path]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_one_digit_changed_is_rejected_or_still_a_proof(found: Certificate, data: Any) -> None:
    forged = copy.deepcopy(found)
    place, key = _entry(forged, data.draw(st.sampled_from(_leaves(found))))
    text = str(place[key])
    digits = [i for i, letter in enumerate(text) if letter.isdigit()]
    if isinstance(place[key], bool) or not digits:
        return
    at = data.draw(st.sampled_from(digits))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[at]]))
    changed = text[:at] + digit + text[at + 1 :]
    place[key] = int(changed) if isinstance(place[key], int) else changed
    try:
        lower, upper = verify.verify(forged)
    except verify.Rejected:
        return
    # What is accepted is true: the claim cannot cross the worst case of the cell that it names.
    cell = verify.Cell(forged["cell"])
    truth = worst_case(make_cell(cell.k, cell.r, float(cell.eta), cell.metric)).value
    assert float(lower) <= truth + 1e-8 and float(upper) >= truth - 1e-8


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (("upper", "bound"), lambda v: str(Fraction(v) - Fraction(1, 10**7))),
        (("lower", "value"), lambda v: str(Fraction(v) + Fraction(1, 10**7))),
        (("upper", "start"), lambda v: str(Fraction(v) * Fraction(9, 10))),
        (("upper", "pairs", 0, 2), lambda v: "-" + v),
        (("lower", "mean", 0, 0), lambda v: 2 * v),
        (("lower", "mean", 0, 1), lambda v: v + 1),
        (("lower", "losses", 0), lambda v: v + 10**9),
        (("cell", "step_size"), lambda v: "3/2"),
        (("cell", "rounds"), lambda v: 3),
        (("cell", "metric"), lambda v: "anything"),
        (("upper", "shift"), lambda v: "-1"),
    ],
)
def test_a_tampered_certificate_is_rejected(
    found: Certificate, path: tuple[Any, ...], change: Callable[[Any], Any]
) -> None:
    forged = copy.deepcopy(found)
    place, key = _entry(forged, path)
    place[key] = change(place[key])
    with pytest.raises(verify.Rejected):
        verify.verify(forged)


@pytest.mark.parametrize("content", ["[]", '{"cell": 3}', "{}", '{"cell": {"local_steps": "2"}}'])
def test_what_is_no_certificate_is_rejected(content: str) -> None:
    with pytest.raises(verify.Rejected):
        verify.verify(json.loads(content))


def test_growth_of_the_mean_has_no_certificate() -> None:
    with pytest.raises(UserError, match="growth of the nodes"):
        certify(make_cell(1, 1, 1.0, "distance", growth=0.1, growth_of="mean"))


def test_the_verifier_needs_nothing_but_the_standard_library(
    found: Certificate, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(json.dumps(found) + "\n")
    bad.write_text(json.dumps(found | {"upper": {}}) + "\n")

    def run(*files: Path) -> subprocess.CompletedProcess[str]:
        # -I -S: no site-packages, so an import of NumPy would fail.
        command = [sys.executable, "-I", "-S", verify.__file__, *map(str, files)]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(good)
    assert done.returncode == 0 and done.stdout.startswith("PROVED 0.0555555")
    assert run(bad).returncode == 1 and "REJECTED" in run(bad).stdout
    assert run(tmp_path / "none").returncode == 2 and run().returncode == 2
    assert len(Path(verify.__file__).read_text().splitlines()) < 200


RECORD = Path(verify.__file__).parents[1] / "results" / "certificates"


@pytest.mark.parametrize("path", sorted(RECORD.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_sample_of_the_committed_certificates_is_proved(path: Path) -> None:
    lines = path.read_text().splitlines()
    for line in lines[:: max(1, len(lines) // 6)]:
        lower, upper = verify.verify(json.loads(line))
        assert 0 <= upper - lower < Fraction(1, 10**6)


def test_every_cell_up_to_sixteen_iterations_has_a_certificate() -> None:
    found = {key for path in RECORD.glob("*.jsonl") for key in certify_command.read(path)}
    wanted = {certify_command.key(head_of(cell)) for cell in certify_command.certifiable(16)}
    assert wanted <= found


def test_a_file_that_holds_no_certificates_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "last.jsonl").write_text('{"cell": {"metric": "last"}}\n')
    for out, message in (("file", "is not a folder"), ("folder", "holds no certificates")):
        arguments = ["--out", str(tmp_path / out), "--most", "1"]
        assert run_command(certify_command.app, "certify", arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error


def test_two_processes_do_not_certify_into_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each writes whole files, so the later one would drop what the other has found."""
    arguments = ["--out", str(tmp_path), "--most", "1"]
    with lock(tmp_path / "certify.lock", "held"):
        assert run_command(certify_command.app, "certify", arguments) == 2
    assert "another process certifies into" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.jsonl"))
    assert run_command(certify_command.app, "certify", arguments) == 0


def test_what_is_certified_before_an_interruption_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Cell] = []

    def interrupted(cell: Cell) -> dict[str, Any]:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(cell)
        return certify(cell)

    monkeypatch.setattr(certify_command, "certify", interrupted)
    arguments = ["--out", str(tmp_path), "--most", "1"]
    assert run_command(certify_command.app, "certify", arguments) == 130
    kept = {name for path in tmp_path.glob("*.jsonl") for name in certify_command.read(path)}
    assert kept == {certify_command.key(head_of(cell)) for cell in done}
