"""A counterexample drawn: the nodes' level sets, their paths, the means and x*; measured over claimed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from theory.claim.claim import Claim, measure
from theory.claim.search import Cell, Refutation, claimed_over_class
from theory.problems.protocols import Simulated
from theory.support.files import write_atomically
from theory.worst_case.extremal import ExtremalProblem

Array = NDArray[np.float64]
#: As the K scale of the figures: a dark blue for means, colours by node.
NODES = ("#1b6ca8", "#c8553d", "#588157", "#8d5a97", "#b08900")
#: Nodes drawn; more would hide one another.
MOST_NODES = 5
POINTS = 120


def draw(claim: Claim, found: Refutation, path: Path) -> None:
    """Write the picture as a PNG; raises `UserError` when it can't be written."""
    setting = found.cell.setting(claim, found.problem)
    models, means = trajectories(found.problem, setting.step_size, found.cell)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    _plane(left, found.problem, models, means)
    _against_claim(right, claim, found)
    figure.suptitle(
        f"{claim.name_of_metric} $\\leq$ {claim.text} is false: {found.cell}", fontsize=10
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def trajectories(problem: Simulated, step_size: float, cell: Cell) -> tuple[Array, Array]:
    """Local models (R, K + 1, n, d) under full gradients, and the means (R + 1, d)."""
    common = np.asarray(problem.start, float)
    models, means = [], [common]
    for _ in range(cell.rounds):
        now = np.broadcast_to(common, (problem.n_nodes, len(common)))
        path = [now]
        for _ in range(cell.local_steps):
            now = now - step_size * problem.node_gradients(now)
            path.append(now)
        common = now.mean(axis=0)
        models.append(np.array(path))
        means.append(common)
    return np.array(models), np.array(means)


def principal_plane(points: Array, solution: Array) -> Array:
    """Orthonormal rows (2, d) of the plane through x* in which the points spread most."""
    _, _, directions = np.linalg.svd(points - solution, full_matrices=True)
    plane = directions[:2]
    if len(plane) < 2:
        plane = np.vstack([plane, np.zeros_like(plane)])
    return np.asarray(plane)


def _plane(ax: Axes, problem: Simulated, models: Array, means: Array) -> None:
    solution = np.zeros_like(means[0]) if problem.solution is None else np.asarray(problem.solution)
    everything = np.concatenate([models.reshape(-1, models.shape[-1]), means])
    plane = principal_plane(everything, solution)

    def flat(x: Array) -> Array:
        return np.asarray((x - solution) @ plane.T)

    shown = flat(everything)
    low, high = np.minimum(shown.min(0), 0.0), np.maximum(shown.max(0), 0.0)
    margin = 0.15 * max(float((high - low).max()), 1e-9)
    grid = [np.linspace(a - margin, b + margin, POINTS) for a, b in zip(low, high, strict=True)]
    u, v = np.meshgrid(*grid)
    space = solution + u[..., None] * plane[0] + v[..., None] * plane[1]
    stacked = np.repeat(space.reshape(-1, 1, len(solution)), problem.n_nodes, axis=1)
    losses = np.asarray(problem.node_losses(stacked)).reshape(POINTS, POINTS, problem.n_nodes)
    for node in range(min(problem.n_nodes, MOST_NODES)):
        colour = NODES[node % len(NODES)]
        ax.contour(u, v, losses[..., node], levels=6, colors=colour, linewidths=0.5, alpha=0.5)
        for path in models[:, :, node]:
            ax.plot(*flat(path).T, color=colour, linewidth=1.0, marker=".", markersize=3)
        ax.plot([], [], color=colour, label=f"node {node + 1}")
    ax.plot(*flat(means).T, "o-", color="black", markersize=4, linewidth=0.8, label="means")
    ax.plot(0, 0, "*", color="black", markersize=11, label="x*")
    ax.set(xlabel="first principal direction", ylabel="second")
    if high[0] - low[0] < 20 * (high[1] - low[1]) < 400 * (high[0] - low[0]):
        ax.set_aspect("equal", adjustable="datalim")
    ax.legend(fontsize=7, loc="best", framealpha=0.9)


def _against_claim(ax: Axes, claim: Claim, found: Refutation) -> None:
    """Measured and claimed against the number of rounds, up to twice the refuted one."""
    rounds = np.arange(1, 2 * found.cell.rounds + 2)
    measured, claimed = [], []
    for r in rounds:
        cell = Cell(
            local_steps=found.cell.local_steps, rounds=int(r), step_factor=found.cell.step_factor
        )
        setting = cell.setting(claim, found.problem)
        value = measure(claim, found.problem, setting)
        measured.append(np.nan if value is None else value.value)
        claimed.append(_claimed(claim, found, cell))
    ax.plot(rounds, measured, "o-", color="#1b6ca8", markersize=3, label="measured")
    ax.plot(rounds, claimed, "s--", color="#c8553d", markersize=3, label="claimed")
    ax.axvline(found.cell.rounds, color="0.7", linewidth=0.8)
    ax.set(xlabel="rounds R", ylabel=claim.name_of_metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if np.nanmin([*measured, *claimed]) > 0:
        ax.set_yscale("log")
    ax.legend(fontsize=7)


def _claimed(claim: Claim, found: Refutation, cell: Cell) -> float:
    if isinstance(found.problem, ExtremalProblem):
        return claimed_over_class(claim, cell, 0.0, found.problem.n_nodes)
    return claim.bound(found.problem, cell.setting(claim, found.problem))
