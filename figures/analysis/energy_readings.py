"""What the energy balances say of six questions, by rules.

The rules were written before any balance of the ladder was looked at; ``paper_repro.md`` states them too.
Only runs that have ended and whose balance closes are read; a question without them is not measured. A run's
second half is that of its iterations. Its phases go by the training loss of xbar at the windows' ends: the
plateau while it is above half of that at the start, the fall until it is below a tenth, the tail from there on.

Away: does plain training with the paper's step 0.075 move away from its solution on its own? Yes if in the
    second half phi_hat < 0 < phi_total in all its runs, no if in none, in part otherwise.
Step: with which step would T1's mechanism hold? Below the least of 20 windows' turning step sizes, 2 sum
    <g, x - z> / sum ||g||^2; it costs eta over that times the rounds, if rounds go like 1/eta. Of the largest
    rung's runs; none if an aim is negative.
Plateau: a phase of its own if the middle halves of the windows' aims, or those of their noises, do not
    overlap between plateau and fall. Yes, no, in part as above; a phase needs four windows.
Tail: the phase of near constant phi_total if the windows' 90% quantile is at most 1.5 times their 10%
    quantile in the tail, and more than that in the fall.
Bend: rounds that are level until K = 1/c and then fall like 1/K need K rounds(K)/rounds(1) = 1/c at the
    largest K. c is the median over the second halves of the regime's runs. Yes where the two are within a
    factor of 2.
Extrapolation: P/Q predicts its gain, rounds(plain)/rounds(extrapolated), if it is within a factor of 2 of
    the median P/Q of the plain run's second half; no, too, where only the extrapolated run misses the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from figures.analysis.deep_runs import column
from figures.analysis.energy import Balance, balances
from figures.analysis.energy_phases import PHASES, Phased, apart, largest_rung, spread
from figures.analysis.ladder import Run, Rung

PAPER_STEP, NEAR_CONSTANT, FACTOR = 0.075, 1.5, 2.0
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Reading:
    """A question, what was measured, and the answer by its rule."""

    question: str
    measured: str
    answer: str


def readings(runs: Sequence[Run]) -> list[Reading]:
    """The six questions, each answered from the runs there are."""
    found = balances(runs)
    largest = largest_rung(found)
    return [
        _away([balance for balance in found if balance.run.is_plain]),
        _step(largest),
        _plateau(largest),
        _tail(largest),
        _bend(runs),
        _extrapolation(runs),
    ]


def _together(answers: Sequence[bool]) -> str:
    if not answers:
        return NOT_MEASURED
    return "yes" if all(answers) else "in part" if any(answers) else "no"


def _name(run: Run) -> str:
    seed = f", seed {run.seed}" if run.seed else ""
    return f"{run.regime}, K = {run.local_steps}{seed}"


def _list(parts: Sequence[str]) -> str:
    return "; ".join(parts) if parts else "-"


def _range(values: Sequence[float], form: str) -> str:
    low, high = (format(value, form) for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _away(plain: Sequence[Balance]) -> Reading:
    parts, answers = [], []
    for balance in plain:
        if balance.run.config["step_size"] != PAPER_STEP:
            continue
        own, total = float(balance.late.phi_hat[0]), float(balance.late.phi_total[0])
        whole = balance.windows.whole()
        parts.append(
            f"{_name(balance.run)}: phi_hat {own:.2f}, phi_total {total:.2f}; over the whole run "
            f"{float(whole.phi_hat[0]):.2f} and {float(whole.phi_total[0]):.2f}"
        )
        answers.append(own < 0 < total)
    question = (
        "At step 0.075, do own steps move away and averaging bring nearer, in the second half?"
    )
    return Reading(question, _list(parts), _together(answers))


def _step(runs: Sequence[Phased]) -> Reading:
    question = "With which step would T1's mechanism hold, and at what cost in rounds?"
    if not runs:
        return Reading(question, "-", NOT_MEASURED)
    turning = [(one.balance, one.turning_step_size) for one in runs]
    positive = [(balance, step) for balance, step in turning if step > 0]
    parts = []
    if positive:
        steps = [step for _, step in positive]
        costs = [balance.windows.step_size / step for balance, step in positive]
        parts.append(
            f"below {_range(steps, '.3g')}, {_range(costs, '.1f')} times the rounds "
            f"({len(positive)} of {len(runs)} runs)"
        )
    parts += [
        f"{_name(balance.run)}: none, gradients of a window point away from the end"
        for balance, step in turning
        if step <= 0
    ]
    least = min(step for _, step in turning)
    return Reading(question, _list(parts), f"below {least:.2g}" if least > 0 else "with none")


def _plateau(runs: Sequence[Phased]) -> Reading:
    answers, medians = [], []
    for one in runs:
        w = one.balance.windows
        aim, noise = ([one.of(x, phase) for phase in PHASES[:2]] for x in (w.aim, w.noise))
        if not all(map(len, aim)):
            continue
        answers.append(apart(*aim) or apart(*noise))
        medians.append([float(np.median(x)) for x in (*aim, *noise)])
    parts = []
    if medians:
        ranges = [_range(values, ".2f") for values in zip(*medians, strict=True)]
        parts = [
            f"apart in {sum(answers)} of {len(answers)} runs: aim {ranges[0]}, then {ranges[1]}; noise "
            f"{ranges[2]}, then {ranges[3]} (medians)"
        ]
    question = "Is the plateau before the fall a phase of its own in aim or noise?"
    return Reading(question, _list(parts), _together(answers))


def _tail(runs: Sequence[Phased]) -> Reading:
    answers, spreads = [], []
    for one in runs:
        fall, tail = (one.of(one.balance.windows.phi_total, phase) for phase in PHASES[1:])
        if not len(fall) or not len(tail):
            continue
        spreads.append((spread(fall), spread(tail)))
        answers.append(spreads[-1][1] <= NEAR_CONSTANT < spreads[-1][0])
    parts = []
    if spreads:
        in_fall, in_tail = (_range(values, ".2g") for values in zip(*spreads, strict=True))
        parts = [
            f"near constant in {sum(answers)} of {len(answers)} runs: 90% over 10% quantile {in_fall} in the "
            f"fall, {in_tail} in the tail"
        ]
    question = "Is the tail the phase of near constant phi_total?"
    return Reading(question, _list(parts), _together(answers))


def second_half(run: Run, name: str) -> float | None:
    """The median of a column of the metrics in the second half of the iterations; None without rows."""
    iterations, values = column(run.result, "iteration"), column(run.result, name)
    late = values[(iterations >= 0.5 * iterations[-1]) & np.isfinite(values)]
    return float(np.median(late)) if len(late) else None


def _bend(runs: Sequence[Run]) -> Reading:
    groups: dict[tuple[Rung, str], dict[int, Run]] = {}
    for run in runs:
        if run.is_plain and run.rounds and not run.seed:
            groups.setdefault((run.rung, run.regime), {})[run.local_steps] = run
    parts, answers = [], []
    for (rung, regime), by_k in groups.items():
        largest = max(by_k)
        first, last = by_k.get(1), by_k[largest]
        found = [c for run in by_k.values() if (c := second_half(run, "least_loss_ratio"))]
        if first is None or largest == 1 or not found or not first.rounds or not last.rounds:
            continue
        bend, inverse = largest * last.rounds / first.rounds, 1 / float(np.median(found))
        answers.append(1 / FACTOR <= bend / inverse <= FACTOR)
        parts.append(f"{rung.label}, {regime}: bend at {bend:.2g}, 1/c = {inverse:.2g}")
    question = "Does the bend of rounds against K come near 1/c, with c measured on the network?"
    return Reading(question, _list(parts), _together(answers))


def _extrapolation(runs: Sequence[Run]) -> Reading:
    plain = {(r.rung, r.regime, r.local_steps, r.seed): r for r in runs if r.is_plain and r.rounds}
    parts, answers = [], []
    for run in runs:
        beside = plain.get((run.rung, run.regime, run.local_steps, run.seed))
        if run.variant != "extrapolated outer step" or beside is None or not beside.rounds:
            continue
        ratio = second_half(beside, "movement_ratio")
        if ratio is None or run.summary["status"] == "unfinished":
            continue
        if run.rounds:
            gain = beside.rounds / run.rounds
            answers.append(1 / FACTOR <= gain / ratio <= FACTOR)
            parts.append(f"{_name(run)}: P/Q {ratio:.2g}, gain {gain:.2g}")
        else:
            answers.append(False)
            parts.append(f"{_name(run)}: P/Q {ratio:.2g}, {run.summary['status']}")
    question = "Does P/Q predict what extrapolation gains?"
    return Reading(question, _list(parts), _together(answers))
