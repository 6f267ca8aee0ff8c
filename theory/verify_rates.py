"""``python -m theory.verify_rates``: which rates of Local SGD hold, how tight, at what cost in rounds.

Exit status: 0 when nothing FAILED, 1 when something did, 2 on bad input, 3 when nothing could be decided.
"""

from __future__ import annotations

import itertools
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from theory.problems.generators import HETEROGENEITIES
from theory.simulation.compiled_engines import ENGINES
from theory.simulation.outer_steps import RULES
from theory.simulation.variants import ORDERS
from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_outputs, write_json, write_text
from theory.support.loading import file_of
from theory.support.progress import Progress
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE, UNDECIDED
from theory.theorems import THEOREMS, find_theorems
from theory.theorems.explain import explain
from theory.verification import tables
from theory.verification.options import DATA_HELP, LOSS_HELP
from theory.verification.report import Report, as_csv, as_json, digest, make_report
from theory.verification.sweep import GRADIENTS, INSTANCES, LEVELS, PROBLEMS, Sweep, make_problem
from theory.verification.violations import VIOLATIONS

app = cli.make_app()
#: Parameters of main that only generated problems have.
GENERATED = {"nodes", "dimension", "heterogeneity", "seed"}
# Lists are typed as "1,5" or by repeating the option.
Words = list[str] | None


def _explain(name: str | None) -> None:
    if name is not None:
        print(explain(name), end="")
        raise typer.Exit(cli.DONE)


