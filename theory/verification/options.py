"""Options that say which problem a command is about, and the problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from theory.problems import generators
from theory.problems.files import load_problem
from theory.problems.generators import HETEROGENEITIES, Heterogeneity
from theory.problems.margin import MarginProblem
from theory.support import command, numbers
from theory.support.errors import UserError
from theory.verification.sweep import INSTANCES, PROBLEMS, Sweep, make_problem

#: Least squares with few samples a node and many directions: the nodes' reports are far from one another.
FEW_SAMPLES = "few-samples"
NAMES = (FEW_SAMPLES, *PROBLEMS)

DATA_HELP = (
    "A file with your own nodes. npz: arrays A0 (m, d), b0 (m,), A1, b1, ... or A, b, "
    "node. csv: columns node, target; the rest are features."
)
LOSS_HELP = "For --data: squared (default), logistic, sigmoid."
ProblemName = Annotated[str, typer.Option("--problem", help=f"One of {', '.join(NAMES)}.")]
Levels = Annotated[
    list[str] | None,
    typer.Option("--heterogeneity", help=f"Of {', '.join(HETEROGENEITIES)}; a,b or repeated."),
]
Nodes = Annotated[
    int | None, typer.Option("--nodes", "-n", help="n; default: 8 for few-samples, else 5.")
]
Dimension = Annotated[
    int | None,
    typer.Option("--dimension", "-d", help="d; default: 100 for few-samples, else 256 or 16 n."),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of the generated problem and of the paths.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help=DATA_HELP + " In place of a generated problem."),
]
Loss = Annotated[
    str | None,
    typer.Option("--loss", help=LOSS_HELP),
]


@dataclass(frozen=True)
class ProblemOptions:
    """What was typed; fields as the options."""

    problem: str = FEW_SAMPLES
    nodes: int | None = None
    dimension: int | None = None
    seed: int = 0
    data: str | None = None
    loss: str | None = None

    def make(self, heterogeneity: Heterogeneity) -> MarginProblem:
        """The problem.

        Args:
            heterogeneity: of a generated one; instances and files have their own.

        Raises:
            UserError: an option outside its range, a loss without data, or data that can't be read.
        """
        numbers.seed("seed", self.seed)
        if self.data is not None:
            return load_problem(self.data, self.loss or "squared")
        if self.loss is not None:
            raise UserError(f"--loss is {self.loss}, allowed with --data only")
        numbers.choice("problem", self.problem, NAMES)
        if self.problem == FEW_SAMPLES:
            return generators.least_squares(
                n_nodes=8 if self.nodes is None else self.nodes,
                samples_per_node=6,
                dimension=100 if self.dimension is None else self.dimension,
                heterogeneity=heterogeneity,
                seed=self.seed,
            )
        nodes = Sweep.n_nodes if self.nodes is None else self.nodes
        sweep = Sweep(
            n_nodes=nodes,
            dimension=max(Sweep.dimension, 16 * nodes)
            if self.dimension is None
            else self.dimension,
            problem_seed=self.seed,
        )
        sweep.check()
        return make_problem(sweep, self.problem, heterogeneity)


def refuse_unused(context: typer.Context, problem: str, data: str | None) -> None:
    """Refuse options about generated problems beside one's own data or an instance.

    Raises:
        UserError: names the first of them that was typed.
    """
    generated = {"nodes", "dimension", "heterogeneity"}
    if data is not None:
        command.refuse_unused(context, "--data", unused={*generated, "problem"})
    elif problem in INSTANCES:
        command.refuse_unused(context, f"--problem {problem}", unused=generated)


def path_seeds(seed: int, count: int) -> list[int]:
    """Seeds of ``count`` sample paths: the one typed and those after it."""
    return [(seed + i) % 2**64 for i in range(count)]


def levels(typed: list[str] | None, default: tuple[Heterogeneity, ...]) -> list[Heterogeneity]:
    """The heterogeneities typed, or the default ones; raises UserError for another word."""
    if typed is None:
        return list(default)
    return numbers.words("heterogeneity", typed, HETEROGENEITIES)  # type: ignore[return-value]
