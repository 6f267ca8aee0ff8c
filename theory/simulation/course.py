"""What all compiled kernels share: the schedule, the columns that they fill, and short loops.

Hot loops index whole arrays and take no slices of them: a slice of an array that threads share updates
one reference count from all of them, which costs more than a step in a hundred dimensions.

Names of arguments in :mod:`theory.simulation.model_kernels` and :mod:`theory.simulation.margin_kernels`:

* ``data``: the problem; ``course``: :class:`Course`, the same for all runs;
* ``eta``, ``phi``: of the run;
* ``idx``: sample numbers, (seeds, n, steps, batch), batch 0 for full gradients, from iteration ``first``
  on; ``q``: the run's seed, an index into it; ``done``: iterations of it already used;
* ``who``: participants, (seeds, rounds, m), from the round of ``first`` on, ``r`` an index into it; with
  no rounds at all every node takes part;
* ``slot``: a participant's place among the m, ``i`` its node, ``share`` the slots' weights, (m,);
* ``sums``: columns LOCAL to BATCH below; ``record``: rows of a round's P, Q, S, beta, ||xbar_r - x*||^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from theory.simulation.compilation import FAST, compiled
from theory.simulation.outer_steps import outer_step

# Columns of the running sums: over t of (1/n) sum_i f_i(x_i^t); over rounds of f(xbar_r); over t of
# f(xbar^t); over rounds of ||grad f(xbar_r)||^2; over t of the mean loss of the batches used at t.
LOCAL, SYNC, GLOBAL, GRADIENT, BATCH = 0, 1, 2, 3, 4
COLUMNS = 5
# Columns of a round's record.
MEAN_SQUARE, SQUARE_MEAN, LOSS, OUTER_STEP, DISTANCE = 0, 1, 2, 3, 4


class Course(NamedTuple):
    """The schedule: K, K_i, the nodes' weights, the outer step, and what is recorded."""

    local_steps: int
    node_steps: np.ndarray
    weights: np.ndarray
    rule: int
    number: float
    averaging: bool
    reports: bool
    track: np.ndarray


@compiled(fastmath=FAST)
def dot(a, b):
    """<a, b>."""
    total = 0.0
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@compiled(fastmath=FAST)
def add_row(out, scale, rows, j):
    """out += scale * rows[j]."""
    for k in range(out.size):
        out[k] += scale * rows[j, k]


@compiled()
def shares(course, who, q, r, share):
    """The participants' weights in their mean, into ``share``."""
    m = share.size
    total = 0.0
    for slot in range(m):
        share[slot] = course.weights[who[q, r, slot] if who.shape[1] else slot]
        total += share[slot]
    for slot in range(m):
        share[slot] /= total


@compiled(fastmath=FAST)
def server_step(course, eta, phi, mean_square, square_mean, loss, record, row):
    """beta of a round from its P, Q and S, which are recorded with it where rows are asked for."""
    beta = outer_step(course.rule, course.number, mean_square, square_mean, loss, eta, phi)
    if record.shape[0]:
        record[row, MEAN_SQUARE] = mean_square
        record[row, SQUARE_MEAN] = square_mean
        record[row, LOSS] = loss
        record[row, OUTER_STEP] = beta
    return beta