@app.command()
def main(
    context: typer.Context,
    theorem: Annotated[
        Words, typer.Option(help="T0 ... T6, T2/S3, file.py:NAME; default: all.")
    ] = None,
    problem: Annotated[Words, typer.Option(help=f"Of {', '.join(PROBLEMS)}.")] = None,
    heterogeneity: Annotated[Words, typer.Option(help=f"Of {', '.join(HETEROGENEITIES)}.")] = None,
    local_steps: Annotated[
        Words, typer.Option("--local-steps", "-K", help="K, local steps a round; default: 1,5,20.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", "-R", help="R; T = K R. Default: 200, quick: 50.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="n.")] = 5,
    dimension: Annotated[
        int | None,
        typer.Option("--dimension", "-d", help="d; default: 256, or 16 n if that is more."),
    ] = None,
    step_size: Annotated[
        Words,
        typer.Option(help="eta as a multiple of 1/L; default: each theorem's own admissible step."),
    ] = None,
    gradient: Annotated[Words, typer.Option(help="Of stochastic, full; default: both.")] = None,
    participants: Annotated[
        int | None,
        typer.Option("--participants", "-m", help="Clients a round; default: each theorem's own."),
    ] = None,
    outer_step: Annotated[
        str | None,
        typer.Option(help=f"beta, or {', '.join(RULES)}; default: each theorem's own."),
    ] = None,
    order: Annotated[str | None, typer.Option(help=f"Of the samples: {', '.join(ORDERS)}.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="A variant of your own, as file.py:NAME.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Sample paths, at first, where no exact value exists; 32, quick: 12."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", "--problem-seed", help="Seed of the generated problems.")
    ] = 0,
    engine: Annotated[str, typer.Option(help=f"auto, exact, {', '.join(ENGINES)}.")] = "auto",
    workers: Annotated[int, typer.Option(help="joblib workers; -1 for all cores.")] = 1,
    data: Annotated[
        list[str] | None,
        typer.Option(help=DATA_HELP),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help=LOSS_HELP),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the checks as CSV.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller runs, under 20 s.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Print every check, and what does not apply.")
    ] = False,
    violation: Annotated[
        str | None,
        typer.Option("--break", help=f"Violate a hypothesis on purpose: {', '.join(VIOLATIONS)}."),
    ] = None,
    _explained: Annotated[
        str | None,
        typer.Option(
            "--explain",
            callback=_explain,
            is_eager=True,
            help="Print a theorem with its proof and stop; also: lemmas.",
        ),
    ] = None,
    version: cli.Version = False,
) -> int:
    """Check the rates of Local SGD under interpolation against closed-form constants.

    Options that take several values take them as 1,5 or repeated. With --data alone, only your problem
    is checked.
    """
    standard = Sweep()
    if loss is not None and not data:
        raise UserError(f"--loss is {loss}, allowed with --data only")
    workers = numbers.whole("workers", workers, -1, 1024)
    if workers == 0:
        raise UserError("workers is 0, allowed: at least 1, or -1 for all cores")
    some = tuple(numbers.words("problem", problem, PROBLEMS)) if problem else None
    sweep = Sweep(
        theorems=_theorems(theorem) or standard.theorems,
        problems=some if some is not None else (() if data else PROBLEMS),
        heterogeneity=_words("heterogeneity", heterogeneity, HETEROGENEITIES) or LEVELS,  # type: ignore[arg-type]
        local_steps=tuple(numbers.whole_numbers("K (local steps)", local_steps, 1))
        if local_steps is not None
        else standard.local_steps,
        rounds=rounds if rounds is not None else (50 if quick else standard.rounds),
        n_nodes=nodes,
        dimension=max(256, 16 * nodes) if dimension is None else dimension,
        step_factors=tuple(numbers.real_numbers("step size in units of 1/L", step_size, above=0))
        if step_size is not None
        else (),
        gradients=_words("gradient", gradient, GRADIENTS) or GRADIENTS,
        participants=participants,
        outer_step=outer_step,
        order=order,
        variant=variant,
        seeds=seeds if seeds is not None else (12 if quick else standard.seeds),
        engine=engine,
        data=tuple(data or ()),
        loss=loss or standard.loss,
        violation=violation,
        problem_seed=seed,
    )
    sweep.check()
    if not set(sweep.problems) - set(INSTANCES):
        cli.refuse_unused(context, "--data" if sweep.data else "instances", unused=GENERATED)
    inputs: dict[str, Path | None] = {f"--data {path}": Path(path) for path in sweep.data}
    inputs |= {f"--theorem {text}": file_of(text) for text in sweep.theorems}
    inputs |= {"--variant": file_of(variant), "--loss": file_of(loss)}
    check_outputs({"--json": json, "--csv": csv}, inputs)
    console = cli.console()
    for path in sweep.data:
        _say(console, digest(make_problem(sweep, path, None)))
    began = time.perf_counter()
    with Progress("checking") as progress:
        found = make_report(sweep, workers=workers, quick=quick, report=progress.update)
    if json is not None:
        write_json(json, as_json(found))
    if csv is not None:
        write_text(csv, as_csv(found.checks))
    show(console, found, time.perf_counter() - began, details)
    if found.count(FAILED):
        return cli.FAILED
    return cli.DONE if found.decided else cli.UNDECIDED


def _words(name: str, typed: list[str] | None, allowed: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(numbers.words(name, typed, allowed)) if typed is not None else ()


def _theorems(typed: list[str] | None) -> tuple[str, ...]:
    names = [name.strip() for text in typed or [] for name in text.split(",")]
    # A user's own theorem keeps its file, from which every worker loads it.
    kept = [[name] if ".py:" in name else [t.name for t in find_theorems([name])] for name in names]
    return tuple(dict.fromkeys(itertools.chain.from_iterable(kept)))


def _say(console: Console, text: str, style: str = "") -> None:
    for line in text.splitlines():
        for piece in textwrap.wrap(line, tables.WIDTH, break_long_words=False):
            console.print(piece, style=style, highlight=False, markup=False, soft_wrap=True)


def show(console: Console, found: Report, seconds: float, details: bool) -> None:
    """Print a report: one screen, or with every check and table."""
    every = found.sweep.theorems == Sweep().theorems
    named = {t.name for t in THEOREMS} if every else set()
    rows = [s for s in found.summary if details or not named or s.theorem in named]
    shown = []
    if details:
        shown += tables.check_tables(found.checks)
        shown.append(tables.not_applicable_table(found.checks))
        if found.count(UNDECIDED):
            shown.append(tables.undecided_table(found.checks))
        if found.tightness:
            shown.append(tables.tightness_table(found.tightness))
        if found.sharper:
            shown.append(tables.sharper_table(found.sharper))
    shown.append(tables.summary_table(rows))
    if found.slopes:
        shown.append(tables.slope_table(found.slopes, details))
    if found.communication:
        shown.append(tables.communication_table(found.communication))
        if details:
            shown.append(tables.needed_table(found.communication))
    # With every theorem on one screen there is no room for these two.
    if found.clients and (details or not every):
        shown.append(tables.clients_table(found.clients))
    if found.outer_steps and (details or not every):
        shown.append(tables.outer_steps_table(found.outer_steps))
    for table in shown:
        console.print(table)
        console.print()
    _say(console, _closing(found, seconds), "bold red" if found.count(FAILED) else "bold green")
    _say(console, tables.undecided_line(found.checks))
    if not found.decided:
        _say(console, "Nothing could be decided; --details says why.")
    elif not details:
        _say(console, "--details: every check; --explain T2: a theorem and its proof; --help.")


def _closing(found: Report, seconds: float) -> str:
    verdicts = Counter(c.verdict for c in found.checks)
    others = found.count(HOLDS) - verdicts[HOLDS]
    more = (
        f" {others} instances, orders, counts of rounds and checks beside S1 and S8 hold."
        if others
        else ""
    )
    return (
        f"{verdicts[HOLDS]} checks hold, {found.count(FAILED)} FAILED, {verdicts[UNDECIDED]} undecided, "
        f"{verdicts[NOT_APPLICABLE]:,} do not apply; {seconds:.0f} s.{more}"
    )


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m theory.verify_rates")


if __name__ == "__main__":
    script()
