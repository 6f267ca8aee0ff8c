"""The energy balances in figures and record: drawn as they are, answered by their rules, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import balanced, ladder_result, made_windows, write_energy
from made_figures import line, xy
from matplotlib.container import BarContainer

from figures.analysis.energy import balances, control, runs_with_results, shown
from figures.analysis.energy_phases import PHASES, phased
from figures.analysis.energy_readings import NOT_MEASURED, readings, second_half
from figures.analysis.ladder import Run
from figures.analysis.sources import MissingResult, Sources
from figures.drawing import energy as drawing
from figures.drawing import style
from figures.record import energy_tables
from theory.support.energy import Windows
from theory.support.errors import UserError

#: A plateau of six windows, a fall of six, a tail of eight.
EDGES = [0, *(round(10 * 1.4**i) for i in range(20))]
LOSS = [2.0] * 6 + list(np.geomspace(0.9, 0.22, 6)) + list(np.geomspace(0.1, 1e-4, 8))


def windows(**changes: Any) -> Windows:
    """Own steps move away in the second half, averaging brings nearer."""
    given = {
        "step_size": 0.2,
        "aim": [1.0] * 20,
        "noise": [0.8] * 10 + [3.0] * 10,
        "total": [0.1 * 1.25**i for i in range(12)] + [0.4] * 8,
        **changes,
    }
    return made_windows(iteration=EDGES, loss=LOSS, **given)


def run(
    regime: str = "iid", k: int = 5, found: Windows | None = None, rounds: int = 100, **config: Any
) -> Run:
    status = config.pop("status", "reached")
    result = ladder_result(regime, k, rounds, status, **config)
    template = result["metrics"][-1]
    result["metrics"] = [
        {**template, "iteration": t, "round": t // k, "train_loss": f}
        for t, f in zip(EDGES, [2.0, *LOSS], strict=True)
    ]
    name = f"{regime} K{k} {config}"
    return Run(name, result if found is None else balanced(result, found))


def answers(*runs: Run) -> list[str]:
    return [reading.answer for reading in readings(runs)]


def answer(number: int, *runs: Run) -> str:
    return answers(*runs)[number]


AWAY, STEP, PLATEAU, TAIL, BEND, EXTRAPOLATION = range(6)


def test_without_results_nothing_is_measured() -> None:
    assert answers() == [NOT_MEASURED] * 6
    assert answers(run()) == [NOT_MEASURED] * 6


@pytest.mark.parametrize("status", ["unfinished", "diverged"])
def test_only_ended_runs_whose_balance_closes_are_read(status: str) -> None:
    assert not balances([run(found=windows(), status=status)])
    open_ = windows()
    wrong = Windows(**{**vars(open_), "inner": open_.inner * 1.01})
    assert wrong.closing_error > 1e-6 > open_.closing_error
    assert not balances([run(found=wrong)]) and len(balances([run(found=open_)])) == 1


def test_away_is_read_at_the_paper_s_step_only() -> None:
    paper = windows(step_size=0.075)
    toward = windows(step_size=0.075, noise=[0.5] * 20)
    assert answer(AWAY, run(found=windows())) == NOT_MEASURED
    away, near = run(found=paper, step_size=0.075), run("one shard", found=toward, step_size=0.075)
    assert answer(AWAY, away) == "yes"
    assert answer(AWAY, near) == "no"
    assert answer(AWAY, away, near) == "in part"
    assert answer(AWAY, run(found=paper, step_size=0.075, outer_step=0.5)) == NOT_MEASURED


def test_the_step_is_the_least_turning_step_size() -> None:
    # phi_hat turns where the noise, which grows like eta, is the aim: 0.2/3.
    (reading,) = [r for r in readings([run(found=windows())]) if "which step" in r.question]
    assert reading.answer == "below 0.067"
    assert reading.measured == "below 0.0667, 3.0 times the rounds (1 of 1 runs)"
    backwards = run("one shard", found=windows(aim=[1.0] * 19 + [-0.1]))
    assert answer(STEP, backwards) == "with none"
    both = readings([run(found=windows()), backwards])[STEP]
    assert "(1 of 2 runs); one shard, K = 5: none" in both.measured
    # A larger rung is what counts.
    wide = run(found=windows(noise=[0.5] * 20), width=16)
    assert answer(STEP, run(found=windows()), wide) == "below 0.4"


def test_the_plateau_is_a_phase_if_aim_or_noise_jump_at_its_end() -> None:
    (balance,) = balances([run(found=windows())])
    assert [len(LOSS[phased(balance).slices[phase]]) for phase in PHASES] == [6, 6, 8]
    steady: dict[str, Any] = {"noise": [2.0] * 20}
    assert answer(PLATEAU, run(found=windows(**steady))) == "no"
    jump = windows(noise=[0.5] * 6 + [3.0] * 14)
    assert answer(PLATEAU, run(found=jump)) == "yes"
    assert answer(PLATEAU, run(found=windows(**steady, aim=[0.2] * 6 + [1.5] * 14))) == "yes"
    assert answer(PLATEAU, run(found=jump), run("one shard", found=windows(**steady))) == "in part"


def test_the_tail_is_near_constant_or_not() -> None:
    assert answer(TAIL, run(found=windows())) == "yes"
    assert answer(TAIL, run(found=windows(total=[0.1 * 1.25**i for i in range(20)]))) == "no"
    # Constant everywhere is no mark of the tail.
    assert answer(TAIL, run(found=windows(total=[0.4] * 20))) == "no"


def test_the_bend_is_compared_with_the_measured_c() -> None:
    # c is 0.5 in these results: rounds are level until K = 2 and then fall like 1/K.
    near = [run(k=1, rounds=1000), run(k=5, rounds=400), run(k=20, rounds=100)]
    assert answer(BEND, *near) == "yes"
    (reading,) = [r for r in readings(near) if "bend" in r.question]
    assert "bend at 2, 1/c = 2" in reading.measured
    level = [run("one shard", k=1, rounds=1000), run("one shard", k=20, rounds=900)]
    assert answer(BEND, *level) == "no" and answer(BEND, *near, *level) == "in part"
    assert answer(BEND, *near[1:]) == NOT_MEASURED


def test_extrapolation_gains_what_p_over_q_says_or_not() -> None:
    # P/Q is 10 in these results.
    plain = run(k=20, rounds=1000)
    extrapolated: dict[str, Any] = {"k": 20, "outer_step": "extrapolated"}
    assert answer(EXTRAPOLATION, plain, run(rounds=120, **extrapolated)) == "yes"
    assert answer(EXTRAPOLATION, plain, run(rounds=900, **extrapolated)) == "no"
    assert answer(EXTRAPOLATION, plain, run(status="diverged", **extrapolated)) == "no"
    assert answer(EXTRAPOLATION, plain, run(status="unfinished", **extrapolated)) == NOT_MEASURED
    assert answer(EXTRAPOLATION, run(rounds=120, **extrapolated)) == NOT_MEASURED


def test_second_halves_are_of_the_iterations() -> None:
    one = run()
    rows = one.result["metrics"]
    for row in rows:
        row["least_loss_ratio"] = 0.1 if 2 * row["iteration"] < rows[-1]["iteration"] else 0.7
    assert second_half(one, "least_loss_ratio") == 0.7
    (balance,) = balances([run(found=windows())])
    assert balance.late.iteration[0] >= 0.5 * EDGES[-1] > EDGES[-4]
    assert balance.measured("least_loss_ratio")[5] == 0.5


# ---- figure and tables ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    root = tmp_path_factory.mktemp("energy")
    write_energy(root)
    folder = root / "deep/results/ladder"
    folder.mkdir(parents=True)
    runs = [
        *(run(regime, k, windows()) for regime in ("iid", "one shard") for k in (1, 5)),
        run(found=windows(noise=[0.1] * 20), seed=1),
        run(found=windows(), width=16),
        run("one shard", found=windows(), outer_step="polyak"),
    ]
    for number, one in enumerate(runs):
        (folder / f"run{number}.json").write_text(json.dumps(one.result))
    return Sources(root)


def test_the_figure_draws_the_balances_beside_the_control(sources: Sources) -> None:
    with style.house_style():
        figure = drawing.energy(sources)
    columns = [ax.get_title() for ax in figure.axes[:4]]
    assert columns == [
        *(f"theory:\n{name}" for name in drawing.CONTROLS),
        "ResNet18:\niid",
        "ResNet18:\none shard",
    ]
    loss, phi, parts, shares = figure.axes[2::4]
    drawn = windows()
    for ax, label, expected in (
        (loss, "K=5", LOSS),
        (loss, "f K=5", LOSS),
        (phi, "K=5", drawn.phi_hat),
        (phi, "total K=5", drawn.phi_total),
        (parts, "K=1", drawn.aim),
        (parts, "noise K=1", drawn.noise),
    ):
        assert xy(line(ax, label))[1] == pytest.approx(expected), label
    bars = [bar for bar in shares.containers if isinstance(bar, BarContainer)]
    heights = {str(bar.get_label()): bar.patches[0].get_height() for bar in bars}
    # All of D_0 is gone: what was taken less what was given back is one.
    assert sum(heights.values()) == pytest.approx(1.0) and heights["noise"] < 0
    cells = {(c.label, c.local_steps): c for c in control(sources)}
    theory = figure.axes[4]
    expected = cells[drawing.CONTROLS[0], 5].windows.at_most(drawing.MOST_WINDOWS).phi_hat
    assert xy(line(theory, "K=5"))[1] == pytest.approx(expected) and (expected >= 1).all()


def test_without_deep_results_the_control_stands_alone(tmp_path: Path) -> None:
    write_energy(tmp_path)
    with style.house_style():
        figure = drawing.energy(Sources(tmp_path))
    assert len(figure.axes) == 8 and "No deep run" in figure.get_supxlabel()
    with pytest.raises(MissingResult, match=r"python -m theory\.energy"):
        drawing.energy(Sources(tmp_path / "empty"))


def test_shown_are_plain_runs_of_the_fullest_rung(sources: Sources) -> None:
    found = shown(balances(runs_with_results(sources)))
    assert [(b.run.regime, b.local_steps) for b in found] == [
        ("iid", 1),
        ("iid", 5),
        ("one shard", 1),
        ("one shard", 5),
    ]
    assert all(b.run.rung.width == 8 and not b.run.seed for b in found)


def test_the_tables_have_a_row_a_balance_and_a_question(sources: Sources) -> None:
    table = energy_tables.energy(sources)
    assert len(table.rows) == 7 + len(control(sources))
    assert all(len(row) == len(table.head) for row in table.rows)
    by_phase = energy_tables.energy_phases(sources)
    (wide,) = by_phase.rows  # of the largest rung alone
    assert wide[0].startswith("width 16") and wide[4] == "1.00 / 1.00 / 1.00"
    assert wide[5] == "0.80 / 0.80 / 3.00" and wide[-1] == "3.0 times"
    questions = energy_tables.energy_questions(sources)
    assert len(questions.rows) == 6 and questions.rows[AWAY][2] == NOT_MEASURED


@pytest.mark.parametrize(("key", "value"), [("loss", "much"), ("distance", None)])
def test_a_balance_that_is_no_numbers_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    one = run(found=windows())
    one.result["energy"]["windows"][3][key] = value
    folder = tmp_path / "deep/results/ladder"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(one.result))
    with pytest.raises(UserError, match=rf"energy\.windows\[3\]\.{key} is"):
        runs_with_results(Sources(tmp_path))
