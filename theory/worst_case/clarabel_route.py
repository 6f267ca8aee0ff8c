"""CLARABEL on the programs of :mod:`theory.worst_case.constraints`: second route and fallback.

It is given the dual program, minimise limits . y over y >= 0 with sum_k y_k A_k^b - C_b psd and
sum_k y_k scalars_k = goal, which it solves faster than the primal one; X and F are its multipliers.

References:
    P. J. Goulart, Y. Chen, "Clarabel: An interior-point solver for conic programs with quadratic
    objectives" (arXiv 2405.12762).
"""

from __future__ import annotations

import importlib.util
import math
import time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from theory.support.errors import UserError
from theory.worst_case.constraints import (
    Array,
    Constraints,
    Solution,
    SolverError,
    TimeLimitError,
)

_Index = tuple[NDArray[np.int64], NDArray[np.int64]]


def available() -> bool:
    """Whether CLARABEL is installed."""
    return importlib.util.find_spec("clarabel") is not None


def maximise(
    constraints: Constraints,
    objective_scalars: Array,
    objective_blocks: list[Array],
    tolerance: float = 1e-9,
    acceptable: float = 1e-7,
    max_iterations: int = 200,
    deadline: float = math.inf,
) -> Solution:
    """As :func:`theory.worst_case.sdp.maximise`, by CLARABEL.

    Args:
        constraints, objective_scalars, objective_blocks: the program.
        tolerance: duality gap and infeasibility aimed at.
        acceptable: what is still returned where progress stops earlier.
        max_iterations: more than this is not converged.
        deadline: value of ``time.perf_counter()`` at which to stop.

    Returns:
        The optimal pair.

    Raises:
        UserError: CLARABEL is not installed.
        SolverError: not converged.
        TimeLimitError: the deadline passed.
    """
    if not available():
        raise UserError("CLARABEL is not installed: pip install '.[pep]'")
    import clarabel

    count, scalars = constraints.scalars.shape
    triangles = [_triangle(size) for size in constraints.dimensions]
    matrices = [
        _half_vectors(p, q, r, index)
        for (p, q, r), index in zip(constraints.rows, triangles, strict=True)
    ]
    blocks = [
        _scaled(block[index], index)
        for block, index in zip(objective_blocks, triangles, strict=True)
    ]
    rows = [
        sparse.csc_matrix(constraints.scalars.T),
        -sparse.identity(count, format="csc"),
        *(sparse.csc_matrix(-matrix.T) for matrix in matrices),
    ]
    right = np.concatenate([objective_scalars, np.zeros(count), *(-block for block in blocks)])
    cones = [
        clarabel.ZeroConeT(scalars),
        clarabel.NonnegativeConeT(count),
        *(clarabel.PSDTriangleConeT(size) for size in constraints.dimensions),
    ]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.max_iter = max_iterations
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    # The matrices are dense: there is nothing to decompose or to remove.
    settings.presolve_enable = settings.chordal_decomposition_enable = False
    if deadline < math.inf:
        settings.time_limit = max(1e-3, deadline - time.perf_counter())
    found = clarabel.DefaultSolver(
        sparse.csc_matrix((count, count)),
        constraints.limits,
        sparse.vstack(rows, format="csc"),
        right,
        cones,
        settings,
    ).solve()
    status = str(found.status)
    if status == "MaxTime":
        raise TimeLimitError("the time limit passed")
    infeasibility = max(float(found.r_prim), float(found.r_dual))
    gap = abs(float(found.obj_val) - float(found.obj_val_dual))
    if status != "Solved" and not max(infeasibility, gap) < acceptable:
        raise SolverError(f"CLARABEL: {status}; gap {gap:.1e}, infeasibility {infeasibility:.1e}")
    dual = np.array(found.z)
    grams, offset = [], scalars + count
    for size, index in zip(constraints.dimensions, triangles, strict=True):
        grams.append(_matrix(dual[offset : offset + len(index[0])], index, size))
        offset += len(index[0])
    return Solution(
        primal=float(found.obj_val_dual),
        dual=float(found.obj_val),
        blocks=grams,
        scalars=-dual[:scalars],
        multipliers=np.array(found.x),
        infeasibility=infeasibility,
        iterations=int(found.iterations),
    )


def _triangle(size: int) -> _Index:
    """Rows and columns of the upper triangle in CLARABEL's order, column by column."""
    columns, rows = np.tril_indices(size)
    return rows, columns


def _scaled(entries: Array, index: _Index) -> Array:
    """Entries of the triangle such that inner products of matrices are those of vectors."""
    scaled: Array = entries * np.where(index[0] == index[1], 1.0, math.sqrt(2))
    return scaled


def _half_vectors(p: Array, q: Array, r: Array, index: _Index) -> Array:
    """(p q' + q p')/2 + r r'/2 for each row, as scaled triangles, (m, d(d+1)/2)."""
    i, j = index
    return _scaled(0.5 * (p[:, i] * q[:, j] + p[:, j] * q[:, i] + r[:, i] * r[:, j]), index)


def _matrix(entries: Array, index: _Index, size: int) -> Array:
    matrix = np.zeros((size, size))
    matrix[index] = entries / np.where(index[0] == index[1], 1.0, math.sqrt(2))
    matrix[index[1], index[0]] = matrix[index]
    return matrix
