"""What a cell will cost, known before it is solved: seconds for a forecast, memory for a refusal."""

from __future__ import annotations

from theory.support import memory
from theory.worst_case.cells import Cell

#: Seconds of the model that count as if they had been measured, so that few cells can't mislead.
PRIOR_SECONDS = 20.0


def seconds(cell: Cell) -> float:
    """Rough seconds on one idle core: a fit through the standard grid, 2 to 73 points."""
    return 0.02 + 4e-5 * float(cell.points) ** 3


def memory_needed(cell: Cell) -> float:
    """The most bytes that solving needs, if it ends with some 20 conditions a point."""
    n = float(cell.points)
    pairs = min(n * (n + 1), 20 * n + (cell.rounds + 1.0) ** 2)
    factors = 3 * pairs * (2 * n + 1)
    schur = 4 * pairs**2
    return 8 * (factors + schur + pairs * n + 4 * n**2)


def check_memory(cells: list[Cell]) -> None:
    """Refuse what this machine can't hold, before anything is solved.

    Raises:
        UserError: the cell that needs too much, and what lowers it.
    """
    largest = max(cells, key=memory_needed)
    what = f"the worst case of K = {largest.local_steps:,}, R = {largest.rounds:,}"
    memory.require(memory_needed(largest), what, "-K or -R")


def seconds_left(done: float, left: float, elapsed: float) -> float:
    """From work done: the model's seconds of what is left, at the speed measured so far.

    Args:
        done, left: the model's seconds of what was solved and of what was not yet.
        elapsed: seconds that passed.
    """
    return left * (PRIOR_SECONDS + elapsed) / (PRIOR_SECONDS + done)
