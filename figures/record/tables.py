"""Tables made from the result files, for the record (Markdown) and the page (HTML).

No number in them is typed: each comes from a result file, and a missing file gives the command that
makes it in place of a table.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from figures.analysis.sources import Sources
from figures.drawing.deep_curves import Runs, late_line, load_runs
from figures.drawing.orders import VERIFY_COMMAND, VERIFY_PATH
from figures.drawing.worst_cases import WORST_CASE_COMMAND, WORST_CASE_PATH, against_k, solved_rows
from theory.support.errors import UserError
from theory.verification.check import FAILED, HOLDS, NOT_APPLICABLE
from theory.verification.orders import fit_slope
from theory.verification.tables import number

COMMAND = "python "
_NUMBER = re.compile(r"-?[\d.,e+-]+( ?\[[\d.,e+ -]+\])?|-")
#: Letters from which a cell is text to be read, not looked up.
_LONG = 60


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; ``note`` is a line below."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        """A Markdown table, its title in bold above."""
        lines = [f"**{_mark(self.title)}**", "", _line(self.head), _line(("---",) * len(self.head))]
        lines += [_line(row) for row in self.rows]
        return "\n".join([*lines, *(["", _mark(self.note)] if self.note else [])])

    def html(self) -> str:
        """An HTML table that scrolls sideways, or stacks its cells if they are text, on a phone."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.head)
        body = "".join(
            "<tr>" + "".join(map(_cell, self.head, row)) + "</tr>\n" for row in self.rows
        )
        note = f"<p class=note>{html.escape(self.note)}</p>" if self.note else ""
        prose = " class=prose" if any(len(c) > _LONG for row in self.rows for c in row) else ""
        return (
            f"<div class=scroll><table{prose}><caption>{html.escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{note}"
        )


def _mark(cell: str) -> str:
    # A command is to be copied; elsewhere a bar would end the cell, stars and "<" would be formatting.
    if cell.startswith(COMMAND):
        return f"`{cell}`"
    for character in "|*<":
        cell = cell.replace(character, f"\\{character}")
    return cell


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_mark(cell) for cell in cells) + " |"


def _cell(head: str, cell: str) -> str:
    text = html.escape(cell)
    text = f"<code>{text}</code>" if cell.startswith(COMMAND) else text
    return f'<td{_class(cell)} data-head="{html.escape(head)}">{text}</td>'


def _class(cell: str) -> str:
    if cell.startswith((HOLDS, "reproduced")):
        return " class=good"
    if cell == FAILED or cell == "not":
        return " class=bad"
    if cell.startswith(("partly", "not run")):
        return " class=so-so"
    return " class=number" if _NUMBER.fullmatch(cell) else ""


def interval(fit: dict[str, Any] | None) -> str:
    """Slope and interval of a fit in a result file, as "s [low, high]"."""
    if not fit or fit["slope"] is None:
        return "-"
    low, high = fit.get("interval") or (fit["low"], fit["high"])
    return f"{fit['slope']:.2f} [{low:.2f}, {high:.2f}]"


# ---- the deep experiment -------------------------------------------------------------------------


def deep_runs(sources: Sources) -> Table:
    """Every run to the target loss."""
    runs = load_runs(sources, "to-loss")
    target = _config(runs)["target_loss"]
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
                    _value(s["final_train_loss"], ".3g"),
                    interval(fits["loglog_slope"]),
                    _r2(fits["inverse_loss_vs_iterations"]["r2"]),
                    _r2(late[2] if late else None),
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


def _r2(value: float | None) -> str:
    return _value(value, ".3f")


def _value(value: float | str | None, form: str) -> str:
    """A number of a result file, where NaN is null and infinity a word."""
    return "-" if value is None else value if isinstance(value, str) else format(value, form)


def _config(runs: Runs) -> dict[str, Any]:
    config: dict[str, Any] = next(iter(next(iter(runs.values())).values()))["config"]
    return config


