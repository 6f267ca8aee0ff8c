"""What the speed benchmark of the theory compares: our engines, a plain Python loop, and JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.problems.generators import least_squares
from theory.problems.margin import MarginProblem
from theory.simulation.local_sgd import run_local_sgd
from theory.simulation.streams import sample_indices

Runner = Callable[[int], np.ndarray]
STEP = 0.9


@dataclass(frozen=True)
class Size:
    """n nodes, m samples a node, d, K, seeds, T iterations."""

    n_nodes: int = 20
    samples: int = 10
    dimension: int = 200
    local_steps: int = 5
    seeds: int = 8
    iterations: int = 10_000

    def problem(self) -> MarginProblem:
        """Least squares of that size."""
        return least_squares(
            n_nodes=self.n_nodes,
            samples_per_node=self.samples,
            dimension=self.dimension,
            rank=min(self.dimension, self.n_nodes * self.samples),
        )


def engine(problem: MarginProblem, size: Size, name: str) -> Runner:
    """One of ours, through the public function; records nothing but the end."""

    def run(iterations: int) -> np.ndarray:
        return run_local_sgd(
            problem,
            step_size=STEP,
            local_steps=size.local_steps,
            rounds=iterations // size.local_steps,
            seeds=size.seeds,
            engine=name,
            averages=[],
            record=[iterations],
        ).final_model[0]

    return run


def python_loop(problem: MarginProblem, size: Size) -> Runner:
    """What one writes first: a loop over seeds, steps and nodes, NumPy on one node's model."""
    rows = problem.features.reshape(size.n_nodes, size.samples, -1)
    targets = problem.targets.reshape(size.n_nodes, size.samples)

    def run(iterations: int) -> np.ndarray:
        draws = draws_of(problem, size, iterations)
        out = []
        for seed in range(size.seeds):
            mean = problem.start
            for first in range(0, iterations, size.local_steps):
                models = []
                for i in range(size.n_nodes):
                    x = mean.copy()
                    for t in range(first, first + size.local_steps):
                        j = draws[seed, i, t]
                        a = rows[i, j]
                        x -= STEP * (a @ x - targets[i, j]) * a
                    models.append(x)
                mean = np.mean(models, axis=0)
            out.append(mean)
        return np.array(out)

    return run


def jax_scan(problem: MarginProblem, size: Size) -> Runner:
    """JAX: vmap over seeds and nodes, lax.scan over local steps and rounds, jit around it all."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rows = jnp.asarray(problem.features.reshape(size.n_nodes, size.samples, -1))
    targets = jnp.asarray(problem.targets.reshape(size.n_nodes, size.samples))
    start = jnp.asarray(problem.start)

    def step(x: Any, j: Any, node_rows: Any, node_targets: Any) -> Any:
        a = node_rows[j]
        return x - STEP * (a @ x - node_targets[j]) * a

    def node(mean: Any, draws: Any, node_rows: Any, node_targets: Any) -> Any:
        return lax.scan(lambda x, j: (step(x, j, node_rows, node_targets), None), mean, draws)[0]

    def one_round(mean: Any, draws: Any) -> Any:
        return jax.vmap(node, (None, 0, 0, 0))(mean, draws, rows, targets).mean(axis=0), None

    @jax.jit
    def all_rounds(draws: Any) -> Any:
        # draws: (seeds, rounds, n, K)
        return jax.vmap(lambda d: lax.scan(one_round, start, d)[0])(draws)

    def run(iterations: int) -> np.ndarray:
        draws = draws_of(problem, size, iterations).reshape(
            size.seeds, size.n_nodes, -1, size.local_steps
        )
        return np.asarray(all_rounds(jnp.asarray(draws.transpose(0, 2, 1, 3))))

    return run


def draws_of(problem: MarginProblem, size: Size, iterations: int) -> np.ndarray:
    """The samples of every seed, node and iteration, (seeds, n, T)."""
    return sample_indices(
        np.arange(size.seeds, dtype=np.uint64), problem.node_sizes, 0, iterations, 1
    )[..., 0]
