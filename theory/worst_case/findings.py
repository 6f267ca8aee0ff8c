"""What the rows say, as typed statements: each is derived from the rows and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from theory.worst_case.closed_forms import crossing_limit, gradient_descent
from theory.worst_case.many_local_steps import LimitRow, SpiralRow, kink
from theory.worst_case.routes import Route
from theory.worst_case.rows import ACCURACY, EXACT, Row
from theory.worst_case.statements import (
    CONJECTURED,
    OBSERVED,
    PROVED,
    Finding,
    Where,
    at_most,
    equality,
    extreme,
    place,
    worst_value,
)
from theory.worst_case.step_sizes import TunedStep, best_step_sizes, one_step_rounds

#: "A few percent" of C1.
FEW_PERCENT = 0.05
#: A worst case that is so much above the least, relatively, rises; solvers differ by less.
RISE = 1e-5


def findings(
    rows: Sequence[Row],
    routes: Sequence[Route] = (),
    limits: Sequence[LimitRow] = (),
    spirals: Sequence[SpiralRow] = (),
    tuned: Sequence[TunedStep] = (),
) -> list[Finding]:
    """All statements that the cells suffice for; fewer cells give fewer statements.

    Args:
        rows: solved cells; others are left out.
        routes: problems solved by PEPit too.
        limits, spirals: of :mod:`theory.worst_case.many_local_steps`.
        tuned: of :func:`theory.worst_case.step_sizes.tuned_steps`; the grid's best where there are none.
    """
    solved = [row for row in rows if row.worst_case is not None]
    last = [r for r in solved if r.metric == "last"]
    return [
        *_known_values(solved),
        *_many_local_steps(last),
        *_growth_with_k(last),
        *_best_iterate(solved),
        *_saved_rounds(last),
        *_tuned(tuned or best_step_sizes(last), exact=bool(tuned)),
        *_limits(limits, spirals),
        *_sharper(solved),
        *_slack(solved),
        *_routes(routes),
    ]


def _unit(rows: Iterable[Row]) -> list[Row]:
    return [r for r in rows if r.step_size == 1]


def _known_values(solved: Sequence[Row]) -> Iterator[Finding]:
    """Equalities, each with what it rests on."""
    last = [r for r in solved if r.metric == "last"]
    yield from equality(
        "last.one_step",
        "C1",
        [r for r in last if r.local_steps == 1],
        lambda r: gradient_descent(r.step_size, r.rounds),
        PROVED,
    )
    yield from equality(
        "last.two_steps",
        "C1",
        [r for r in _unit(last) if r.local_steps == 2],
        lambda r: 1 / (8 * r.rounds + 2),
        CONJECTURED,
    )
    yield from equality(
        "last.three_steps",
        "C1",
        [r for r in _unit(last) if (r.local_steps, r.rounds) == (3, 1)],
        lambda _: kink()[0],
        CONJECTURED,
    )
    for theorem in ("T1", "T3"):
        rows = [r for r in solved if r.theorem == theorem]
        yield from equality("mean_of_losses", theorem, rows, lambda r: r.sharper or 0.0, PROVED)
    yield from equality(
        "sync.one_step",
        "T2",
        [r for r in solved if r.theorem == "T2" and r.local_steps == 1],
        lambda r: r.sharper or 0.0,
        PROVED,
    )
    yield from equality(
        "growth_of_mean.exact",
        "T4'",
        [r for r in _unit(solved) if r.theorem == "T4'" and r.local_steps >= 2 and r.growth <= 0.5],
        lambda r: r.sharper or 0.0,
        PROVED,
    )


def _many_local_steps(last: Sequence[Row]) -> Iterator[Finding]:
    """C1, second part: K >= 3 against I1; and S2."""
    yield from at_most(
        "last.eighth", "S2", [r for r in _unit(last) if r.local_steps >= 2], lambda _: 1 / 8
    )
    rows = [r for r in _unit(last) if r.local_steps >= 3]
    least_most = list(
        extreme(
            "last.over_i1",
            "C1",
            rows,
            lambda r: worst_value(r) / crossing_limit(r.rounds),
            OBSERVED,
        )
    )
    yield from least_most
    if rows:
        most = least_most[-1]
        yield Finding(
            key="last.few_percent",
            about="C1",
            value=most.value,
            where=most.where,
            cells=len(rows),
            standing=CONJECTURED,
            agrees=most.value < 1 + FEW_PERCENT,
        )
    one_round = [r for r in rows if r.rounds == 1]
    if len(one_round) > 1:
        lowest = min(one_round, key=worst_value)
        below = kink()[0] - worst_value(lowest)
        yield Finding(
            key="last.one_round",
            about="C1",
            value=below,
            where=place(lowest),
            cells=len(one_round),
            standing=PROVED,
            agrees=below < ACCURACY,
        )


def _growth_with_k(last: Sequence[Row]) -> Iterator[Finding]:
    """For each R: the K with the least worst last iterate, and how far it rises beyond."""
    rows = [r for r in _unit(last) if r.local_steps >= 3]
    for rounds in sorted({r.rounds for r in rows}):
        same = sorted((r for r in rows if r.rounds == rounds), key=lambda r: r.local_steps)
        if len(same) < 3:
            continue
        least = min(same, key=worst_value)
        rise = worst_value(same[-1]) / worst_value(least) - 1
        yield Finding(
            key="last.best_k",
            about="C1",
            value=float(least.local_steps),
            where=place(least),
            cells=len(same),
            standing=OBSERVED,
        )
        yield Finding(
            key="last.never_rises",
            about="C1",
            value=rise,
            where=place(same[-1]),
            cells=len(same),
            standing=CONJECTURED,
            agrees=rise <= RISE,
        )


def _best_iterate(solved: Sequence[Row]) -> Iterator[Finding]:
    best = {
        (r.local_steps, r.rounds, r.step_size, r.n): worst_value(r)
        for r in solved
        if r.metric == "best" and r.theorem == "C1"
    }
    paired = [
        r
        for r in solved
        if r.metric == "last" and (r.local_steps, r.rounds, r.step_size, r.n) in best
    ]
    yield from equality(
        "best.is_last",
        "C1",
        paired,
        lambda r: best[r.local_steps, r.rounds, r.step_size, r.n],
        CONJECTURED,
    )
    yield from at_most(
        "best.quarter",
        "S3",
        [r for r in _unit(solved) if r.metric == "best" and r.local_steps >= 2],
        lambda r: 1 / (4 * r.rounds),
    )


def _saved_rounds(last: Sequence[Row]) -> Iterator[Finding]:
    """The rounds, a real number, that K = 1 needs for the same worst case at eta = 1/L, over R."""
    rows = [r for r in _unit(last) if r.local_steps >= 2]
    if not rows:
        return
    proved = {r: one_step_rounds(crossing_limit(r)) / r for r in {row.rounds for row in rows}}
    widest = max(sorted(proved), key=lambda rounds: proved[rounds])
    yield Finding(
        key="saved.limit",
        about="use",
        value=proved[widest],
        where=Where(rounds=widest, step_size=1.0),
        cells=len(proved),
        standing=PROVED,
    )
    yield from extreme(
        "saved", "use", rows, lambda r: one_step_rounds(worst_value(r)) / r.rounds, OBSERVED
    )


def _tuned(tuned: Sequence[TunedStep], exact: bool) -> Iterator[Finding]:
    """Best step sizes, and what local steps save when every K has its own."""
    kind = "tuned" if exact else "grid"
    for k in sorted({t.local_steps for t in tuned}):
        same = [t for t in tuned if t.local_steps == k]
        for end, pick in (("least", min), ("most", max)):
            step = pick(same, key=lambda t: t.step_size)
            yield Finding(
                key=f"step.{kind}.{end}",
                about="step",
                value=step.step_size,
                where=place(step),
                cells=len(same),
                standing=OBSERVED,
            )
    several = [t for t in tuned if t.local_steps > 1]
    if several:
        most = max(several, key=lambda t: t.one_step_rounds / t.rounds)
        yield Finding(
            key=f"saved.{kind}",
            about="use",
            value=most.one_step_rounds / most.rounds,
            where=place(most),
            cells=len(several),
            standing=OBSERVED,
        )


def _limits(limits: Sequence[LimitRow], spirals: Sequence[SpiralRow]) -> Iterator[Finding]:
    """K to infinity."""
    for r in limits:
        if r.rounds == 1:
            miss = r.last - 0.125
            yield Finding(
                key="limit.one_round",
                about="K=inf",
                value=miss,
                where=Where(rounds=1),
                cells=1,
                standing=PROVED,
                agrees=abs(miss) < ACCURACY,
            )
    if limits:
        longest = limits[-1]
        for key, value in (
            ("limit.best", one_step_rounds(longest.best) / longest.rounds),
            ("limit.last", longest.last / longest.one_step),
        ):
            yield Finding(
                key=key,
                about="K=inf",
                value=value,
                where=Where(rounds=longest.rounds),
                cells=len(limits),
                standing=OBSERVED,
            )
    for s in spirals:
        yield Finding(
            key="limit.spiral",
            about="K=inf",
            value=s.value / s.limit,
            where=Where(local_steps=s.local_steps, rounds=1, step_size=1.0),
            cells=1,
            standing=PROVED,
            agrees=s.value <= 1 / 8,
        )


def _sharper(solved: Sequence[Row]) -> Iterator[Finding]:
    """Proved sharper bounds over the worst case."""
    for about, theorem in (("T2", "T2"), ("S5", "T4")):
        rows = [r for r in solved if r.theorem == theorem and r.sharper is not None]
        yield from extreme(
            "sharper", about, rows, lambda r: (r.sharper or 0.0) / worst_value(r), OBSERVED
        )
    upper = [r for r in solved if r.theorem == "T4'" and r.kind != EXACT]
    if upper:
        open_ = max(upper, key=lambda r: worst_value(r) - (r.attained or 0.0))
        yield Finding(
            key="growth_of_mean.open",
            about="T4'",
            value=worst_value(open_) - (open_.attained or 0.0),
            where=place(open_),
            cells=len(upper),
            standing=OBSERVED,
        )


def _slack(solved: Sequence[Row]) -> Iterator[Finding]:
    for name in ("T1", "T2", "T3", "T4", "T4'"):
        rows = [r for r in solved if r.theorem == name and r.ratio is not None]
        yield from extreme("slack", name, rows, lambda r: r.ratio or 0.0, OBSERVED)


def _routes(routes: Sequence[Route]) -> Iterator[Finding]:
    """Does the worst case depend on n, and do the two routes agree."""
    pairs = [r for r in routes if r.difference is not None]
    if pairs:
        worst = max(pairs, key=lambda r: r.difference or 0.0)
        miss = worst.difference or 0.0
        yield Finding(
            key="routes",
            about="C1",
            value=miss,
            where=Where(
                local_steps=worst.local_steps, rounds=worst.rounds, step_size=worst.step_size
            ),
            cells=len(pairs),
            standing=PROVED,
            agrees=miss < ACCURACY,
        )