@dataclass(frozen=True)
class RoundsOrder:
    """How the rounds to the target fall with K in one regime; the fit is None below 3 points."""

    regime: str
    first: tuple[int, int]
    last: tuple[int, int]
    fit: dict[str, Any] | None

    @property
    def reading(self) -> str:
        """What the interval says of 1/K and of no gain at all."""
        if self.fit is None:
            return "too few runs there for a fit"
        low, high = self.fit["interval"]
        if high - low > 0.5:
            return "the interval is too wide to tell"
        if low <= -1 <= high:
            return "1/K lies inside the interval"
        if high < -1:
            return "falls faster than 1/K"
        return "falls, but slower than 1/K" if high < 0 else "no clear gain from local steps"


def rounds_orders(runs: Runs) -> list[RoundsOrder]:
    """The fitted order of rounds to the target in K, per regime with at least two runs there."""
    found = []
    for regime, by_k in runs.items():
        points = [
            (k, run["summary"]["rounds_to_target"])
            for k, run in by_k.items()
            if run["summary"]["rounds_to_target"]
        ]
        if len(points) < 2:
            continue
        fit = None
        if len(points) > 2:
            ks, rounds = (np.array(column, float) for column in zip(*points, strict=True))
            line = fit_slope(ks, rounds, regime, -1.0)
            fit = {"slope": line.slope, "interval": [line.low, line.high]}
        found.append(RoundsOrder(regime, points[0], points[-1], fit))
    return found


