"""What an engine is, which one is cheapest, and the readable reference on NumPy.

An engine holds the state of P runs, advances it by a number of iterations, keeps the exact running
sums (columns as in :mod:`theory.simulation.course`) and the rounds' records, and can report the
current metrics. It knows nothing of theorems, grids or seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Simulated, has_samples
from theory.simulation.compiled_losses import compiled_loss
from theory.simulation.course import (
    BATCH,
    COLUMNS,
    DISTANCE,
    GLOBAL,
    GRADIENT,
    LOCAL,
    LOSS,
    MEAN_SQUARE,
    OUTER_STEP,
    SQUARE_MEAN,
    SYNC,
)
from theory.simulation.draws import Window
from theory.simulation.outer_steps import NUMBER, checked_rule
from theory.simulation.variants import FedAvg, LocalStep, Reports, Round, Variant, node_weights

Array = NDArray[np.float64]
METRICS = ("global_loss", "local_loss", "distance", "local_distance", "gradient", "consensus")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every engine needs to know of its runs.

    Attributes:
        step_sizes: eta of each run, (P,).
        phis: phi(eta) = min(1, 2 - eta L), at least 0, of each run, (P,); NaN where L is unknown.
        seeds: (n_seeds,); run p has seed number p % n_seeds.
        local_steps, rounds: K and R.
        node_steps: local steps that each node takes in a round, (n,), at most K.
        variant: who takes part, what a node does, how reports are combined.
        averaging: False leaves the averaging out (a deliberate violation; plain Local SGD only).
        track: (5,) bool, which running sums to keep.
        record_rounds: whether to keep P, Q, S, beta and the distance of every round.
    """

    step_sizes: Array
    phis: Array
    seeds: NDArray[np.uint64]
    local_steps: int
    rounds: int
    node_steps: NDArray[np.int64]
    variant: Variant
    averaging: bool
    track: NDArray[np.bool_]
    record_rounds: bool

    @property
    def runs(self) -> int:
        """P."""
        return len(self.step_sizes)

    @property
    def participants(self) -> int:
        """m, as far as it is fixed."""
        chosen = self.variant.participants if isinstance(self.variant, FedAvg) else None
        return len(self.node_steps) if chosen is None else chosen

    @property
    def weights(self) -> Array:
        """Of the nodes, (n,)."""
        return node_weights(self.variant, len(self.node_steps))

    @property
    def rule(self) -> tuple[int, float]:
        """The outer step of FedAvg, as :func:`theory.simulation.outer_steps.outer_step` takes it."""
        assert isinstance(self.variant, FedAvg)
        return checked_rule(self.variant.outer_step_size)

    @property
    def plain(self) -> bool:
        """Whether a round ends in the plain mean of all nodes, and nothing of it is recorded."""
        v = self.variant
        fixed = isinstance(v, FedAvg) and v.compiled and self.rule == (NUMBER, 1.0)
        everyone = self.participants == len(self.node_steps) and v.weights is None
        return fixed and everyone and not self.record_rounds

    def empty_record(self) -> Array:
        """(P, R, 5) for the rounds' records, or (P, 0, 5)."""
        return np.full((self.runs, self.rounds if self.record_rounds else 0, 5), np.nan)


class Engine(Protocol):
    """State of P runs of Local SGD."""

    sums: Array
    best: Array
    record: Array

    def advance(self, window: Window, first: int) -> None:
        """As many iterations from ``first`` on as the window has draws for."""

    def snapshot(self) -> dict[str, Array]:
        """Each of METRICS now, (P,)."""

    def mean_models(self) -> Array:
        """xbar, (P, d)."""


