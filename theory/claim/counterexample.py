"""A counterexample as something to keep: arrays in an .npz, Python lines that rebuild it, a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.claim.search import Refutation
from theory.problems.explicit import ExplicitProblem
from theory.problems.losses import LOSSES, SQUARED
from theory.problems.margin import MarginProblem
from theory.problems.protocols import Problem
from theory.support.files import write_atomically
from theory.worst_case.extremal import ExtremalProblem

Array = NDArray[np.float64]
#: Up to this many numbers are written into the Python lines; more are read from the .npz.
WRITTEN_OUT = 40


def arrays(problem: Problem | ExtremalProblem) -> dict[str, Array]:
    """What defines the problem: A0, b0, A1, b1, ... and start, as ``load_problem`` reads it."""
    if isinstance(problem, MarginProblem):
        found: dict[str, Array] = {}
        for i in range(problem.n_nodes):
            rows = problem.node_slice(i)
            found[f"A{i}"], found[f"b{i}"] = problem.features[rows], problem.targets[rows]
        return found | {"start": problem.start}
    if isinstance(problem, ExtremalProblem):
        function = problem.function
        return {
            "corners": function.corners,
            "heights": function.heights,
            "vertices": problem.vertices,
            "shared": np.array(problem.shared),
            "start": problem.start,
        }
    return {"start": np.asarray(problem.start)}


def save(problem: Problem | ExtremalProblem, path: Path) -> None:
    """Write :func:`arrays` as .npz; raises `UserError` when it can't be written."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays(problem))
    write_atomically(path, buffer.getvalue())


def python_lines(found: Refutation, path: Path) -> str:
    """Lines that rebuild the problem and repeat the measurement."""
    problem, cell = found.problem, found.cell
    head = ["import numpy as np", "from theory import run_local_sgd"]
    if isinstance(problem, MarginProblem):
        body = _margin_lines(problem, path)
    elif isinstance(problem, ExtremalProblem):
        body = [
            "from theory.worst_case.extremal import ExtremalProblem, SmoothConvexInterpolant",
            f"data = np.load({str(path)!r})",
            'function = SmoothConvexInterpolant(data["corners"], data["heights"])',
            'problem = ExtremalProblem(function, int(data["shared"]), data["vertices"], data["start"],',
            '                          np.zeros(len(data["start"])))',
        ]
    else:
        name = problem.name if isinstance(problem, ExplicitProblem) else type(problem).__name__
        body = [f"# {found.source}: see theory.theorems for the maker of {name}"]
    kind = "stochastic" if "seeds" in found.measured.how else "full"
    step = (
        f"{found.step_size!r}" if cell.number is None else f"{cell.number!r} / problem.smoothness"
    )
    run = [
        f"run = run_local_sgd(problem, step_size={step},"
        f" local_steps={cell.local_steps}, rounds={cell.rounds}, gradient={kind!r})",
    ]
    return "\n".join([*head, *body, *run])


def _margin_lines(problem: MarginProblem, path: Path) -> list[str]:
    lines = ["from theory import MarginProblem"]
    n = problem.n_nodes
    if problem.features.size + problem.start.size <= WRITTEN_OUT:
        parts = arrays(problem)
        nodes = ", ".join(f"np.array({parts[f'A{i}'].tolist()!r})" for i in range(n))
        targets = ", ".join(f"np.array({parts[f'b{i}'].tolist()!r})" for i in range(n))
        start = f"np.array({problem.start.tolist()!r})"
    else:
        lines.append(f"data = np.load({str(path)!r})")
        nodes = f"*(data[f'A{{i}}'] for i in range({n}))"
        targets = f"*(data[f'b{{i}}'] for i in range({n}))"
        start = 'data["start"]'
    loss = ""
    name = problem.loss.name
    if problem.loss in LOSSES[1:]:
        lines.append("from theory.problems.losses import LOSSES")
        loss = f", {{loss.name: loss for loss in LOSSES}}[{name!r}]"
    elif problem.loss is not SQUARED:
        lines.append("from theory.claim.adversary import LOSSES, library_loss")
        loss = f", library_loss(LOSSES[{name!r}])"
    return [*lines, f"problem = MarginProblem([{nodes}], [{targets}]{loss}, start={start})"]


def constants(problem: Problem | ExtremalProblem) -> dict[str, float]:
    """The constants that the problem knows, by the theory's symbols."""
    names = {
        "n": "n_nodes",
        "L": "smoothness",
        "D": "initial_distance",
        "c": "similarity",
        "mu": "local_growth",
        "rho": "strong_growth",
    }
    found: dict[str, Any] = {symbol: getattr(problem, name, None) for symbol, name in names.items()}
    if found["D"] is None and problem.solution is not None:
        found["D"] = float(((problem.start - problem.solution) ** 2).sum())
    return {symbol: float(value) for symbol, value in found.items() if value is not None}
