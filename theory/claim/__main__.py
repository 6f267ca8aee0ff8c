"""``python -m theory.claim "L*D/(4*K*R)" --metric last``: try to break a claim about Local SGD.

Exit status: 1 when the claim is REFUTED, 0 when it HOLDS AT THESE SIZES or is NOT REFUTED, 2 on bad
input, 3 when no problem gives it a value. No verdict says "proved" of a size that was not solved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from theory.claim.book import LOWER, Entry, read_book
from theory.claim.claim import CLASSES, METRICS, Claim, from_formula, from_theorem
from theory.claim.counterexample import constants, python_lines, save
from theory.claim.expression import NAMES, parse
from theory.claim.lower import LowerOutcome, search_lower
from theory.claim.picture import draw
from theory.claim.search import Refutation
from theory.claim.verdict import (
    HOLDS_HERE,
    NOT_REFUTED,
    REFUTED,
    Outcome,
    grid,
    step_factors,
    try_to_break,
)
from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_folder, check_outputs, write_json, write_text
from theory.support.loading import file_of, load_object
from theory.support.progress import Progress
from theory.support.provenance import provenance
from theory.theorems.base import Theorem

app = cli.make_app()
#: A known problem of so many takes a second already.
MOST_ITERATIONS = 10_000
#: What is written into --out: the problem, a script that shows it, a picture.
COUNTEREXAMPLE = ("counterexample.npz", "counterexample.py", "counterexample.png")


@app.command()
def main(
    context: typer.Context,
    claim: Annotated[
        str, typer.Argument(help=f"Formula in {', '.join(NAMES)}; quote it.", show_default=False)
    ] = "",
    metric: Annotated[str, typer.Option(help=f"Of {', '.join(METRICS)}.")] = "last",
    family: Annotated[str, typer.Option("--class", help=f"Of {', '.join(CLASSES)}.")] = "convex",
    gradient: Annotated[str, typer.Option(help="full or stochastic.")] = "full",
    local_steps: Annotated[
        list[str], typer.Option("--local-steps", "-K", help="K; repeatable, or 1,2,4.")
    ] = ["1,2,3,4"],  # noqa: B006
    rounds: Annotated[list[str], typer.Option("--rounds", "-R", help="R; as -K.")] = ["1,2,3"],  # noqa: B006
    step_size: Annotated[
        list[str],
        typer.Option(
            help="eta as multiples of 1/L; or a formula for it in the constants of each problem, as "
            "1/(10*rho*K)."
        ),
    ] = ["1"],  # noqa: B006
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="n of the worst problems.")] = 2,
    growth: Annotated[float, typer.Option(help="mu/L of the worst cases with growth.")] = 0.1,
    lower: Annotated[
        bool, typer.Option("--lower", help="The claim is a lower bound, for every step size.")
    ] = False,
    kappa: Annotated[list[str], typer.Option(help="L/mu, for --lower.")] = ["6,10,100,1000"],  # noqa: B006
    theorem: Annotated[
        str, typer.Option(help="file.py:NAME, a Theorem, in place of a formula.")
    ] = "",
    book: Annotated[bool, typer.Option("--book", help="All claims of theory/claims.toml.")] = False,
    seconds: Annotated[
        float, typer.Option("--time-limit", help="Seconds in all, a claim.")
    ] = 120.0,
    seed: Annotated[int, typer.Option(help="Of random problems and starts.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a counterexample: .npz, .py and .png.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the outcome as JSON.")
    ] = None,
    version: cli.Version = False,
) -> None:
    """Try to break a claim: known problems, then exact worst cases, then an adversary.

    The claim is "metric <= formula" for every problem of the class, at every K, R and step size of the
    grid. A formula is arithmetic: + - * / ^ ( ) sqrt log exp min max.
    """
    inputs = {f"--out {name}": out / name for name in COUNTEREXAMPLE} if out is not None else {}
    if out is not None:
        # First, as it may be made where another output is asked for.
        check_folder("--out", out)
    check_outputs({"--json": json_file}, {"--theorem": file_of(theorem), **inputs})
    if sum([bool(claim), bool(theorem), book]) != 1:
        raise UserError("give one of: a formula, --theorem file.py:NAME, --book")
    if book:
        cli.refuse_unused(context, "--book", {"book", "seconds", "seed", "json_file"})
    elif lower:
        kept = {"lower", "claim", "kappa", "local_steps", "rounds", "step_size", "json_file"}
        cli.refuse_unused(context, "--lower", kept)
    else:
        # A theorem has its own metric and assumptions.
        without = {"kappa", "metric", "family", "growth"} if theorem else {"kappa"}
        cli.refuse_unused(context, "--theorem" if theorem else "a claim from above", unused=without)
        if family != "growth":
            cli.refuse_unused(context, f"--class {family}", unused={"growth"})
    seconds = numbers.real("--time-limit", seconds, above=0)
    numbers.choice("--metric", metric, METRICS)
    numbers.choice("--class", family, CLASSES)
    numbers.choice("--gradient", gradient, ("full", "stochastic"))
    ks = numbers.whole_numbers("-K", local_steps, 1, MOST_ITERATIONS)
    rs = numbers.whole_numbers("-R", rounds, 1, MOST_ITERATIONS)
    numbers.whole("K R (all iterations)", max(ks) * max(rs), 1, MOST_ITERATIONS)
    factors = step_factors(step_size)
    console = cli.console()
    if book:
        _run_book(console, seconds, seed, json_file)
        return
    if lower:
        kappas = numbers.real_numbers("--kappa", kappa, least=2)
        found = search_lower(
            parse(claim),
            kappas=kappas,
            local_steps=ks,
            rounds=rs,
            step_factors=numbers.real_numbers("--step-size", step_size, above=0, below=2),
        )
        console.print(lower_text(claim, found), markup=False)
        if json_file is not None:
            write_json(json_file, {**provenance(), "claim": claim, "lower": found.__dict__})
        raise typer.Exit(cli.FAILED if found.refuted else cli.DONE)
    stated = _claim(claim, theorem, metric, family, gradient)
    outcome = try_to_break(
        stated,
        grid(ks, rs, factors),
        seconds=seconds,
        growth=numbers.real("--growth", growth, above=0, below=1),
        n_nodes=numbers.whole("--nodes", nodes, 2, 50),
        seed=numbers.seed("--seed", seed),
        quiet=False,
    )
    _show(console, outcome)
    files = _keep(outcome, out) if out is not None and outcome.refutation is not None else []
    for file in files:
        console.print(f"written: {file}", markup=False)
    if json_file is not None:
        write_json(json_file, {**provenance(), **as_dict(outcome)})
    if outcome.verdict == REFUTED:
        raise typer.Exit(cli.FAILED)
    if outcome.verdict == NOT_REFUTED and not any(report.tried for report in outcome.reports):
        console.print("nothing could be tried: the claim has no value on any problem")
        raise typer.Exit(cli.UNDECIDED)


def _claim(text: str, theorem: str, metric: str, family: str, gradient: str) -> Claim:
    if theorem:
        found = load_object("--theorem", theorem)
        if not isinstance(found, Theorem):
            raise UserError(f"--theorem {theorem!r} is no Theorem, but a {type(found).__name__}")
        return from_theorem(found, gradient)
    return from_formula(parse(text), metric=metric, family=family, gradient=gradient)


# ---- what is shown -------------------------------------------------------------------------------


def _show(console: Console, outcome: Outcome) -> None:
    claim = outcome.claim
    console.print(
        f"claim: {claim.name_of_metric} <= {claim.text}\n"
        f"class: {claim.family}, {claim.gradient} gradients; {len(outcome.cells)} cells of K, R, eta",
        markup=False,
    )
    table = Table("search", "tried", "largest measured/claimed", "where", box=None, pad_edge=False)
    for report in outcome.reports:
        closest = f"{report.closest:.6g}" if report.tried else "-"
        table.add_row(report.search, str(report.tried), closest, report.where or "-")
    console.print(table)
    for report in outcome.reports:
        for reason in report.left_out[:3]:
            console.print(f"left out of {report.search}: {reason}", markup=False)
    found = outcome.refutation
    if found is not None:
        # Not wrapped: the Python lines are there to be copied.
        console.print(refutation_text(found), markup=False, highlight=False, soft_wrap=True)
    if outcome.verdict == HOLDS_HERE:
        console.print(
            f"the certified worst case of every cell is at most the claim ({outcome.scope}); other sizes were "
            "not solved"
        )
    console.print(f"{outcome.verdict}, {outcome.seconds:.1f} s")


def refutation_text(found: Refutation) -> str:
    """The counterexample in words, numbers and Python lines."""
    known = ", ".join(f"{name} = {value:.6g}" for name, value in constants(found.problem).items())
    limit = f"; at least {found.measured.low:.6g}" if found.measured.sampled else ""
    return (
        f"\ncounterexample ({found.search}): {found.source}\n"
        f"  {found.cell}; {known}\n"
        f"  measured {found.measured.value:.9g} ({found.measured.how}: {found.measured.second:.9g}{limit})\n"
        f"  claimed  {found.claimed:.9g}, exceeded {found.ratio:.6g} times\n\n"
        f"{python_lines(found, Path('counterexample.npz'))}\n"
    )


def lower_text(claim: str, found: LowerOutcome) -> str:
    """The outcome for a lower bound."""
    case = (
        f"kappa = {found.kappa:g}, K = {found.local_steps}, R = {found.rounds}, "
        f"eta = {found.step_factor:g}/L: the largest f(xbar_R) over all x* is {found.largest:.6g} L D, "
        f"claimed at least {found.claimed:.6g} L D"
    )
    if found.refuted:
        return f"claim: f(xbar_R) >= {claim} for some x*\nno x* does it at {case}\n{REFUTED}"
    return f"claim: f(xbar_R) >= {claim} for some x*\nclosest of {found.tried} cases: {case}\n{NOT_REFUTED}"


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """For --json."""
    found = outcome.refutation
    return {
        "claim": outcome.claim.text,
        "metric": outcome.claim.metric,
        "class": outcome.claim.family,
        "gradient": outcome.claim.gradient,
        "verdict": outcome.verdict,
        "seconds": outcome.seconds,
        "searches": [
            {
                "search": r.search,
                "tried": r.tried,
                "largest_ratio": r.closest,
                "where": r.where,
                "certified": [str(cell) for cell in r.certified],
                "left_out": r.left_out,
            }
            for r in outcome.reports
        ],
        "counterexample": None
        if found is None
        else {
            "search": found.search,
            "source": found.source,
            "cell": str(found.cell),
            "constants": constants(found.problem),
            "measured": found.measured.value,
            "measured_again": found.measured.second,
            "routes": found.measured.how,
            "claimed": found.claimed,
        },
    }


def _keep(outcome: Outcome, folder: Path) -> list[Path]:
    found = outcome.refutation
    assert found is not None
    data, lines, picture = (folder / name for name in COUNTEREXAMPLE)
    save(found.problem, data)
    write_text(lines, python_lines(found, data) + "\n")
    draw(outcome.claim, found, picture)
    return [data, lines, picture]


# ---- the book ------------------------------------------------------------------------------------


def run_entry(entry: Entry, seconds: float, seed: int = 0) -> tuple[str, str]:
    """(verdict, what decided it) of a claim of the book."""
    formula = parse(entry.claim)
    if entry.direction == LOWER:
        found = search_lower(
            formula,
            kappas=entry.kappas,
            local_steps=entry.local_steps,
            rounds=entry.rounds,
            step_factors=[float(step) for step in entry.step_sizes],
        )
        where = f"kappa {found.kappa:g}, K {found.local_steps}, R {found.rounds}, eta {found.step_factor:g}/L"
        return (REFUTED if found.refuted else NOT_REFUTED), f"ratio {found.ratio:.3g} at {where}"
    stated = from_formula(
        formula, metric=entry.metric, family=entry.family, gradient=entry.gradient
    )
    cells = grid(entry.local_steps, entry.rounds, step_factors(list(map(str, entry.step_sizes))))
    outcome = try_to_break(stated, cells, seconds=seconds, seed=seed)
    refuted = outcome.refutation
    if refuted is not None:
        return outcome.verdict, f"{refuted.ratio:.4g} times, {refuted.cell}, {refuted.source}"
    closest = max(outcome.reports, key=lambda report: report.closest)
    return outcome.verdict, f"closest {closest.closest:.4g}, {closest.where}"


def _run_book(console: Console, seconds: float, seed: int, json_file: Path | None) -> None:
    table = Table("claim", "verdict", "by", box=None, pad_edge=False)
    rows, surprises = [], []
    entries = read_book()
    try:
        with Progress("claims") as progress:
            for done, entry in enumerate(entries):
                progress.update(done, len(entries), entry.name)
                verdict, reason = run_entry(entry, seconds, seed)
                table.add_row(entry.name, verdict, reason)
                told = {"name": entry.name, "says": entry.says, "source": entry.source}
                rows.append({**told, "verdict": verdict, "by": reason})
                if verdict != entry.came_out:
                    said = f"the book says {entry.came_out}"
                    surprises.append(f"{entry.name} came out {verdict}, {said}")
    finally:
        # Ctrl-C and SIGTERM too: what is done is kept.
        if json_file is not None and rows:
            whole = {} if len(rows) == len(entries) else {"interrupted": True}
            write_json(json_file, {**provenance(), **whole, "claims": rows})
    console.print(table)
    for surprise in surprises:
        console.print(surprise, markup=False)
    if surprises:
        raise typer.Exit(cli.FAILED)


def script() -> NoReturn:
    """The command, as a console script."""
    cli.one_blas_thread()
    cli.run(app, "python -m theory.claim")


if __name__ == "__main__":
    script()
