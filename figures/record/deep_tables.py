"""Tables of the deep experiment: every run, rounds against K, deviations from the paper's set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from figures.analysis.deep_runs import (
    Runs,
    config_of,
    describe,
    late_line,
    load_runs,
    rounds_below,
    rounds_orders,
    slope_in_k,
)
from figures.analysis.sources import MissingResult, Sources
from figures.record.set_up import UNKNOWN
from figures.record.table import Table, interval, value_text

#: Losses between the plateau and the target, in nats; a guess among ten classes has 2.3.
FALLS = (1.0, 0.1, 0.01)


def deep_runs(sources: Sources) -> Table:
    """Every run to the target loss."""
    runs = load_runs(sources, "to-loss")
    target = config_of(runs)["target_loss"]
    rows = []
    for regime, by_k in runs.items():
        for k, run in by_k.items():
            s, fits = run["summary"], run["fits"]
            reached, late = s["rounds_to_target"], late_line(run)
            rows.append(
                (
                    regime,
                    str(k),
                    f"{reached:,}" if reached is not None else f"{s['status']} at {s['rounds']:,}",
                    f"{s['iterations']:,}",
                    value_text(s["final_train_loss"], ".3g"),
                    interval(fits["loglog_slope"]),
                    value_text(fits["inverse_loss_vs_iterations"]["r2"], ".3f"),
                    value_text(late[2] if late else None, ".3f"),
                )
            )
    return Table(
        "Experiment 2, to the target loss: every run",
        (
            "regime",
            "K",
            f"rounds to {target:g}",
            "iterations T",
            "final training loss",
            "log-log slope, late phase (95%)",
            "r2 of 1/loss = a + bT, whole run",
            "second half",
        ),
        rows,
        "1/T is a log-log slope of -1 and an r2 of 1; a steeper slope is faster. A curve 1/(b (T - T0)), "
        "1/T after a delay T0, has a steeper slope too, but an r2 of 1 once the delay is over. The late "
        "phase is the last three quarters of the iterations. Intervals: jackknife over ten blocks of one "
        "run's rows; they say how well a line fits one curve, not how seeds differ (one seed).",
    )


def deep_orders(sources: Sources) -> Table:
    """Rounds against K: the fitted order per regime."""
    rows = []
    runs = load_runs(sources, "to-loss")
    for order in rounds_orders(runs):
        (k0, r0), (k1, r1) = order.first, order.last
        rows.append(
            (
                order.regime,
                f"{k0} to {k1}",
                f"{r0:,} to {r1:,}",
                f"{r0 / r1:.1f} of {k1 / k0:g}",
                interval(order.fit),
                order.reading,
            )
        )
    return Table(
        "Experiment 2: rounds to the target against K",
        (
            "regime",
            "K",
            "rounds",
            "rounds saved (factor)",
            "slope of log rounds in log K (95%)",
            "reading",
        ),
        rows,
        f"{describe(runs)}; one seed. Rounds proportional to 1/K (slope -1) is what O(1/T) gives; O(K/T) "
        "promises no gain (slope 0).",
    )


def deep_phases(sources: Sources) -> Table:
    """Where the rounds go: until the loss falls, and from there to the target; with their orders in K."""
    runs = load_runs(sources, "to-loss")
    target = config_of(runs)["target_loss"]
    levels = (*FALLS, target)
    rows = []
    for regime, by_k in runs.items():
        table = [(k, _stages(run, levels)) for k, run in by_k.items()]
        rows += [(regime, str(k), *(value_text(n, ",") for n in stages)) for k, stages in table]
        orders = []
        for stage in range(len(levels) + 1):
            points = [(k, n) for k, stages in table if (n := stages[stage])]
            orders.append(f"{slope_in_k(points)[0]:.2f}" if len(points) > 2 else "-")
        rows.append((regime, "slope in K", *orders))
    return Table(
        "Where the rounds go",
        (
            "regime",
            "K",
            *(f"until {level:g}" for level in levels),
            f"from {FALLS[0]:g} to {target:g}",
        ),
        rows,
        "Rounds until the training loss is first below each level, at evaluated rounds. The slope is that of log "
        "rounds in log K: -1 is a K-fold saving, 0 none. Looked at after the results: a description without "
        "a rule and without a verdict.",
    )


def _stages(run: dict[str, Any], levels: Sequence[float]) -> list[int | None]:
    found = [rounds_below(run, level) for level in levels]
    first, last = found[0], found[-1]
    return [*found, None if first is None or last is None else last - first]


def deep_fixed(sources: Sources) -> Table:
    """Every run of a fixed number of rounds."""
    rows = []
    for regime, by_k in load_runs(sources, "fixed-rounds").items():
        for k, run in by_k.items():
            s = run["summary"]
            rows.append(
                (
                    regime,
                    str(k),
                    f"{s['rounds']:,}",
                    f"{s['iterations']:,}",
                    value_text(s["final_train_loss"], ".3g"),
                    interval(run["fits"]["loglog_slope"]),
                    s["status"],
                )
            )
    return Table(
        "Experiment 1, fixed rounds: every run",
        (
            "regime",
            "K",
            "rounds",
            "iterations T",
            "final training loss",
            "log-log slope, late phase (95%)",
            "end",
        ),
        rows,
    )


def deviations(sources: Sources) -> Table:
    """Where the runs of the tables differ from the paper's set-up as far as it is known."""
    runs = load_runs(sources, "to-loss")
    c = config_of(runs)
    try:
        fixed: dict[str, Any] | None = config_of(load_runs(sources, "fixed-rounds"))
    except MissingResult:
        fixed = None
    images = "all 50,000 training images"
    subset = f"{c['subset'] or 0:,} training images, the same number of each class"
    steps = sorted({k for by_k in runs.values() for k in by_k})
    # Files of before these options existed lack them, and were made with the other value of each.
    affine = c.get("norm_affine", True)
    share = (
        f" (mixed: a share {c['similarity']:g} of each node's images iid)"
        if "mixed" in runs
        else ""
    )
    rows = [
        ("data", "CIFAR-10", c["data_name"]),
        ("training images", images, subset if c["subset"] else images),
        ("network", "ResNet18 of width 64", f"ResNet18 of width {c['width']}"),
        (
            "norms",
            "LayerNorm; in the repository without scale and shift",
            f"one group over (C, H, W), {'with a' if affine else 'without'} scale and shift"
            + (" a channel" if affine else ""),
        ),
        (
            "pixels",
            f"{UNKNOWN}; in the repository (x - 0.5)/0.5",
            {"centred": "(x - 0.5)/0.5", "standardised": "mean 0 and variance 1 a channel"}[
                c.get("pixels", "standardised")
            ],
        ),
        (
            "batches",
            f"{UNKNOWN}; in the repository without replacement",
            c.get("batches", "with-replacement").replace("-", " "),
        ),
        ("nodes n, batch a node", "20, 8", f"{c['n_nodes']}, {c['batch_size']}"),
        ("local steps K", "1, 2, 5, 10, 20", ", ".join(map(str, steps))),
        (
            "Experiment 1: rounds, step size",
            "20,000, 0.1",
            f"{fixed['rounds']:,}, {fixed['step_size']:g}" if fixed else "no result",
        ),
        (
            "Experiment 2: target, limit, step size",
            "1e-4, 1,000,000 rounds, 0.075",
            f"{c['target_loss']:g}, {c['rounds']:,} rounds, {c['step_size']:g}",
        ),
        ("regimes", "three, see the set-up", ", ".join(runs) + share),
        ("seeds", UNKNOWN, f"one, {c['seed']}"),
        ("hardware", UNKNOWN, _hardware(runs)),
    ]
    return Table(
        "What was run in the tables above, and where it deviates", ("what", "paper", "here"), rows
    )


def _hardware(runs: Runs) -> str:
    kinds = {
        f"{h.get('gpu') or h['processor']}, {h['cores']} cores"
        for by_k in runs.values()
        for h in [run["hardware"] for run in by_k.values()]
    }
    gpu = any(run["hardware"].get("gpu") for by_k in runs.values() for run in by_k.values())
    return "; ".join(sorted(kinds)) + ("" if gpu else "; not measured on a GPU")
