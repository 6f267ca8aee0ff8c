"""The advice on one screen of 80 columns."""

from __future__ import annotations

import math
import textwrap

from rich.table import Table

from theory.advise.advice import LATER, OUTER_STEPS, STEPS, Advice, Tried
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem
from theory.verification.tables import WIDTH, number, ruled, whole

#: What the outer steps are called.
NAMES = {
    1.0: "plain mean",
    "half-extrapolated": "P/(2Q)",
    "extrapolated": "P/Q",
    "polyak": "Polyak's",
}


def constants(problem: MarginProblem) -> str:
    """kappa, and where local steps begin to pay; each said to be unknown where it is."""
    return "\n".join(
        "\n".join(textwrap.wrap(line, WIDTH)) for line in (_condition(problem), bend(problem))
    )


def bend_at(problem: MarginProblem) -> float:
    """1/c, infinite for c = 0; NaN where c is not known."""
    unknown = "similarity" in problem.doubts or problem.curvature_floor is None
    if unknown and problem.similarity == 0:
        return math.nan
    return 1.0 / problem.similarity if problem.similarity > 0 else math.inf


def bend(problem: MarginProblem) -> str:
    """What c says of local steps, in the worst case."""
    at = bend_at(problem)
    if math.isnan(at):
        why = problem.doubts.get("similarity", f"no bound on c is known for {problem.loss.name}")
        return f"Bend: not known, as c is not ({why})."
    if math.isinf(at):
        return (
            "Bend: none. c = 0, some node does not see a direction that others do, and in the worst "
            "case local steps then save no rounds at all."
        )
    certified = "" if problem.loss is SQUARED or at == 1 else " at most, c being a lower bound"
    return (
        f"Bend: K = 1/c = {number(at)}{certified}. In the worst case rounds are level up to it and fall like 1/K "
        "beyond."
    )


def _condition(problem: MarginProblem) -> str:
    if problem.solution is None:
        if problem.least_loss > 0:
            return "A2 fails: no x fits all samples, so no theorem here covers these nodes."
        return (
            "The minimum is not attained: kappa, c and mu do not exist, and T5 is the theorem that "
            f"covers these nodes (margin {number(problem.margin)})."
        )
    if not problem.convex:
        return (
            "Not convex: T1 to T5 and the outer steps of T8 say nothing; T6 needs steps below "
            f"1/(10 rho K L), rho = {_known(problem, 'strong_growth', problem.strong_growth)}. Larger "
            "ones below are measured, not covered."
        )
    ratios = [
        problem.smoothness / mu if mu > 0 else math.inf
        for mu in (problem.local_growth, problem.global_growth)
    ]
    own, mean = (
        _known(problem, name, value)
        for name, value in zip(("local_growth", "global_growth"), ratios, strict=True)
    )
    return f"kappa = L/mu: {mean} for the mean of the nodes (T4'), {own} for each of them (T4)."


def _known(problem: MarginProblem, name: str, value: float) -> str:
    if name in problem.doubts:
        return "not known"
    return "infinite" if math.isinf(value) else number(value)


def spread_line(advice: Advice) -> str:
    """P/Q, by how much the server's step may be stretched."""
    first, later = (number(value) for value in advice.spread)
    return (
        f"P/Q, by how much the mean of the nodes' movements may be stretched: {first} at x_0, {later} "
        f"after {LATER} rounds (plain mean, K = {advice.spread_at}, step 1/L)."
    )


def rounds_title(advice: Advice) -> str:
    """What stands above the table."""
    steps = ", ".join(f"{step:g}" for step in STEPS)
    share = advice.start_loss / advice.eps
    times = f"{share:,.0f}" if share >= 10 else f"{share:.3g}"
    return f"Rounds until f <= {advice.eps:.3g} = f(x_0)/{times}, best of steps {steps} times 1/L:"


def rounds_table(advice: Advice) -> Table:
    """Rounds to eps for every outer step and K, and what theory promises of the plain mean."""
    heads = [f"K={k}" for k in advice.local_steps]
    table = ruled("", {"outer step": 18}, heads, verdict=False)
    for outer in OUTER_STEPS:
        table.add_row(NAMES[outer], *(_rounds(t.rounds) for t in advice.row(outer)))
    table.add_row("promised, plain", *(_rounds(t.promised) for t in advice.row(1.0)))
    return table


def _rounds(value: float) -> str:
    return whole(value, never="never", below=1e6)


def recommendation(problem: MarginProblem, advice: Advice) -> list[str]:
    """The setting recommended with its rounds, and plain Local SGD beside it."""
    chosen = advice.recommended
    if chosen is None:
        least = min(t.least_loss for t in advice.tried)
        return [
            f"No advice: nothing that was tried came to f <= {advice.eps:.3g} within {advice.most:,} rounds; "
            f"the least was {least:.3g}. Try more rounds (-R), other K, or a larger --eps."
        ]
    eta = chosen.step / problem.smoothness
    lines = [
        f"Advice: step eta = {chosen.step:g}/L = {eta:.4g}, K = {chosen.local_steps}, "
        f"m = {chosen.clients} of {problem.n_nodes} nodes a round, outer step "
        f"{'1, the plain mean' if chosen.outer_step == 1.0 else chosen.outer_step}.",
        f"  It takes {_takes(chosen)}.",
        f"  Plain Local SGD with K = 1, all nodes and step 1/L takes {_takes(advice.plain)}.",
    ]
    if not chosen.theorem:
        lines.append("  No theorem here promises it a number of rounds: it is measured only.")
    lines.append(
        f"Least time rounds (C + K), a communication costing C = {advice.cost:g} local steps; then the "
        "fewest clients with at most 10% more rounds. From these nodes as they are: other data, other "
        "advice."
    )
    return lines


def _takes(found: Tried) -> str:
    if math.isnan(found.rounds):
        return "more rounds than were tried"
    spread = (
        "exact expectation"
        if found.exact
        else f"mean over paths; 5% to 95% of them {_rounds(found.low)} to {_rounds(found.high)}"
    )
    promise = (
        f"; {found.theorem} promises {_rounds(found.promised)} at 1/L" if found.theorem else ""
    )
    count = _rounds(found.rounds)
    return f"{count} {'round' if count == '1' else 'rounds'} ({spread}{promise})"
