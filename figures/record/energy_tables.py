"""Tables of the energy balances: every run that has one, its phases, and the questions they answer by rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from figures.analysis.energy import Balance, balances, control, runs_with_results
from figures.analysis.energy_phases import PHASES, Phased, largest_rung, spread
from figures.analysis.energy_readings import readings, second_half
from figures.analysis.sources import Sources
from figures.record.table import Table, value_text
from theory.support.energy import Array, Windows


def energy(sources: Sources) -> Table:
    """Every balance: of runs, and of the control."""
    rows = [_row(balance) for balance in balances(runs_with_results(sources))]
    for cell in control(sources):
        whole = cell.windows.whole()
        rows.append((f"control: {cell.label}", str(cell.local_steps), *_numbers(whole), "-", "-"))
    return Table(
        "The energy balance: of own steps, averaging, and the shares of D_0",
        (
            "run",
            "K",
            "phi_hat",
            "phi_total",
            "aim",
            "noise",
            "Lambda",
            "turning step",
            "averaging took",
            "progress took",
            "noise gave back",
            "c",
            "P/Q",
        ),
        rows,
        "Over whole runs, towards the last model; the control towards x*, on problems where phi_hat is at "
        "least 1 by theorem (sigmoid: no theorem). c = min_i f_i/f and P/Q: medians of the second half of "
        "the iterations. As x nears z at the end of a run, aim and phi_total go to 0 whatever the loss does. Runs "
        "that have not ended, or whose balance does not close, are left out.",
    )


def _label(balance: Balance) -> str:
    run = balance.run
    seed = f", seed {run.seed}" if run.seed else ""
    variant = f", {run.variant}" if run.variant else ""
    return f"{run.rung.label}, {run.regime}{variant}{seed}"


def _row(balance: Balance) -> tuple[str, ...]:
    run = balance.run
    return (
        _label(balance),
        str(run.local_steps),
        *_numbers(balance.windows.whole()),
        value_text(second_half(run, "least_loss_ratio"), ".2g"),
        value_text(second_half(run, "movement_ratio"), ".2g"),
    )


def _numbers(whole: Windows) -> tuple[str, ...]:
    shares = whole.shares
    values = (whole.phi_hat, whole.phi_total, whole.aim, whole.noise)
    return (
        *(f"{float(value[0]):.2f}" for value in values),
        f"{float(whole.smoothness[0]):.3g}",
        f"{float(whole.turning_step_size[0]):.2g}",
        *(f"{float(np.abs(shares[name][0])):.0%}" for name in ("averaging", "progress", "noise")),
    )


def energy_phases(sources: Sources) -> Table:
    """The phases of every run of the largest rung."""
    return Table(
        "The energy balance by phases of the run: plateau / fall / tail",
        (
            "run",
            "K",
            "phi_hat",
            "phi_total",
            "aim",
            "noise",
            "spread of phi_total",
            "least turning step",
            "rounds at it",
        ),
        [_phase_row(one) for one in largest_rung(balances(runs_with_results(sources)))],
        "phi_hat and phi_total of each phase as a whole; aim and noise: medians of its windows; spread: their 90% "
        "over their 10% quantile. -: fewer than four windows. The least turning step is that of 20 windows; the "
        "rounds at it are a multiple of the run's, if rounds go like 1/eta.",
    )


def _phase_row(one: Phased) -> tuple[str, ...]:
    windows, whole = one.balance.windows, [one.whole(phase) for phase in PHASES]
    least = one.turning_step_size

    def numbers(values: Sequence[float | None], form: str) -> str:
        return " / ".join(value_text(value, form) for value in values)

    def summary(values: Array, of: Callable[[Array], float]) -> list[float | None]:
        parts = [one.of(values, phase) for phase in PHASES]
        return [float(of(part)) if len(part) else None for part in parts]

    return (
        _label(one.balance),
        str(one.balance.local_steps),
        numbers([None if w is None else float(w.phi_hat[0]) for w in whole], ".2f"),
        numbers([None if w is None else float(w.phi_total[0]) for w in whole], ".2f"),
        numbers(summary(windows.aim, np.median), ".2f"),
        numbers(summary(windows.noise, np.median), ".2f"),
        numbers(summary(windows.phi_total, spread), ".2g"),
        f"{least:.2g}" if least > 0 else "none",
        f"{windows.step_size / least:.1f} times" if least > 0 else "-",
    )


def energy_questions(sources: Sources) -> Table:
    """The questions, what was measured, and the answer that the rule gives."""
    return Table(
        "What the balances answer",
        ("question", "measured", "by the rule"),
        [(r.question, r.measured, r.answer) for r in readings(runs_with_results(sources))],
        "The rules were written before the ladder's balances were looked at; they stand above the table. What "
        "they leave open: the second half of a run lies after the fall and holds little of its loss, so the "
        "whole run stands beside it; a step is judged with the gradients of the path as they are, though a "
        "longer step lengthens the weights and turns them less (see the table of step sizes); and where the "
        "loss falls like 1/t, phi_total towards the run's own last model goes like log(T/t), which alone "
        "spreads log-spaced windows about nine-fold.",
    )
