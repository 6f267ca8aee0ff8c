"""The paper's claims beside what was run: one row a claim, its verdict computed from the results.

The quotations are from the abstract (arXiv:2201.12719, the version after TMLR); the set-up of the
experiments is from the paper. Nothing else of the paper is quoted, and none of its numbers.
"""

from __future__ import annotations

from typing import Any

from figures.analysis.deep_runs import (
    Runs,
    command_of,
    config_of,
    deep_command,
    describe,
    late_line,
    late_slopes,
    load_runs,
    rounds_orders,
)
from figures.analysis.full_scale import (
    PAPER_COMMAND,
    full_scale_runs,
    hours_of_experiment_1,
    hours_of_run,
    is_begun,
    rounds_in_all,
)
from figures.analysis.ladder import LADDER_COMMAND, Run
from figures.analysis.sources import MissingResult, Sources
from figures.analysis.verification import VERIFY_COMMAND, VERIFY_PATH, load_verification
from figures.record.table import Table, interval
from theory.support.verdicts import FAILED, HOLDS, UNDECIDED
from theory.verification.tables import number

TITLE = "The paper's claims, and what was found"
REPRODUCED, PARTLY, NOT, NOT_RUN = "reproduced", "partly", "not", "not run"
NO_RESULT = "no result yet"
OWN_PROOF = f"{REPRODUCED} (proof and constants ours)"
Row = tuple[str, str, str, str, str]


def claims(sources: Sources) -> Table:
    """Claim, what was run, data, result, verdict."""
    rows = [
        *_theory(sources),
        *_deep_rate(sources),
        *_experiments(sources),
        _older_order(sources),
        _full_scale(sources),
    ]
    return Table(
        TITLE,
        ("claim", "verdict", "result (95% intervals)", "data", "command that repeats it"),
        [(claim, verdict, result, data, command) for claim, command, data, result, verdict in rows],
    )


def _theory(sources: Sources) -> list[Row]:
    heads = (
        (
            'convex: "O(1/T) under a mild data similarity assumption"',
            "T3",
            "I2:",
            "least squares, equal nodes",
        ),
        ('convex: "O(K/T) otherwise"', "T2", "I1:", "I1"),
        ('non-convex: "O(K/T)"', "T6", "I4:", None),
    )
    data = "synthetic problems and instances from seeds"
    try:
        record = load_verification(sources)
    except MissingResult:
        return [(claim, VERIFY_COMMAND, data, NO_RESULT, NOT_RUN) for claim, *_ in heads]
    rows = []
    for claim, theorem, family, problem in heads:
        checks = [c for c in record["checks"] if c["theorem"] == theorem]
        holds = [c for c in checks if c["verdict"] == HOLDS]
        failed, undecided = (
            sum(c["verdict"] == verdict for c in checks) for verdict in (FAILED, UNDECIDED)
        )
        slope = next((s for s in record["slopes"] if s["family"].startswith(family)), None)
        if slope is None:
            raise MissingResult(f"{VERIFY_PATH} has no slope of {family[:2]}: {VERIFY_COMMAND}")
        parts = [
            f"{theorem} holds in {len(holds)} of {len(holds) + failed + undecided} applicable checks"
            + (f", {undecided} undecided" if undecided else ""),
            f"order on {family[:2]}: {slope['slope']:.4f} [{slope['low']:.4f}, {slope['high']:.4f}] "
            "for -1",
        ]
        verdicts = [HOLDS if holds and not failed else FAILED, slope["verdict"]]
        for c in record["communication"]:
            if problem is not None and c["family"].startswith(problem):
                parts.append(f"rounds to eps on {problem}: slope {c['fit']['slope']:.3f} in K")
                verdicts.append(c["verdict"])
        verdict = OWN_PROOF if set(verdicts) == {HOLDS} else NOT
        rows.append((claim, VERIFY_COMMAND, data, "; ".join(parts), verdict))
    rows.append(_tightness(record, data))
    return rows


