"""Tables of the ladder of deep runs: every run, heterogeneity, exponents, step sizes, variants."""

from __future__ import annotations

from figures.analysis.deep_runs import reading
from figures.analysis.ladder import Run, ladder_runs
from figures.analysis.ladder_readings import (
    Exponent,
    Ratio,
    exponents,
    growth,
    heterogeneity,
    seeds_in_words,
    variants,
)
from figures.analysis.sources import Sources
from figures.record.table import Table, value_text

_STATES = {"round_limit": "all rounds"}


def ladder(sources: Sources) -> Table:
    """Every run, finished or not."""
    return Table(
        "The ladder: every run",
        (
            "rung",
            "regime",
            "K",
            "seed",
            "variant",
            "state",
            "rounds",
            "training loss",
            "test accuracy",
            "hours",
        ),
        [_row(run) for run in ladder_runs(sources)],
        "Reached: below the target loss 1e-4; unfinished: out of time, with the loss it had reached. Test "
        "accuracy of the averaged model at the end, where there is a test set. Hours on the clock, of one or "
        "two cores that other work shared.",
    )


def _row(run: Run) -> tuple[str, ...]:
    s = run.summary
    accuracy = s["final_test_accuracy"]
    return (
        run.rung.label,
        run.regime,
        str(run.local_steps),
        str(run.seed),
        run.variant or "plain",
        _STATES.get(s["status"], s["status"]),
        f"{s['rounds']:,}",
        value_text(s["final_train_loss"], ".3g"),
        "-" if accuracy is None else f"{accuracy:.1%}",
        f"{s['wall_seconds'] / 3600:.2f}",
    )


def ladder_heterogeneity(sources: Sources) -> Table:
    """rounds(one shard)/rounds(iid) at every K."""
    return Table(
        "Heterogeneity: rounds with one shard a node over rounds with iid nodes",
        ("rung", "K", "ratio", "95% over seeds", "seeds", "reading"),
        [
            (r.rung.label, str(r.local_steps), *_ratio(r))
            for r in heterogeneity(ladder_runs(sources))
        ],
        "Geometric mean of the seeds' ratios; Student's interval of the logarithm. A verdict needs three "
        "seeds.",
    )


def ladder_steps(sources: Sources) -> Table:
    """Runs that differ in their step size alone, with the length of the weights they end with."""
    alike: dict[tuple[object, ...], list[Run]] = {}
    for run in ladder_runs(sources):
        if run.rounds and run.is_plain:
            scale = run.rung.width, run.rung.images
            alike.setdefault((scale, run.regime, run.local_steps, run.seed), []).append(run)
    rows = []
    for same in alike.values():
        for run in same if len({run.rung.step_size for run in same}) > 1 else ():
            step, length = run.rung.step_size, run.result["metrics"][-1]["weight_norm"]
            rows.append(
                (
                    f"width {run.rung.width}, {run.rung.images:,} images",
                    run.regime,
                    str(run.local_steps),
                    f"{step:g}",
                    f"{run.rounds:,}",
                    f"{length:.1f}",
                    f"{step / length**2:.2g}",
                )
            )
    return Table(
        "The step size, and how long the weights grow",
        ("scale", "regime", "K", "eta", "rounds", "length of xbar", "eta/length^2"),
        rows,
        "Runs of one seed to the target that differ in their step size alone; length and quotient at the end. "
        "The norms have no scale and shift, so the length of the weights before a norm does not change what "
        "the network computes: what counts there is the quotient. Looked at after the results: a description "
        "without a rule and without a verdict.",
    )


def ladder_variants(sources: Sources) -> Table:
    """Rounds of a variant over those of the plain run beside it."""
    return Table(
        "Outer steps and client sampling: rounds over those of the plain run",
        ("rung", "regime", "K", "variant", "ratio", "95% over seeds", "seeds", "reading"),
        [
            (r.rung.label, r.regime, str(r.local_steps), r.variant, *_ratio(r))
            for r in variants(ladder_runs(sources))
        ],
        "The same rung, regime, K and seed; below 1 the variant needs fewer rounds.",
    )


def _ratio(ratio: Ratio) -> tuple[str, str, str, str]:
    low_high = "-" if ratio.interval is None else "[{:.2f}, {:.2f}]".format(*ratio.interval)
    waiting = f"; without target: {', '.join(ratio.missing)}" if ratio.missing else ""
    return (
        value_text(ratio.mean, ".2f"),
        low_high,
        str(len(ratio.ratios)),
        ratio.reading + waiting,
    )


def ladder_exponents(sources: Sources) -> Table:
    """Slope of log rounds in log K, rung by rung."""
    found = exponents(ladder_runs(sources))
    rows = []
    for e in found:
        below = [x for x in found if x.regime == e.regime and x.rung < e.rung]
        rows.append((*_exponent(e), growth(below[-1], e) if below else "-"))
    return Table(
        "The exponent of rounds in K",
        ("rung", "regime", "K", "seeds", "slope", "95%", "reading", "against the rung below"),
        rows,
        "-1 is a K-fold saving, 0 none. Where three seeds have the same three K the interval is over their "
        "slopes; else it is that of the line through all points, and says nothing about seeds. The claims' "
        "slopes are of seed 0 alone.",
    )


def _exponent(e: Exponent) -> tuple[str, ...]:
    how = "seeds" if e.over_seeds else f"line, {seeds_in_words(e.seeds)}"
    return (
        e.rung.label,
        e.regime,
        ", ".join(map(str, e.local_steps)),
        str(e.seeds),
        f"{e.slope:.2f}",
        "[{:.2f}, {:.2f}]".format(*e.interval) + f" ({how})",
        reading(e.interval),
    )
