"""The sentence for each key of a finding: a template, so that no number of it is typed by hand."""

from __future__ import annotations

from theory.worst_case.findings import FEW_PERCENT
from theory.worst_case.many_local_steps import KINK_POLYNOMIAL
from theory.worst_case.statements import Finding

#: By key; the fields are value, where, cells, about, K and R.
SENTENCES = {
    "last.one_step": "K=1, any eta: last = max(1/(4 eta L T + 2), (1 - eta L)^(2T)/2), a theorem of "
    "J. Kim; largest difference {value:.0e} at {where}",
    "last.two_steps": "K=2, eta=1/L: last = 1/(4T+2); largest difference {value:.0e} at {where}",
    "last.three_steps": "K=3, R=1, eta=1/L: last = the value of the kink, a root of a polynomial of "
    f"degree {len(KINK_POLYNOMIAL) - 1}, below which no K >= 2 goes; difference {{value:.0e}}",
    "mean_of_losses": "any eta, K: worst = 1/(2(1 + eta L (T-1))) up to 1/L, the quadratic's value "
    "above (S1); largest difference {value:.0e} at {where}",
    "sync.one_step": "K=1, any eta: worst = S1 with R for T; largest difference {value:.0e} at {where}",
    "growth_of_mean.exact": "eta=1/L, K >= 2: worst = (1 - mu/L)^(2R) (S4); largest difference "
    "{value:.0e} at {where}",
    "growth_of_mean.open": "cells whose value no known problem attains (upper values): at most "
    "{value:.1e} above a known problem, at {where}",
    "last.eighth": "eta=1/L, K >= 2, every R: last <= 1/8 (S2); largest share of it {value:.4f} at "
    "{where}",
    "last.over_i1.least": "eta=1/L, K >= 3: last over I1, least {value:.4f} at {where}",
    "last.over_i1.most": "eta=1/L, K >= 3: last over I1, most {value:.4f} at {where}",
    "last.few_percent": "eta=1/L, K >= 3: last stays within "
    f"{FEW_PERCENT:.0%} of I1; it is {{value:.4f}} times I1 at {{where}}",
    "last.one_round": "eta=1/L, R=1: no K is better than K=3 (an instance); most below {value:.0e}",
    "last.best_k": "eta=1/L, R={R}: the least worst last iterate of {cells} K from 3 on is at "
    "K={value:.0f}",
    "last.never_rises": "eta=1/L, R={R}: last never rises with K from 3 on; at K={K} it is "
    "{value:.1e} above its least",
    "best.is_last": "the worst best iterate equals the worst last one; largest difference {value:.0e} "
    "at {where}",
    "best.quarter": "eta=1/L, K >= 2: best <= 1/(4R) (S3); largest share of it {value:.4f} at {where}",
    "saved.limit": "eta=1/L, every K: K=1 needs at most {value:.3f} times the rounds (a real number of "
    "rounds), by I1, at {where}; it tends to e with R",
    "saved.most": "eta=1/L: K=1 needs at most {value:.3f} times the rounds, at {where}",
    "saved.least": "eta=1/L: K=1 needs at least {value:.3f} times the rounds, over K >= 2, at {where}",
    "saved.tuned": "best eta for each K: K=1 needs at most {value:.3f} times the rounds, at {where}",
    "saved.grid": "best eta of the grid for each K: K=1 needs at most {value:.3f} times the rounds, at "
    "{where}",
    "step.tuned.least": "K={K}: best step size, least {value:.3f}/L at R={R}",
    "step.tuned.most": "K={K}: best step size, most {value:.3f}/L at R={R}",
    "step.grid.least": "K={K}: best step size of the grid, least {value:g}/L at R={R}",
    "step.grid.most": "K={K}: best step size of the grid, most {value:g}/L at R={R}",
    "limit.one_round": "R=1, K to infinity: last tends to at most 1/8; upper value less 1/8: {value:.0e}",
    "limit.best": "best iterate, K to infinity, R={R}: K=1 needs at least {value:.3f} times the rounds",
    "limit.last": "last iterate, K to infinity, R={R}: the upper value is {value:.3f} times that of K=1",
    "limit.spiral": "a spiral, simulated with K={K}: {value:.4f} of its limit",
    "sharper.least": "sharper bound over worst, least {value:.4f} at {where}",
    "sharper.most": "sharper bound over worst, most {value:.4f} at {where}",
    "slack.least": "bound over worst, least {value:.4f} at {where}",
    "slack.most": "bound over worst, most {value:.4f} at {where}",
    "routes": "the worst case is the same for every n >= 2 (reduction): PEPit over all nodes less the "
    "reduced problem, at most {value:.0e}",
    "outer.one_step": "K=1: only beta eta counts, and the best worst case is that of gradient descent at "
    "its best step; largest difference {value:.0e} at {where}",
    "outer.gain.least": "K >= 2, best (eta, beta) against the best eta at beta=1: the worst last iterate "
    "falls by {value:.1%} at least, {where}",
    "outer.gain.most": "K >= 2, best (eta, beta) against the best eta at beta=1: the worst last iterate "
    "falls by {value:.1%} at most, {where}",
    "outer.best_beta.least": "K >= 2: the best outer step, least {value:.3f}, {where}",
    "outer.best_beta.most": "K >= 2: the best outer step, most {value:.3f}, {where}",
    "outer.best_product.least": "K >= 2: beta eta L of the best pair, least {value:.3f}, {where}",
    "outer.best_product.most": "K >= 2: beta eta L of the best pair, most {value:.3f}, {where}",
    "outer.saved.least": "with the best (eta, beta) for each K, K=1 needs at least {value:.3f} times "
    "the rounds (a real number), over K >= 2, {where}",
    "outer.saved.most": "with the best (eta, beta) for each K, K=1 needs at most {value:.3f} times the "
    "rounds, {where}",
    "outer.over_i6.least": "best worst last iterate over 1/(4e(2R+1)) (I6), least {value:.3f}, {where}",
    "outer.over_i6.most": "best worst last iterate over 1/(4e(2R+1)) (I6), most {value:.3f}, {where}",
    "outer.over_floor.least": "and over I6's family at its best member, least {value:.3f}, {where}",
    "outer.over_floor.most": "and over I6's family at its best member, most {value:.3f}, {where}",
    "outer.floor": "no eta, K and beta goes below I6's family at its best member; nearest {value:.4f} "
    "times it, {where}",
    "outer.best_is_last": "the least worst best iterate equals the least worst last one; it is lower by "
    "{value:.0e} of it at most, {where}",
}


def sentence(finding: Finding) -> str:
    """The finding in words."""
    where = finding.where
    return SENTENCES[finding.key].format(
        value=finding.value,
        where=where,
        cells=finding.cells,
        about=finding.about,
        K=where.local_steps if where else None,
        R=where.rounds if where else None,
    )


def agreement(finding: Finding) -> str:
    """ "agrees", "REFUTED", or "-" for a number without a claim."""
    if finding.agrees is None:
        return "-"
    return "agrees" if finding.agrees else "REFUTED"