def _older_order(sources: Sources) -> Row:
    """The slope and the distance below C/sqrt(nT) of the families of order -1.

    At best partly, as a comparison of orders in T is not one of bounds: if every family's interval lies
    below -1/2 and its last point below the curve of order 1/sqrt(nT) through its first.
    """
    claim = '"improve upon the best previous bound of O(1/sqrt(nT))"'
    data = "instances and power laws whose order is -1"
    try:
        record = load_verification(sources)
    except MissingResult:
        return claim, VERIFY_COMMAND, data, NO_RESULT, NOT_RUN
    fits = [f for f in record["slopes"] if f["predicted"] == -1 and f["undercut"] is not None]
    if not fits:
        return claim, VERIFY_COMMAND, data, NO_RESULT, NOT_RUN
    slopes, factors = ([f[name] for f in fits] for name in ("slope", "undercut"))
    text = (
        f"{len(fits)} families of order -1: slopes {max(slopes):.3f} to {min(slopes):.3f}, where 1/sqrt(nT) "
        f"has -1/2; at the largest T they lie {min(factors):.3g} to {max(factors):.3g} times below "
        "C/sqrt(nT) through their first point. This is the order in T at fixed n, and says nothing of "
        "constants or of the order in n"
    )
    below = all(f["high"] < -0.5 for f in fits) and min(factors) > 1
    return claim, VERIFY_COMMAND, data, text, f"{PARTLY}: the order in T only" if below else NOT


def _tightness(record: dict[str, Any], data: str) -> Row:
    last = {r["instance"]: r for r in sorted(record["tightness"], key=lambda r: r["rounds"])}
    shown = [last[name] for name in ("I1", "I2", "I4") if name in last]
    text = "; ".join(
        f"bound/measured {r['ratio']:.3f} on {r['instance']} at R = {r['rounds']:,} (limit "
        f"{r['limit']:.3f})"
        for r in shown
    )
    good = bool(shown) and all(r["verdict"] == HOLDS for r in shown)
    return (
        '"problem instances in which our established convergence rates are tight to a constant '
        'factor"',
        VERIFY_COMMAND,
        data,
        text,
        f"{REPRODUCED} (instances and constants ours)" if good else NOT,
    )


def rate_verdict(runs: Runs) -> tuple[str, str]:
    """(result, verdict) on "O(1/T) is clearly shown".

    Of the runs that have ended; unfinished ones are counted and decide nothing. Reproduced if every
    interval of the late slope holds -1; partly if every run got to its target and none is slower than -1
    beyond its interval (O(1/T) is an upper bound, but it is not what the curve looks like); otherwise not.
    """
    every = [run for by_k in runs.values() for run in by_k.values()]
    ended = [run for run in every if run["summary"]["status"] != "unfinished"]
    fits = late_slopes(ended)
    if not fits:
        return "no run is long enough for a fit", NOT_RUN
    reached = sum(run["summary"]["rounds_to_target"] is not None for run in ended)
    r2s = [run["fits"]["inverse_loss_vs_iterations"]["r2"] for run in ended]
    r2s = [r2 for r2 in r2s if r2 is not None]
    equal = sum(f["interval"][0] <= -1 <= f["interval"][1] for f in fits)
    faster = sum(f["interval"][1] < -1 for f in fits)
    slower = len(fits) - equal - faster
    steepest, flattest = min(fits, key=_slope), max(fits, key=_slope)
    text = (
        f"{reached} of {len(ended)} runs reached the target. Late log-log slope of {len(fits)} runs "
        f"from {interval(flattest)} to {interval(steepest)}: {equal} agree with -1, {faster} are "
        f"steeper, {slower} flatter. r2 of 1/loss = a + bT: {min(r2s):.3f} to {max(r2s):.3f}"
    )
    lines = [line for line in map(late_line, ended) if line is not None]
    if lines:
        halves = [line[2] for line in lines]
        text += f"; over the second half alone: {min(halves):.3f} to {max(halves):.3f}"
    if len(ended) < len(every):
        text += f"; {len(every) - len(ended)} more runs are unfinished"
    if equal == len(fits):
        return text, REPRODUCED
    if slower or reached < len(ended):
        return text, NOT
    return text, f"{PARTLY}: not slower than O(1/T), but steeper than 1/T counted from the start"


def _slope(fit: dict[str, Any]) -> float:
    return float(fit["slope"])


def _deep_rate(sources: Sources) -> list[Row]:
    claim = 'deep: "the O(1/T) convergence rate of Local SGD is clearly shown"'
    try:
        runs = load_runs(sources, "to-loss")
    except MissingResult:
        return [(claim, deep_command("to-loss"), "-", NO_RESULT, NOT_RUN)]
    text, verdict = rate_verdict(runs)
    return [(claim, command_of(runs, "to-loss"), describe(runs), text, verdict)]


