"""``python -m theory.advise --data mine.npz``: how to run FedAvg on these nodes, and what theory says of it.

Exit status: 0 with an advice, 2 on bad input, 3 where there is none to be had.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from theory.advise.advice import Advice, advise
from theory.advise.text import (
    bend_at,
    constants,
    recommendation,
    rounds_table,
    rounds_title,
    spread_line,
)
from theory.problems.margin import MarginProblem
from theory.simulation.arguments import MOST_SEEDS
from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_outputs, write_json
from theory.support.progress import Progress
from theory.support.provenance import provenance
from theory.verification import options
from theory.verification.report import digest
from theory.verification.sweep import GRADIENTS
from theory.verification.tables import WIDTH

app = cli.make_app()
#: f(x_0) over the accuracy that is asked for where nobody says.
SHARE = 1000.0
#: A run of more would take hours.
MOST_ITERATIONS = 1_000_000


@app.command()
def main(
    context: typer.Context,
    problem: options.ProblemName = "least-squares",
    heterogeneity: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(options.HETEROGENEITIES)}."),
    ] = "iid",
    local_steps: Annotated[
        list[str] | None,
        typer.Option("--local-steps", "-K", help="K to try; 1,2,5,10,20,50, quick: 1,5,20."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds", "-R", help="Rounds after which eps counts as not reached; 1000, quick: 200."
        ),
    ] = None,
    eps: Annotated[
        float | None, typer.Option("--eps", help="Accuracy of f; default: f(x_0)/1000.")
    ] = None,
    cost: Annotated[
        float,
        typer.Option("--communication-cost", help="Of a communication, in local steps."),
    ] = 100.0,
    nodes: options.Nodes = None,
    dimension: options.Dimension = None,
    gradient: Annotated[str, typer.Option(help="stochastic (one sample a step) or full.")] = (
        "stochastic"
    ),
    seeds: Annotated[int | None, typer.Option(help="Sample paths; 8, quick: 4.")] = None,
    seed: options.Seed = 0,
    data: options.Data = None,
    loss: options.Loss = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw it, as a PNG.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer K, rounds and paths.")] = False,
    version: cli.Version = False,
) -> int:
    """Constants of your nodes, where local steps begin to pay, and a setting for FedAvg."""
    options.refuse_unused(context, problem, data)
    numbers.choice("heterogeneity", heterogeneity, options.HETEROGENEITIES)
    numbers.choice("gradient", gradient, GRADIENTS)
    cost = numbers.real("communication cost", cost, least=0)
    most = numbers.whole("rounds", (200 if quick else 1000) if rounds is None else rounds, 1)
    paths = numbers.whole("seeds", (4 if quick else 8) if seeds is None else seeds, 1, MOST_SEEDS)
    typed = ["1,5,20" if quick else "1,2,5,10,20,50"] if local_steps is None else local_steps
    ks = sorted(numbers.whole_numbers("K (local steps)", typed, 1))
    numbers.whole("K R (all iterations)", ks[-1] * most, 1, MOST_ITERATIONS)
    inputs = {} if data is None else {f"--data {data}": Path(data)}
    check_outputs({"--json": json, "--figure": figure}, inputs)
    made = options.ProblemOptions(problem, nodes, dimension, seed, data, loss).make(
        heterogeneity  # type: ignore[arg-type]
    )
    accuracy = _accuracy(made, eps)
    console = cli.console()
    _say(console, digest(made))
    _say(console, constants(made))
    if made.solution is None and made.least_loss > 0:
        _say(console, "No advice: there is none without interpolation.")
        if json is not None:
            write_json(json, {**provenance(), **as_json(made, None)})
        return cli.UNDECIDED
    with Progress("trying") as progress:
        found = advise(
            made,
            accuracy,
            local_steps=ks,
            most=most,
            cost=cost,
            seeds=options.path_seeds(seed, paths),
            gradient=gradient,
            report=progress.update,
        )
    _say(console, spread_line(found))
    console.print()
    _say(console, rounds_title(found))
    console.print(rounds_table(found))
    console.print()
    for line in recommendation(made, found):
        _say(console, line)
    if json is not None:
        write_json(json, {**provenance(), **as_json(made, found)})
    if figure is not None:
        # Drawing takes a second to import.
        from theory.advise.picture import draw

        draw(made, found, figure)
        _say(console, f"written: {figure}")
    return cli.DONE if found.recommended is not None else cli.UNDECIDED


def _accuracy(problem: MarginProblem, eps: float | None) -> float:
    start = float(problem.global_loss(problem.start))
    if not start > 0:
        raise UserError(f"f(x_0) is {start:g}, allowed: above 0; x_0 is a minimiser already")
    if eps is None:
        return start / SHARE
    return numbers.real("eps", eps, above=0, below=start)


def as_json(problem: MarginProblem, found: Advice | None) -> dict[str, Any]:
    """The problem's constants and everything that was tried; a constant not known is null."""

    def known(name: str, value: float) -> float | None:
        return None if name in problem.doubts else value

    return {
        "problem": {
            "name": problem.name,
            "heterogeneity": problem.heterogeneity,
            "n_nodes": problem.n_nodes,
            "n_samples": problem.n_samples,
            "dimension": problem.dimension,
            "loss": problem.loss.name,
            "smoothness": problem.smoothness,
            "similarity": known("similarity", problem.similarity),
            "local_growth": known("local_growth", problem.local_growth),
            "global_growth": known("global_growth", problem.global_growth),
            "strong_growth": known("strong_growth", problem.strong_growth),
            "initial_distance": problem.initial_distance,
            "bend": bend_at(problem),
            "doubts": problem.doubts,
        },
        "advice": None if found is None else asdict(found),
    }


def _say(console: Console, text: str) -> None:
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        for piece in textwrap.wrap(line, WIDTH, subsequent_indent=indent):
            console.print(piece, highlight=False, markup=False, soft_wrap=True)


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m theory.advise")


if __name__ == "__main__":
    script()