class NumpyEngine:
    """The readable reference, vectorised over runs and nodes; takes any problem and any variant.

    Cost of an iteration: O(P n batch d) flops and as much memory traffic.
    """

    def __init__(self, problem: Simulated, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        self.sampled = problem if has_samples(problem) else None
        n, runs = problem.n_nodes, plan.runs
        self.centers: Array = np.tile(problem.start, (runs, 1))
        self.models: Array = np.tile(problem.start, (runs, n, 1))
        self.sums: Array = np.zeros((runs, COLUMNS))
        self.best: Array = np.full(runs, np.inf)
        self.record = plan.empty_record()
        self.all_weights = plan.weights
        # The nodes' shares in every mean, 0 for those that do not take part in the round.
        self.shares: Array = np.tile(self.all_weights, (runs, 1))
        # Whether all nodes hold the server's model.
        self.synchronised = True
        # Sums of each node's batch losses in this round.
        self.losses: Array = np.zeros((runs, n))
        self.states = [plan.variant.begin(np.array(problem.start), n) for _ in range(runs)]
        self._own_steps = type(plan.variant).local_step is not Variant.local_step

    def advance(self, window: Window, first: int) -> None:
        """See :class:`Engine`."""
        plan, indices = self.plan, window.indices
        repeat = plan.runs // indices.shape[0]
        for done in range(indices.shape[2]):
            number, k = divmod(first + done, plan.local_steps)
            if k == 0 and not plan.plain:
                self._begin_round(number)
            self._record_sums(at_round=k == 0)
            drawn = np.tile(indices[:, :, done], (repeat, 1, 1))
            active = (k < plan.node_steps) & (self.shares > 0)
            self._add_batch_losses(drawn, active)
            if indices.shape[3] == 0 or self.sampled is None:
                gradients = self.problem.node_gradients(self.models)
            else:
                gradients = self.sampled.sample_gradients(self.models, drawn)
            if self._own_steps:
                self._take_own_steps(gradients, active, k)
            else:
                moved = plan.step_sizes[:, None] * active
                self.models -= moved[:, :, None] * gradients
            self.synchronised = plan.averaging and k == plan.local_steps - 1
            if self.synchronised:
                self._combine(number)

    def _begin_round(self, number: int) -> None:
        plan, n = self.plan, self.problem.n_nodes
        for p in range(plan.runs):
            seed = int(plan.seeds[p % len(plan.seeds)])
            nodes = np.asarray(plan.variant.select(Round(seed, number, n)))
            self.shares[p] = 0.0
            self.shares[p, nodes] = self.all_weights[nodes] / self.all_weights[nodes].sum()

    def _take_own_steps(self, gradients: Array, active: NDArray[np.bool_], k: int) -> None:
        plan = self.plan
        for p in range(plan.runs):
            nodes = np.flatnonzero(active[p])
            step = LocalStep(
                step_size=float(plan.step_sizes[p]),
                number=k,
                local_steps=plan.local_steps,
                start=self.centers[p].copy(),
                nodes=nodes,
                state=self.states[p],
            )
            self.models[p, nodes] = plan.variant.local_step(
                self.models[p, nodes], gradients[p, nodes], step
            )

    def _add_batch_losses(self, drawn: NDArray[np.int32], active: NDArray[np.bool_]) -> None:
        if self.plan.plain and not self.plan.track[BATCH]:
            return
        if drawn.shape[2] == 0:
            losses = self.problem.node_losses(self.models)
        elif self.sampled is not None and hasattr(self.sampled, "sample_losses"):
            losses = self.sampled.sample_losses(self.models, drawn)
        else:
            losses = np.full(active.shape, np.nan)
        taken = np.where(active, losses, 0.0)
        self.losses += taken
        if self.plan.track[BATCH]:
            self.sums[:, BATCH] += (self.shares * taken).sum(axis=-1)

    def _combine(self, number: int) -> None:
        plan = self.plan
        if plan.plain:
            self.centers = self.models.mean(axis=1)
        else:
            for p in range(plan.runs):
                self.centers[p] = self._combined(p, number)
        self.models[:] = self.centers[:, None]
        self.shares[:] = self.all_weights
        self.losses[:] = 0.0

    def _combined(self, p: int, number: int) -> Array:
        """The server's model of run p after a round."""
        plan, center = self.plan, self.centers[p]
        nodes = np.flatnonzero(self.shares[p])
        reports = Reports(
            number=number,
            changes=self.models[p, nodes] - center,
            losses=self.losses[p, nodes].copy(),
            weights=self.shares[p, nodes].copy(),
            nodes=nodes,
            step_size=float(plan.step_sizes[p]),
            phi=float(plan.phis[p]),
            local_steps=plan.local_steps,
            state=self.states[p],
        )
        moved = np.asarray(plan.variant.combine(center.copy(), reports), dtype=float)
        if plan.record_rounds:
            if type(plan.variant).combine is not Variant.combine and reports.square_mean > 0:
                # What it amounts to along the mean change.
                reports.outer_step = float((moved - center) @ reports.mean) / reports.square_mean
            row = self.record[p, number]
            row[MEAN_SQUARE], row[SQUARE_MEAN] = reports.mean_square, reports.square_mean
            row[LOSS], row[OUTER_STEP] = reports.loss, reports.outer_step
            row[DISTANCE] = ((center - self._solution()) ** 2).sum()
        return moved

    def _solution(self) -> Array:
        solution = getattr(self.problem, "solution", None)
        return np.asarray(np.nan if solution is None else solution)

    def _record_sums(self, at_round: bool) -> None:
        track = self.plan.track
        mean = self.mean_models()
        if track[LOCAL]:
            losses = self.problem.node_losses(self.models)
            self.sums[:, LOCAL] += (self.shares * losses).sum(axis=-1)
        if track[GLOBAL]:
            self.sums[:, GLOBAL] += self._global_loss(mean)
        if track[SYNC] and at_round:
            value = self._global_loss(mean)
            self.sums[:, SYNC] += value
            self.best = np.minimum(self.best, value)
        if track[GRADIENT] and at_round:
            self.sums[:, GRADIENT] += (self._global_gradient(mean) ** 2).sum(axis=-1)

    def _everywhere(self, mean: Array) -> Array:
        return np.broadcast_to(mean[:, None, :], self.models.shape)

    def _global_loss(self, mean: Array) -> Array:
        return np.asarray(self.problem.node_losses(self._everywhere(mean)).mean(axis=-1))

    def _global_gradient(self, mean: Array) -> Array:
        return np.asarray(self.problem.node_gradients(self._everywhere(mean)).mean(axis=1))

    def mean_models(self) -> Array:
        """See :class:`Engine`."""
        if self.synchronised:
            return self.centers.copy()
        return np.asarray((self.shares[:, :, None] * self.models).sum(axis=1))

    def snapshot(self) -> dict[str, Array]:
        """See :class:`Engine`."""
        mean, shares, solution = self.mean_models(), self.shares, self._solution()

        def over_nodes(squares: Array) -> Array:
            return np.asarray((shares * squares.sum(axis=-1)).sum(axis=-1))

        return {
            "global_loss": self._global_loss(mean),
            "local_loss": (shares * self.problem.node_losses(self.models)).sum(axis=-1),
            "distance": ((mean - solution) ** 2).sum(axis=-1),
            "local_distance": over_nodes((self.models - solution) ** 2),
            "gradient": (self._global_gradient(mean) ** 2).sum(axis=-1),
            "consensus": over_nodes((self.models - mean[:, None]) ** 2),
        }


def is_compiled(problem: Simulated, variant: Variant) -> TypeGuard[MarginProblem]:
    """Whether the compiled engines can run it."""
    known = isinstance(problem, MarginProblem) and compiled_loss(problem.loss) is not None
    return known and isinstance(variant, FedAvg) and variant.compiled


def cheapest_engine(problem: Simulated, plan: Plan, batch_size: int) -> str:
    """Name of the engine with the least work an iteration, by counting multiplications.

    Margin space pays N min(N, m K batch) a round, R^d pays d at every step of every node; sums that
    need the losses of all samples cost N d there, N here.
    """
    if not is_compiled(problem, plan.variant):
        return "numpy"
    m, total, d = plan.participants, problem.n_samples, problem.dimension
    batch = batch_size or int(problem.node_sizes.max())
    k = plan.local_steps
    touched = min(total, m * k * batch)
    every_step = plan.track[LOCAL] or plan.track[GLOBAL]
    margin = total * touched + k * batch * total
    if plan.track[GLOBAL]:
        margin += k * total * touched
    direct = 2 * m * k * batch * d + (k if every_step else int(plan.track.any())) * total * d
    # Beyond this many samples the Gram matrix itself is the cost.
    fits = total <= 20_000
    return "margin" if fits and margin <= direct else "numba"
