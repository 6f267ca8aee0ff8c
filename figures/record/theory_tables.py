"""Tables of the verification record: checks, tightness, orders, communication against K, m, beta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from figures.analysis.sources import Sources
from figures.analysis.verification import VERIFY_PATH, load_verification
from figures.record.table import Table, is_finite, number_text
from theory.support.errors import UserError
from theory.support.verdicts import NOT_APPLICABLE
from theory.verification.tables import number, ratio


def ratio_text(value: Any) -> str:
    """Bound over measured; a dash for anything that is not finite."""
    return ratio(value) if is_finite(value) else "-"


def verification(sources: Sources) -> Table:
    """Checks by theorem: the plain statements, with the medians that the command computed."""
    record = load_verification(sources)
    rows = [
        (
            row["theorem"],
            *(str(row[name]) for name in ("holds", "failed", "undecided", "not_applicable")),
            ratio_text(row["least"]),
            ratio_text(row["median"]),
            ", ".join(row["problems"]),
        )
        for row in record["summary"]
        if "/" not in row["theorem"]
    ]
    sweep = record["sweep"]
    ks = ", ".join(map(str, sweep["local_steps"]))
    return Table(
        "Verification: measured left side against bound",
        (
            "theorem",
            "HOLDS",
            "FAILED",
            "UNDECIDED",
            "not applicable",
            "least bound/measured",
            "median bound/measured",
            "problems",
        ),
        rows,
        f"K = {ks}; R = {sweep['rounds']}; n = {sweep['n_nodes']}; nodes: "
        f"{', '.join(sweep['heterogeneity'])}; {' and '.join(sweep['gradients'])} gradients. Least "
        "squares exactly; T0 on every path; other means by an interval of "
        f"{sweep['seeds']} and more sample paths that holds for every distribution. For the linear "
        "rates T4 and T4' the ratio is that of the exponents. Above 1e15 a run ended in x* up to rounding.",
    )


def sharper(sources: Sources) -> Table:
    """Median bound / measured before and after, a line a sharper variant and step size."""
    record = load_verification(sources)
    rows = [
        (
            row["variant"],
            row["title"],
            _step(row),
            str(row["checks"]),
            ratio_text(row["median"]),
            ratio_text(row["median_sharper"]),
            ratio_text(row["median_bounds"]),
        )
        for row in record["sharper"]
    ]
    return Table(
        "Sharper: median bound/measured of a theorem and of its variant, where both hold",
        ("variant", "says", "eta L", "checks", "before", "after", "its bound over the plain one"),
        rows,
        "The same problems, schedules and gradients. Own: each at its own step size, which for S1 is 1/L, "
        "where it says what its theorem does; at other steps on the problems whose expectations are exact. "
        "T2/S3' is about the best model, which T2 bounds too; T2/S2 about the last, which it does not. T0 "
        "knows what a path has left to go, T0/S1 does not, so that they are not compared at other steps. "
        "Before S8 the curvature bound, and so T6's smoothness, was about twice as large, and its step half. "
        f"{looser(record['sharper'])}",
    )


def _step(row: dict[str, Any]) -> str:
    return "own" if row["step_factor"] is None else f"{row['step_factor']:g}"


def looser(rows: Sequence[dict[str, Any]]) -> str:
    """Where a variant is farther from what is measured than the plain statement, and why."""
    found: dict[str, list[str]] = {}
    for row in rows:
        before, after = row["median"], row["median_sharper"]
        # What the table's digits show, no less.
        shown = ratio_text(before) != ratio_text(after)
        if is_finite(before) and is_finite(after) and after > before and shown:
            smaller = is_finite(row["median_bounds"]) and row["median_bounds"] < 1
            at = f" at {_step(row)}/L"
            why = "on the same runs"
            if row["step_factor"] is None:
                at = ""
                why = "with a larger bound"
                if smaller:
                    why = (
                        "whose bound is smaller, but whose runs at its own step fall further still"
                    )
            name = f"{row['variant']}{at} ({ratio_text(before)} to {ratio_text(after)})"
            found.setdefault(why, []).append(name)
    if not found:
        return "By these medians no variant is worse than the plain statement."
    texts = "; ".join(f"{', '.join(names)}, {why}" for why, names in found.items())
    return f"By these medians worse than the plain statement: {texts}."


def all_checks(sources: Sources) -> Table:
    """Every check that applies."""
    record = load_verification(sources)
    rows = [
        (
            c["theorem"],
            c["problem"],
            c["heterogeneity"],
            str(c["local_steps"]),
            number_text(c["measured"])
            + (
                ""
                if c["low"] == c["high"]
                else f" [{number_text(c['low'])}, {number_text(c['high'])}]"
            ),
            number_text(c["bound"]),
            ratio_text(c["ratio"]),
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
    record = load_verification(sources)
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
        limits(list(last.values())),
    )


def limits(rows: Sequence[dict[str, Any]]) -> str:
    """Which limit belongs to which instance and theorem; with K where it depends on K."""
    several = {
        r["instance"]
        for r in rows
        for s in rows
        if (r["instance"], r["theorem"]) == (s["instance"], s["theorem"])
        and not np.isclose(r["limit"], s["limit"])
    }
    found: dict[str, dict[str, dict[str, None]]] = {}
    for row in sorted(rows, key=lambda r: float(r["limit"])):
        what = row["theorem"]
        if row["instance"] in several:
            what += f" at K = {row['local_steps']}"
        mine = found.setdefault(_limit(row["limit"]), {})
        mine.setdefault(row["instance"], {})[what] = None
    texts = [
        f"{limit} for " + ", ".join(f"{name} ({', '.join(of)})" for name, of in mine.items())
        for limit, mine in found.items()
    ]
    return f"The limits are {'; '.join(texts)}."


def _limit(value: float) -> str:
    """A limit by its name, where it is a multiple of e."""
    multiple = value / np.e
    return f"{multiple:.0f}e" if np.isclose(multiple, round(multiple)) else f"{value:.5g}"


def orders(sources: Sources) -> Table:
    """Fitted log-log slopes."""
    record = load_verification(sources)
    rows = [
        (
            f["family"],
            f"{f['slope']:.4f}",
            f"[{f['low']:.4f}, {f['high']:.4f}]",
            "-" if f["predicted"] is None else f"{f['predicted']:g} ± {f['tolerance']:g}",
            number_text(f["undercut"]),
            f["verdict"],
        )
        for f in record["slopes"]
    ]
    return Table(
        "Order: fitted log-log slopes",
        ("family", "slope", "95%", "predicted", "below C/sqrt(nT) at the end", "verdict"),
        rows,
        '"observed": the theory bounds the decay and predicts no exponent. '
        + record["undercut_reading"],
    )


def communication(sources: Sources) -> Table:
    """Rounds to accuracy against K, one row a family: measured, and what its bound needs."""
    record = load_verification(sources)
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


def clients(sources: Sources) -> Table:
    """Rounds to accuracy against the clients of a round, one row a problem."""
    rows = load_verification(sources)["clients"]
    heads = sorted({r["clients"] for r in rows})
    return Table(
        "Clients: rounds until E f(xbar_R) <= eps with m nodes a round, K = 5, step size 1/L",
        ("problem", "eps", *(f"m = {m}" for m in heads), "verdict"),
        _rounds_by(rows, "clients", heads),
        "Exact, and in brackets the rounds that T7's bound needs, the same for every m. A round sends m "
        "models out and m back.",
    )


def server_steps(sources: Sources) -> Table:
    """Rounds to accuracy against the outer step, one row a problem."""
    rows = load_verification(sources)["outer_steps"]
    heads = list(dict.fromkeys(r["outer_step"] for r in rows))
    shown = (f"beta = {b:g}" if isinstance(b, int | float) else b for b in heads)
    return Table(
        "Outer steps: rounds until E f(xbar_R) <= eps, all nodes, K = 5, step size 1/L",
        ("problem", "eps", *shown, "verdict"),
        _rounds_by(rows, "outer_step", heads),
        "Exact for a fixed beta; for a rule the median of 16 paths, which has no verdict. In brackets the "
        "rounds that a bound needs: T8a's for beta at most 1, T8b's for a rule; no bound covers a fixed "
        "beta above 1.",
    )


def _rounds_by(
    rows: list[dict[str, Any]], name: str, heads: Sequence[object]
) -> list[tuple[str, ...]]:
    """A line a problem: its eps, rounds and bound under every head, and its verdicts."""
    found = []
    for family in dict.fromkeys(r["family"] for r in rows):
        mine = {r[name]: r for r in rows if r["family"] == family}
        cells = [_rounds(mine[head]) if head in mine else "-" for head in heads]
        accuracy = next(iter(mine.values()))["accuracy"]
        verdicts = dict.fromkeys(r["verdict"] for r in mine.values())
        found.append((family, number(accuracy), *cells, ", ".join(verdicts)))
    return found


def _rounds(row: dict[str, Any]) -> str:
    measured = "not reached" if row["rounds"] is None else f"{row['rounds']:,g}"
    return measured if row["bound"] is None else f"{measured} ({np.ceil(row['bound']):,.0f})"