def _experiments(sources: Sources) -> list[Row]:
    rows: list[Row] = []
    claim = "Experiment 1 (set-up): training loss at a fixed number of rounds, K = 1, 2, 5, 10, 20"
    command = deep_command("fixed-rounds")
    try:
        runs = load_runs(sources, "fixed-rounds")
        parts = []
        for regime, by_k in runs.items():
            ends = [f"K = {k}: {_end(run['summary'])}" for k, run in by_k.items()]
            count = max(run["summary"]["rounds"] for run in by_k.values())
            parts.append(f"{regime}, loss after {count:,} rounds: {', '.join(ends)}")
        command = command_of(runs, "fixed-rounds")
        rows.append((claim, command, describe(runs), "; ".join(parts), _set_up_verdict(runs)))
    except MissingResult:
        rows.append((claim, command, "-", NO_RESULT, NOT_RUN))
    claim = "Experiment 2 (set-up): rounds until the training loss is below 1e-4, against K"
    command = deep_command("to-loss")
    try:
        runs = load_runs(sources, "to-loss")
        parts = [
            f"{o.regime}: {o.first[1]:,} rounds at K = {o.first[0]}, {o.last[1]:,} at K = {o.last[0]}, "
            f"slope {interval(o.fit)}: {o.reading}"
            for o in rounds_orders(runs)
        ]
        rows.append(
            (
                claim,
                command_of(runs, "to-loss"),
                describe(runs),
                "; ".join(parts) or "no regime with two runs",
                _set_up_verdict(runs),
            )
        )
    except MissingResult:
        rows.append((claim, command, "-", NO_RESULT, NOT_RUN))
    return rows


def _end(summary: dict[str, Any]) -> str:
    """The loss at the end of a run, and where that is if it is not finished."""
    loss = number(summary["final_train_loss"])
    return (
        f"{loss} (unfinished at {summary['rounds']:,})"
        if summary["status"] == "unfinished"
        else loss
    )


def _set_up_verdict(runs: Runs) -> str:
    """The paper's numbers are not known here, and the scale is smaller: partly at best."""
    regimes = ("iid", "two shards", "one shard")
    if not set(runs) & {"two shards", "one shard"}:
        regimes = ("iid", "mixed", "pathological")  # before the repository was known
    wanted = {(r, k) for r in regimes for k in (1, 2, 5, 10, 20)}
    have = {
        (r, k)
        for r, by_k in runs.items()
        for k, run in by_k.items()
        if run["summary"]["status"] != "unfinished"
    }
    scale = "small scale" if _small(runs) else "full scale"
    lacking = len(wanted - have)
    tail = f"; {lacking} of {len(wanted)} runs missing" if lacking else ""
    return f"{PARTLY}: {scale}, the paper's own numbers are not at hand{tail}"


def _small(runs: Runs) -> bool:
    c = config_of(runs)
    return bool(c["subset"]) or c["width"] < 64


def _full_scale(sources: Sources) -> Row:
    """The runs of the paper's own scale, how far they came and what the rest would take."""
    claim = "experiments at full scale: width 64, 50,000 images, 20,000 to 1,000,000 rounds"
    runs = full_scale_runs(sources)
    if not runs:
        return claim, PAPER_COMMAND, "-", "not measured on a GPU", NOT_RUN
    ended = [run for run in runs if not is_begun(run)]
    data = ", ".join(dict.fromkeys(run.config["data_name"] for run in runs))
    campaign = any("deep.campaign" in run.result["command"] for run in runs)
    command = LADDER_COMMAND if campaign else PAPER_COMMAND
    verdict = f"{PARTLY}: {len(ended)} ended" if ended else f"{NOT_RUN}: begun only"
    return claim, command, data, "; ".join(map(_how_far, runs)), verdict


def _how_far(run: Run) -> str:
    s, hardware = run.summary, run.result["hardware"]
    machine = hardware.get("gpu") or f"{hardware['processor']}, {hardware['cores']} cores"
    text = (
        f"{run.regime}, K = {run.local_steps}: {s['rounds']:,} of {rounds_in_all(run):,} rounds at the last "
        f"evaluation, training loss {number(s['final_train_loss'])}, {s['images_per_second']:,.0f} images/s "
        f"({machine})"
    )
    if not is_begun(run):
        return text
    return (
        f"{text}; at that speed {hours_of_run(run):,.0f} hours for this run, "
        f"{hours_of_experiment_1(s['images_per_second']):,.0f} for Experiment 1"
    )
