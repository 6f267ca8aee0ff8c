"""The least time that an engine's own arithmetic takes on this machine, every part of it measured.

Until version 0.2 the floor was bandwidth alone, and the margin engine reached a third of it. It forgot
three things, none of which moves many bytes:

* a local step in margin space is a handful of flops in a chain: a sample is drawn, its margin read and
  moved by the products with the round's earlier samples, and only then is the step known. Its cost is
  latency and instructions;
* the draws themselves, a Philox stream a node and seed, on one thread;
* at large d the two passes over the features that lead into margin space (x_0's margins) and out of it
  (the last model).

Each is measured by a bare loop that does nothing else. The parts follow one another in the engine, so
their sum is the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numba import njit, prange
from theory_methods import STEP, Size, draws_of

# Rows of the Gram matrix that one pass over a run's margins adds.
ROWS = 8

# Bytes, well inside every first-level cache. Over fewer, the triad measures how its own loop starts.
LEAST_WORKING_SET = 12e3

# Tries of the triad, each on memory of its own.
ALLOCATIONS = 5


def floor_parts(method: str, size: Size) -> dict[str, float]:
    """Seconds of each part for the method's arithmetic; none for methods that are not ours.

    In R^d a step reads the model, its sample and the next and writes the model (32 d bytes) with 4 d
    flops. In margin space a round adds one Gram row for each of the samples that its n K draws touch (10
    N bytes and 2 N flops, in passes of eight rows). Bytes or flops, whichever takes longer.
    """
    runs, total = size.seeds, size.n_nodes * size.samples
    if method == "numba":
        steps = runs * size.n_nodes * size.iterations
        moved, done = 32.0 * size.dimension * steps, 4.0 * size.dimension * steps
        # As if model and sample were always in the cache that holds the two: no run can be faster.
        walk = max(moved / bandwidth(8.0 * size.dimension * 2), done / peak_flops())
        return {"steps": walk, "draws": draw_seconds(size)}
    if method == "margin":
        rounds = runs * size.iterations / size.local_steps
        # Draws with replacement: a node touches m (1 - (1 - 1/m)^K) samples a round.
        seen = size.n_nodes * size.samples * (1 - (1 - 1 / size.samples) ** size.local_steps)
        moved, done = rounds * seen * total * (8.0 + 16.0 / ROWS), rounds * seen * total * 2.0
        return {
            "rounds": max(moved / bandwidth(8.0 * total**2), done / peak_flops()),
            "steps": step_seconds(size),
            "draws": draw_seconds(size),
            "features": 2 * 8.0 * total * size.dimension / bandwidth(8.0 * total * size.dimension),
        }
    return {}


@njit(parallel=True, fastmath=True)
def _triads(a, b, c, repeats):  # type: ignore[no-untyped-def]
    for thread in prange(a.shape[0]):
        for _ in range(repeats):
            for k in range(a.shape[1]):
                a[thread, k] = b[thread, k] + 0.5 * c[thread, k]


def bandwidth(working_set: float) -> float:
    """Bytes a second of a triad over all threads, each on a working set of that many bytes (12 kB or more).

    The fastest of some allocations: which pages an array gets decides how well a cache holds it.
    """
    threads = numba.get_num_threads()
    length = int(min(max(working_set, LEAST_WORKING_SET), 1e9) / 24)
    repeats = max(1, int(4e7 / (length * threads)))

    def on_new_pages() -> float:
        a, b, c = np.ones((3, threads, length))
        return _least(lambda: _triads(a, b, c, repeats))

    return 24.0 * length * threads * repeats / min(on_new_pages() for _ in range(ALLOCATIONS))


def peak_flops() -> float:
    """Floating-point operations a second of BLAS matrix products, one for each thread of the engines.

    Side by side, as BLAS itself may be held to one thread where the engines are not.
    """
    threads = numba.get_num_threads()
    a = np.random.default_rng(0).standard_normal((1500, 1500))
    with ThreadPoolExecutor(threads) as pool:
        least = _least(lambda: list(pool.map(lambda _: a @ a, range(threads))))
    return 2.0 * 1500**3 * threads / least


@njit(parallel=True, fastmath={"contract", "nsz"})
def _bare_steps(draws, gram, targets, samples, local_steps, margins, changes):  # type: ignore[no-untyped-def]
    for p in prange(draws.shape[0]):
        drawn, scales = np.empty(local_steps, np.uint64), np.empty(local_steps)
        for first in range(0, draws.shape[2], local_steps):
            for i in range(draws.shape[1]):
                for k in range(local_steps):
                    j = np.uint64(i * samples + draws[p, i, first + k])
                    margin = margins[p, j]
                    for s in range(k):
                        margin += scales[s] * gram[j, drawn[s]]
                    scale = -STEP * (margin - targets[j])
                    drawn[k] = j
                    scales[k] = scale
                    changes[p, j] += scale


def step_seconds(size: Size) -> float:
    """All local steps in margin space by a loop that does nothing else, scaled to T iterations."""
    problem, timed = size.problem(), 400 * size.local_steps
    draws = np.ascontiguousarray(draws_of(problem, size, timed))
    margins = np.tile(problem.margins(problem.start), (size.seeds, 1))
    changes, gram = np.zeros_like(margins), np.ascontiguousarray(problem.gram)
    shape = (size.samples, size.local_steps)
    least = _least(lambda: _bare_steps(draws, gram, problem.targets, *shape, margins, changes))
    return least * size.iterations / timed


def draw_seconds(size: Size) -> float:
    """The raw random words of all draws, two draws a word."""
    words = size.iterations // 2

    def all_streams() -> None:
        for key in range(size.seeds * size.n_nodes):
            np.random.Philox(key=key).random_raw(words)

    return _least(all_streams)


def _least(run: Callable[[], object]) -> float:
    """Seconds of the fastest of six runs after one that compiles."""
    run()
    best = np.inf
    for _ in range(6):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return float(best)