def deep_orders(sources: Sources) -> Table:
    """Rounds against K: the fitted order per regime."""
    rows = []
    for order in rounds_orders(load_runs(sources, "to-loss")):
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
        "Rounds proportional to 1/K (slope -1) is what O(1/T) gives; O(K/T) promises no gain (slope 0).",
    )


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
                    _value(s["final_train_loss"], ".3g"),
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
    """The paper's set-up as far as it is known, beside the set-up that was run."""
    runs = load_runs(sources, "to-loss")
    c = _config(runs)
    try:
        fixed: dict[str, Any] | None = _config(load_runs(sources, "fixed-rounds"))
    except ValueError:
        fixed = None
    images = "all 50,000 training images"
    ours = (
        f"{c['subset']:,} training images, the same number of each class" if c["subset"] else images
    )
    steps = sorted({k for by_k in runs.values() for k in by_k})
    rows = [
        ("data", "CIFAR-10", c["data_name"]),
        ("training images", images, ours),
        (
            "network",
            "ResNet18, LayerNorm for BatchNorm, width 64",
            f"ResNet18, LayerNorm as GroupNorm with one group over (C, H, W), width {c['width']}",
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
        (
            "regimes",
            "iid, sorted into 20 shards, one in between (mixture not known to us)",
            ", ".join(runs) + f"; mixed has a share {c['similarity']:g} of each node's images iid",
        ),
        ("seeds", "not known to us", f"one, {c['seed']}"),
        ("hardware", "not known to us", _hardware(runs)),
    ]
    return Table("Deviations of the deep experiment", ("what", "paper", "here"), rows)


def _hardware(runs: Runs) -> str:
    kinds = {
        f"{h.get('gpu') or h['processor']}, {h['cores']} cores"
        for by_k in runs.values()
        for h in [run["hardware"] for run in by_k.values()]
    }
    gpu = any(run["hardware"].get("gpu") for by_k in runs.values() for run in by_k.values())
    return "; ".join(sorted(kinds)) + ("" if gpu else "; not measured on a GPU")


# ---- the theory ----------------------------------------------------------------------------------


def verification(sources: Sources) -> Table:
    """Checks by theorem."""
    record = sources.read(VERIFY_PATH, VERIFY_COMMAND)
    by_theorem: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for check in record["checks"]:
        by_theorem[check["theorem"]].append(check)
    rows = []
    for theorem, checks in by_theorem.items():
        counts = {
            v: sum(c["verdict"] == v for c in checks) for v in (HOLDS, FAILED, NOT_APPLICABLE)
        }
        # Both sides of a linear rate end as rounding noise; there the ratio says nothing.
        ratios = [c["ratio"] for c in checks if c["verdict"] == HOLDS and _finite(c["ratio"])]
        problems = dict.fromkeys(c["problem"] for c in checks if c["verdict"] == HOLDS)
        rows.append(
            (
                theorem,
                str(counts[HOLDS]),
                str(counts[FAILED]),
                str(counts[NOT_APPLICABLE]),
                number(min(ratios)) if ratios else "-",
                number(float(np.median(ratios))) if ratios else "-",
                ", ".join(problems),
            )
        )
    sweep = record["sweep"]
    ks = ", ".join(map(str, sweep["local_steps"]))
    return Table(
        "Verification: measured left side against bound",
        (
            "theorem",
            "HOLDS",
            "FAILED",
            "not applicable",
            "least bound/measured",
            "median bound/measured",
            "problems",
        ),
        rows,
        f"K = {ks}; R = {sweep['rounds']}; n = {sweep['n_nodes']}; nodes: "
        f"{', '.join(sweep['heterogeneity'])}. Exact expectations for least squares, else the upper "
        f"end of a 95% interval of {sweep['seeds']} sample paths must be at most the bound.",
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _number(value: Any) -> str:
    return number(value) if _finite(value) else "-"


def all_checks(sources: Sources) -> Table:
    """Every check that applies."""
    record = sources.read(VERIFY_PATH, VERIFY_COMMAND)
    rows = [
        (
            c["theorem"],
            c["problem"],
            c["heterogeneity"],
            str(c["local_steps"]),
            _number(c["measured"])
            + ("" if c["how"] == "exact" else f" [{_number(c['low'])}, {_number(c['high'])}]"),
            _number(c["bound"]),
            _number(c["ratio"]),
            c["verdict"],
        )
        for c in record["checks"]
        if c["verdict"] != NOT_APPLICABLE
    ]
    return Table(
        "Every check that applies",
        (
            "theorem",
            "problem",
            "nodes",
            "K",
            "measured (95%)",
            "bound",
            "bound/measured",
            "verdict",
        ),
        rows,
        "Without an interval: exact.",
    )


def tightness(sources: Sources) -> Table:
    """The instances: ratio against limit, at the largest R of each."""
    record = sources.read(VERIFY_PATH, VERIFY_COMMAND)
    last: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in record["tightness"]:
        key = (row["instance"], row["theorem"], row["local_steps"])
        if key not in last or row["rounds"] >= last[key]["rounds"]:
            last[key] = row
    rows = [
        (
            r["instance"],
            r["theorem"],
            r["metric"].replace("_", " "),
            str(r["local_steps"]),
            f"{r['rounds']:,}",
            f"{r['ratio']:.5g}",
            f"{r['limit']:.5g}",
            r["verdict"],
        )
        for r in last.values()
    ]
    return Table(
        "Tightness: bound over measured on the instances, at the largest R",
        ("instance", "theorem", "metric", "K", "R", "ratio", "limit", "verdict"),
        rows,
        "The limits are 1 (I0, I3), 2e (I1, I2) and 4e (I4).",
    )


def orders(sources: Sources) -> Table:
    """Fitted log-log slopes."""
    record = sources.read(VERIFY_PATH, VERIFY_COMMAND)
    rows = [
        (
            f["family"],
            f"{f['slope']:.4f}",
            f"[{f['low']:.4f}, {f['high']:.4f}]",
            "-" if f["predicted"] is None else f"{f['predicted']:g} ± {f['tolerance']:g}",
            f["verdict"],
        )
        for f in record["slopes"]
    ]
    return Table(
        "Order: fitted log-log slopes",
        ("family", "slope", "95%", "predicted", "verdict"),
        rows,
        '"observed": the theory bounds the decay and predicts no exponent.',
    )


def communication(sources: Sources) -> Table:
    """Rounds to accuracy against K, one row a family: measured, and what its bound needs."""
    record = sources.read(VERIFY_PATH, VERIFY_COMMAND)
    families = record["communication"]
    ks = families[0]["local_steps"]
    rows = []
    for c in families:
        if not len(c["rounds"]) == len(c["bound"]) == len(ks):
            raise UserError(
                f"{VERIFY_PATH}: a family of communication has not every K of the first"
            )
        cells = [
            f"{'not reached' if measured is None else f'{measured:,.0f}'} ({np.ceil(bound):,.0f})"
            for measured, bound in zip(c["rounds"], c["bound"], strict=True)
        ]
        rows.append(
            (
                c["family"],
                number(c["accuracy"]),
                *cells,
                c["theorem"],
                f"{c['fit']['slope']:.3f}",
                c["verdict"],
            )
        )
    return Table(
        "Communication: rounds until f(xbar_R) <= eps at step size 1/L",
        ("problem", "eps", *(f"K = {k}" for k in ks), "bound", "slope in K", "verdict"),
        rows,
        "Measured, and in brackets the rounds that the bound of the theorem named needs.",
    )


def worst_cases(sources: Sources) -> Table:
    """Exact worst cases at eta = 1/L against K."""
    record = sources.read(WORST_CASE_PATH, WORST_CASE_COMMAND)
    names = {
        "average_local": "T1, average local loss",
        "average_sync": "T2, average f(xbar_r)",
        "best": "best iterate, min f(xbar_r)",
        "last": "last iterate, f(xbar_R)",
    }
    rows = []
    for metric, name in names.items():
        for r in against_k(solved_rows(record, metric)):
            rows.append(
                (
                    name,
                    str(r["local_steps"]),
                    str(r["rounds"]),
                    f"{_value(r['instance'], '.6f')} ({r['instance_name']})",
                    _value(r["worst_case"], ".6f"),
                    _value(r["bound"], ".6f"),
                    _value(r["ratio"], ".3f"),
                    r["verdict"],
                )
            )
    return Table(
        "Exact worst cases at step size 1/L",
        (
            "metric",
            "K",
            "R",
            "best known instance",
            "worst case",
            "bound",
            "bound/worst",
            "verdict",
        ),
        rows,
        "Deterministic Local SGD over all L-smooth convex f_i with a common minimiser, any n >= 2; "
        f"values in units of L D. {worst_case_summary(record)}",
    )


def worst_case_summary(record: dict[str, Any]) -> str:
    """How the cells of the whole file came out."""
    rows = record["rows"]
    solved = [r for r in rows if r["worst_case"] is not None]
    gaps = [abs(r["duality_gap"]) for r in solved if r["duality_gap"] is not None]
    gap = max(gaps, default=np.nan)
    misses = [abs(r["attained"] - r["worst_case"]) for r in solved if r["attained"] is not None]
    failed = sum(r["verdict"] == FAILED for r in rows)
    routes = record["routes"]
    agree = sum(r["verdict"] == HOLDS for r in routes)
    text = (
        f"All cells of the file: {len(rows)}, FAILED: {failed}; largest certified gap {gap:.1e}; the "
        f"simulator attains the worst case on {len(misses)} explicit problems to "
        f"{max(misses, default=np.nan):.1e}"
    )
    return text + (f"; PEPit's route agrees on {agree} of {len(routes)}." if routes else ".")


def files(sources: Sources) -> Table:
    """Every result file behind the tables: what made it and its hash."""
    rows = []
    for path, digest in sorted(sources.files.items()):
        content = sources.read(path, "")
        rows.append((path, content["command"], content["commit"], digest[:12]))
    return Table(
        "The result files behind these tables", ("file", "command", "commit", "SHA-256"), rows
    )
