"""The third search for a counterexample: small problems whose data an adversary moves."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from theory.claim import adversary
from theory.claim.claim import Claim
from theory.claim.search import Cell, Report, Tick, judged, small_first
from theory.problems.losses import SQUARED
from theory.problems.margin import MarginProblem


def search_adversary(
    claim: Claim,
    cells: Sequence[Cell],
    *,
    seed: int = 0,
    starts: int = 6,
    deadline: float = math.inf,
    tick: Tick = lambda _: None,
) -> Report:
    """Small problems whose data are moved until measured / claimed is largest."""
    report = Report("adversary")
    if claim.formula is None:
        report.left_out.append("the claim is a theorem, not a formula")
        return report
    # Nearly parallel samples have a large rho, equal ones, or one alone, have 1: no slope leads there.
    tried = 0
    shapes = adversary.shapes(
        (1, 2) if claim.family == "non-convex" else (2, 3),
        spanning=bool({"c", "mu"} & set(claim.formula.names)),
    )
    for cell in small_first(cells):
        for n, m, d in shapes:
            for loss in _losses(claim):
                if time.monotonic() > deadline:
                    report.left_out.append(f"the time ran out at {cell}")
                    return report
                game = adversary.Game(
                    claim=claim.formula,
                    metric=claim.metric,
                    gradient=claim.gradient,
                    local_steps=cell.local_steps,
                    rounds=cell.rounds,
                    step_factor=cell.step_factor,
                    n_nodes=n,
                    samples=m,
                    dimension=d,
                    loss=loss,
                )
                missing = adversary.unknown_constants(game)
                if missing:
                    reason = (
                        f"it has no closed form for {', '.join(missing)} of the {loss.name} loss"
                    )
                    report.leave_out(reason)
                    continue
                found = adversary.attack(
                    game, starts=starts, seed=seed, stop=lambda: time.monotonic() > deadline
                )
                if found.ratio <= math.exp(adversary.HOPELESS):
                    report.leave_out(f"no data give measure, claim and step a value, {cell}")
                    continue
                tried += starts
                source = f"found data, {loss.name} loss, n = {n}, {m} samples a node, d = {d}"
                if found.ratio > report.closest:
                    # Its own constants, regularised, may flatter it: the problem's decide.
                    problem = margin_problem(found, loss)
                    report.refutation = judged(report, claim, cell, problem, source)
                report.tried = tried
                if report.refutation is not None:
                    return report
            tick(1.0 / len(shapes))
    return report


def _losses(claim: Claim) -> list[adversary.Loss]:
    """Those whose problems belong to the class."""
    losses = [adversary.SQUARED, adversary.HUBER_LOSS]
    return losses + [adversary.SIGMOID_LOSS] * (claim.family == "non-convex")


def margin_problem(found: adversary.Candidate, loss: adversary.Loss) -> MarginProblem:
    """The candidate as a problem that knows its constants."""
    features = [np.array(rows) for rows in found.rows]
    targets = [np.zeros(len(rows)) for rows in found.rows]
    kept = SQUARED if loss.quadratic else adversary.library_loss(loss)
    return MarginProblem(features, targets, kept, start=found.start, name=f"found, {loss.name}")
