"""``python -m theory.verify_rates``: which rates of Local SGD hold, how tight, at what cost in rounds.

Exit status: 0 when nothing FAILED, 1 when something did, 2 on bad input.
"""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from theory.problems.generators import HETEROGENEITIES
from theory.simulation.compiled_engines import ENGINES
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import write_json, write_text
from theory.support.provenance import provenance
from theory.theorems import THEOREMS
from theory.verification import tables
from theory.verification.baselines import BaselineRow, baseline_rows
from theory.verification.check import FAILED, HOLDS, NOT_APPLICABLE, Check
from theory.verification.orders import (
    Communication,
    SlopeFit,
    communication,
    instance_slopes,
    power_law_order,
    power_law_slope,
    typical_communication,
)
from theory.verification.sweep import LEVELS, PROBLEMS, Sweep, Tightness, run_sweep, tightness_table
from theory.verification.violations import VIOLATIONS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass
class Verification:
    """Everything that one call found."""

    sweep: Sweep
    checks: list[Check]
    tightness: list[Tightness] = field(default_factory=list)
    slopes: list[SlopeFit] = field(default_factory=list)
    communication: list[Communication] = field(default_factory=list)
    baselines: list[BaselineRow] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many verdicts are FAILED."""
        verdicts = [c.verdict for c in self.checks] + [t.verdict for t in self.tightness]
        verdicts += [s.verdict for s in self.slopes] + [c.fit.verdict for c in self.communication]
        return verdicts.count(FAILED)


def verify_everything(
    sweep: Sweep, *, workers: int = 1, quick: bool = False, report: Any = None
) -> Verification:
    """The sweep, then instances, orders and communication; only the sweep under a violation.

    Args:
        sweep: what to check.
        workers: joblib workers for the sweep.
        quick: smaller families.
        report: called with (cells done, cells).

    Raises:
        UserError: an option outside its range.
    """
    found = Verification(sweep, run_sweep(sweep, workers=workers, report=report))
    if sweep.violation is not None:
        return found
    largest = 2_000 if quick else 10_000
    found.tightness = tightness_table(rounds=largest)
    found.slopes = instance_slopes(largest, points=7 if quick else 13)
    found.slopes.append(power_law_order(100, 2.0))
    found.communication = communication(rounds=200 if quick else 1000)
    if not quick:
        found.slopes.append(power_law_order(60, 3.0))
        found.slopes += [power_law_slope(decay) for decay in (0.5, 1.0, 2.0)]
        found.communication += [typical_communication(level) for level in LEVELS]
        found.baselines = baseline_rows(LEVELS)
    return found


def _as_json(found: Verification) -> dict[str, Any]:
    return {
        **provenance(),
        "data_name": "synthetic problems, seeds in sweep",
        "failed": found.failed,
        "sweep": asdict(found.sweep),
        "checks": [asdict(c) for c in found.checks],
        "tightness": [asdict(t) for t in found.tightness],
        "slopes": [{**asdict(s), "verdict": s.verdict} for s in found.slopes],
        "communication": [{**asdict(c), "verdict": c.fit.verdict} for c in found.communication],
        "baselines": [asdict(b) for b in found.baselines],
    }


def _as_csv(checks: list[Check]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Check)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(c) for c in checks)
    return text.getvalue()


def _print(console: Console, found: Verification, seconds: float) -> None:
    console.print(tables.check_table(found.checks))
    if any(c.verdict == NOT_APPLICABLE for c in found.checks):
        console.print(tables.not_applicable_table(found.checks))
    if found.tightness:
        console.print(tables.tightness_table(found.tightness))
        console.print(tables.slope_table(found.slopes))
        console.print(tables.communication_table(found.communication))
    if found.baselines:
        console.print(tables.baseline_table(found.baselines))
    console.print(tables.summary_table(found.checks, found.tightness, found.communication))
    verdicts = Counter(c.verdict for c in found.checks)
    style = "bold red" if found.failed else "bold green"
    console.print(
        f"{verdicts[HOLDS]} checks hold, {verdicts[NOT_APPLICABLE]} do not apply, "
        f"{found.failed} FAILED (instances, orders and communication included), in {seconds:.0f} s.",
        style=style,
    )


@app.command()
def main(
    theorem: Annotated[list[str], typer.Option(help="T1 ... T6; repeatable.")] = [  # noqa: B006
        t.name for t in THEOREMS
    ],
    problem: Annotated[
        list[str], typer.Option(help=f"Of {', '.join(PROBLEMS)}; repeatable.")
    ] = list(PROBLEMS),  # noqa: B006
    heterogeneity: Annotated[
        list[str], typer.Option(help=f"Of {', '.join(HETEROGENEITIES)}; repeatable.")
    ] = list(LEVELS),  # noqa: B006
    local_steps: Annotated[
        list[int], typer.Option("--local-steps", "-K", help="K, local steps a round; repeatable.")
    ] = [1, 5, 20],  # noqa: B006
    rounds: Annotated[int, typer.Option("--rounds", "-R", help="R; T = K R.")] = 200,
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="n.")] = 5,
    dimension: Annotated[
        int | None,
        typer.Option("--dimension", "-d", help="d; default: 256, or 16 n if that is more."),
    ] = None,
    step_size: Annotated[
        float | None,
        typer.Option(help="eta as a multiple of 1/L; default: each theorem's own admissible step."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Sample paths, where no exact value exists.")] = 32,
    problem_seed: Annotated[int, typer.Option(help="Seed of the generated problems.")] = 0,
    engine: Annotated[str, typer.Option(help=f"auto, exact, {', '.join(ENGINES)}.")] = "auto",
    workers: Annotated[int, typer.Option(help="joblib workers; -1 for all cores.")] = 1,
    data: Annotated[
        list[str], typer.Option(help="A .npz or .csv with your own nodes; repeatable.")
    ] = [],  # noqa: B006
    loss: Annotated[str, typer.Option(help="For --data: squared, logistic, sigmoid.")] = "squared",
    json: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the checks as CSV.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller runs, under 20 s.")] = False,
    violation: Annotated[
        str | None,
        typer.Option("--break", help=f"Violate a hypothesis on purpose: {', '.join(VIOLATIONS)}."),
    ] = None,
) -> None:
    """Check the rates of Local SGD under interpolation against closed-form constants.

    With --data alone, only your problem is checked.
    """
    only_data = bool(data) and tuple(problem) == PROBLEMS
    sweep = Sweep(
        theorems=tuple(theorem),
        problems=() if only_data else tuple(problem),
        heterogeneity=tuple(heterogeneity),  # type: ignore[arg-type]
        local_steps=tuple(local_steps),
        rounds=min(rounds, 50) if quick else rounds,
        n_nodes=nodes,
        dimension=max(256, 16 * nodes) if dimension is None else dimension,
        step_factor=step_size,
        seeds=min(seeds, 12) if quick else seeds,
        engine=engine,
        data=tuple(data),
        loss=loss,
        violation=violation,
        problem_seed=problem_seed,
    )
    sweep.check()
    if engine not in ("auto", "exact", *ENGINES):
        raise UserError(f"engine is {engine!r}, allowed: auto, exact, {', '.join(ENGINES)}")
    if workers == 0 or workers < -1:
        raise UserError(f"workers is {workers}, allowed: at least 1, or -1 for all cores")
    console = cli.console()
    began = time.perf_counter()
    with Progress(
        TextColumn("checking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("cells", total=None)
        found = verify_everything(
            sweep,
            workers=workers,
            quick=quick,
            report=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _print(console, found, time.perf_counter() - began)
    if json is not None:
        write_json(json, _as_json(found))
    if csv_file is not None:
        write_text(csv_file, _as_csv(found.checks))
    if found.failed:
        raise typer.Exit(1)


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m theory.verify_rates")


if __name__ == "__main__":
    script()
