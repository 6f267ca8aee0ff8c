"""``python -m theory.baselines``: Local SGD and FedAvg as it is run beside their rivals, on the same axes.

Each method runs at the best step of a stated grid. First: the rounds that each takes to an accuracy, and
what it has sent and computed by then, beside the rounds that a theorem promises. Then: where each ends at
equal communication and at equal computation.
Exit status: 0 when something was compared, 2 on bad input, 3 when no method came to the accuracy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from theory.problems.margin import MarginProblem
from theory.simulation.arguments import MOST_SEEDS
from theory.support import command as cli
from theory.support import numbers
from theory.support.errors import UserError
from theory.support.files import check_outputs, write_json
from theory.support.progress import Progress
from theory.support.provenance import provenance
from theory.verification import options
from theory.verification.baselines.compare import BaselineRow, baseline_rows
from theory.verification.baselines.rounds_to import (
    FIXED_OUTER_STEPS,
    RoundsToEps,
    rounds_to_eps,
)
from theory.verification.baselines.schedules import PROX_STRENGTHS, STEP_FACTORS
from theory.verification.baselines.tables import READING, baseline_table, rounds_table

app = cli.make_app()
LEVELS: tuple[options.Heterogeneity, ...] = ("iid", "sorted")


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        problems: one for each level of heterogeneity.
        rounds: heterogeneity -> a row a method.
        budgets: a row a method and budget, with a value for each heterogeneity.
    """

    problems: list[MarginProblem]
    rounds: dict[str, list[RoundsToEps]]
    budgets: list[BaselineRow]


@app.command()
def main(
    context: typer.Context,
    problem: options.ProblemName = options.FEW_SAMPLES,
    heterogeneity: options.Levels = None,
    local_steps: Annotated[int, typer.Option("--local-steps", "-K", help="K.")] = 5,
    rounds: Annotated[
        int, typer.Option("--rounds", "-R", help="R of Local SGD, for the equal budgets.")
    ] = 60,
    eps: Annotated[float, typer.Option("--eps", help="Accuracy of f.")] = 1e-6,
    most: Annotated[
        int | None,
        typer.Option(help="Rounds after which eps counts as not reached; 4096, quick: 512."),
    ] = None,
    nodes: options.Nodes = None,
    dimension: options.Dimension = None,
    seeds: Annotated[int | None, typer.Option(help="Sample paths; 16, quick: 4.")] = None,
    seed: options.Seed = 0,
    data: options.Data = None,
    loss: options.Loss = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer paths, steps and rounds.")] = False,
    version: cli.Version = False,
) -> int:
    """Compare FedAvg with mini-batch SGD, GD, accelerated GD, one-shot averaging, FedProx, SCAFFOLD."""
    local_steps = numbers.whole("K (local steps)", local_steps, 1)
    rounds = numbers.whole("rounds", rounds, 1)
    eps = numbers.real("eps", eps, above=0)
    most = numbers.whole("most", (512 if quick else 4096) if most is None else most, 1)
    numbers.whole("K R (all iterations)", local_steps * max(rounds, most), 1, 10**7)
    paths = numbers.whole("seeds", (4 if quick else 16) if seeds is None else seeds, 2, MOST_SEEDS)
    check_outputs({"--json": json}, {} if data is None else {f"--data {data}": Path(data)})
    options.refuse_unused(context, problem, data)
    asked = options.ProblemOptions(problem, nodes, dimension, seed, data, loss)
    chosen = options.levels(heterogeneity, LEVELS)
    problems = [asked.make(level) for level in (chosen[:1] if data is not None else chosen)]
    for made in problems:
        if made.solution is None or made.rank == 0:
            raise UserError(f"{made.name} has no minimiser, allowed: problems that have one")
    factors = STEP_FACTORS[1:] if quick else STEP_FACTORS
    drawn = options.path_seeds(seed, paths)
    found = compare(problems, local_steps, rounds, eps, most, drawn, factors)
    console = cli.console()
    for made in problems:
        rows = found.rounds[made.heterogeneity]
        console.print(rounds_table(rows, eps, f"{made.name}, {made.heterogeneity}"))
        console.print()
    console.print(baseline_table(found.budgets))
    console.print()
    for line in READING:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if json is not None:
        settings = {
            "local_steps": local_steps,
            "rounds": rounds,
            "eps": eps,
            "most": most,
            "seeds": paths,
            "step_factors": list(factors),
            "prox_strengths": list(PROX_STRENGTHS),
            "fixed_outer_steps": list(FIXED_OUTER_STEPS),
            "problem_options": asdict(asked),
        }
        write_json(json, {**provenance(), **settings, **as_json(found)})
    reached = any(row.rounds == row.rounds for rows in found.rounds.values() for row in rows)
    return cli.DONE if reached else cli.UNDECIDED


def compare(
    problems: list[MarginProblem],
    local_steps: int,
    rounds: int,
    eps: float,
    most: int,
    seeds: list[int],
    factors: tuple[float, ...],
) -> Comparison:
    """Both comparisons; progress on standard error."""
    by_level: dict[str, list[RoundsToEps]] = {}
    with Progress("comparing") as progress:
        for done, made in enumerate(problems):
            progress.update(done, len(problems) + 1)
            by_level[made.heterogeneity] = rounds_to_eps(
                made,
                eps,
                local_steps=local_steps,
                most=most,
                seeds=seeds,
                step_factors=factors,
            )
        progress.update(len(problems), len(problems) + 1)
        budgets = baseline_rows(
            problems, local_steps=local_steps, rounds=rounds, seeds=seeds, step_factors=factors
        )
    return Comparison(problems, by_level, budgets)


def as_json(found: Comparison) -> dict[str, Any]:
    """The constants of each problem and all rows."""
    return {
        "problems": [
            {
                "name": p.name,
                "heterogeneity": p.heterogeneity,
                "n_nodes": p.n_nodes,
                "n_samples": p.n_samples,
                "dimension": p.dimension,
                "smoothness": p.smoothness,
                "global_smoothness": p.global_smoothness,
                "similarity": p.similarity,
                "global_growth": p.global_growth,
                "initial_distance": p.initial_distance,
            }
            for p in found.problems
        ],
        "rounds_to_eps": {
            level: [asdict(row) for row in rows] for level, rows in found.rounds.items()
        },
        "equal_budgets": [asdict(row) for row in found.budgets],
    }


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m theory.baselines")


if __name__ == "__main__":
    script()
