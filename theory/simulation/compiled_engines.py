"""The compiled engines: in R^d, and in margin space; FedAvg on problems with a compiled loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba.core.errors import NumbaExperimentalFeatureWarning
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Simulated
from theory.simulation import margin_kernels, model_kernels
from theory.simulation.compiled_losses import compiled_loss
from theory.simulation.course import COLUMNS, Course
from theory.simulation.draws import Window
from theory.simulation.engines import Engine, NumpyEngine, Plan
from theory.simulation.margin_rounds import MarginData
from theory.simulation.outer_steps import NUMBER

Array = NDArray[np.float64]


@contextmanager
def _threads(tasks: int) -> Iterator[None]:
    """No more threads than tasks: waking one for nothing costs more than a short advance."""
    before = numba.get_num_threads()
    numba.set_num_threads(max(1, min(tasks, before)))
    try:
        with warnings.catch_warnings():
            # Functions as arguments carry losses of one's own; a test says whether they still do.
            warnings.simplefilter("ignore", NumbaExperimentalFeatureWarning)
            yield
    finally:
        numba.set_num_threads(before)


def _course(plan: Plan) -> Course:
    rule, number = plan.rule
    return Course(
        local_steps=plan.local_steps,
        node_steps=plan.node_steps,
        weights=plan.weights,
        rule=rule,
        number=number,
        averaging=plan.averaging,
        reports=plan.record_rounds or rule != NUMBER,
        track=plan.track,
    )


def _loss_fields(problem: MarginProblem) -> dict[str, Any]:
    fields = compiled_loss(problem.loss)
    assert fields is not None  # such problems are refused before
    return dict(zip(("code", "value", "derivative"), fields, strict=True))


# A larger Gram matrix comes from memory, and is not copied.
_IN_CACHE = 1 << 20


def _aligned(array: Array) -> Array:
    """``array`` from the start of a cache line on: loads of whole vectors then touch one line each."""
    if array.size > _IN_CACHE:
        return np.ascontiguousarray(array)
    spare = np.empty(array.size + 8)
    begin = -(spare.ctypes.data // 8) % 8
    out = spare[begin : begin + array.size].reshape(array.shape)
    out[...] = array
    return out


class _InProgress:
    """Who takes part in the round that is under way, (P, m) nodes and their weights; None between rounds."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.nodes: NDArray[np.integer[Any]] | None = None
        self.weights: Array = np.empty(0)

    def update(self, window: Window, end: int) -> None:
        """After the iterations of ``window``, which end before ``end``."""
        plan, n = self.plan, len(self.plan.node_steps)
        self.nodes = None
        if plan.averaging and end % plan.local_steps == 0:
            return
        everyone = window.nodes.shape[1] == 0
        nodes = np.arange(n)[None] if everyone else window.nodes[:, -1]
        self.nodes = np.tile(nodes, (plan.runs // len(nodes), 1))
        self.weights = plan.weights[self.nodes]
        self.weights = self.weights / self.weights.sum(axis=1, keepdims=True)

    def shares(self) -> Array:
        """Each node's share in every mean, (P, n)."""
        if self.nodes is None:
            return np.tile(self.plan.weights, (self.plan.runs, 1))
        shares = np.zeros((self.plan.runs, len(self.plan.node_steps)))
        np.put_along_axis(shares, self.nodes.astype(np.int64), self.weights, axis=1)
        return shares


class NumbaEngine:
    """Compiled steps in R^d; a node's model stays in cache through its K steps.

    Runs are spread over threads; when there are fewer runs than threads and nothing is to be recorded,
    nodes are. Cost of an iteration: O(P m batch d) flops; memory for the models of the m participants.
    """

    def __init__(self, problem: MarginProblem, plan: Plan) -> None:
        self.problem, self.plan, self.course = problem, plan, _course(plan)
        self.centers: Array = np.tile(problem.start, (plan.runs, 1))
        # Row s is the model of the s-th participant; meaningless between rounds.
        self.models: Array = np.tile(problem.start, (plan.runs, plan.participants, 1))
        self.sums: Array = np.zeros((plan.runs, COLUMNS))
        self.best: Array = np.full(plan.runs, np.inf)
        self.record = plan.empty_record()
        self.carried = np.zeros((plan.runs, 1))
        self.round = _InProgress(plan)
        self.data = model_kernels.ModelData(
            features=problem.features,
            targets=problem.targets,
            offsets=problem.offsets,
            solution=np.empty(0) if problem.solution is None else problem.solution,
            **_loss_fields(problem),
        )

    def advance(self, window: Window, first: int) -> None:
        """See :class:`theory.simulation.engines.Engine`."""
        plan, steps = self.plan, window.indices.shape[2]
        state = (self.centers, self.models, window.indices, window.nodes, first, steps)
        few = plan.runs < numba.get_num_threads()
        if few and not plan.track.any() and not self.course.reports:
            with _threads(numba.get_num_threads()):
                model_kernels.advance_nodes(self.data, self.course, plan.step_sizes, *state)
        else:
            recorded = (self.sums, self.best, self.carried, self.record)
            with _threads(plan.runs):
                model_kernels.advance_models(
                    self.data, self.course, plan.step_sizes, plan.phis, *state, *recorded
                )
        self.round.update(window, first + steps)

    def mean_models(self) -> Array:
        """See :class:`theory.simulation.engines.Engine`."""
        if self.round.nodes is None:
            return self.centers.copy()
        return np.asarray((self.round.weights[:, :, None] * self.models).sum(axis=1))

    def snapshot(self) -> dict[str, Array]:
        """See :class:`theory.simulation.engines.Engine`."""
        p, mean = self.problem, self.mean_models()
        distance = np.full(self.plan.runs, np.nan)
        if p.solution is not None:
            distance = ((mean - p.solution) ** 2).sum(axis=-1)
        own, weights = self.models, self.round.weights
        consensus = np.zeros(self.plan.runs)
        if self.round.nodes is not None:
            squares = ((own - mean[:, None]) ** 2).sum(axis=-1)
            consensus = (weights * squares).sum(axis=-1)
        return {
            "global_loss": p.global_loss(mean),
            "local_loss": self._local_loss(mean),
            "distance": distance,
            # About a mean, the mean square splits into the mean's own and the spread.
            "local_distance": distance + consensus,
            "gradient": (p.global_gradient(mean) ** 2).sum(axis=-1),
            "consensus": consensus,
        }

    def _local_loss(self, mean: Array) -> Array:
        p = self.problem
        if self.round.nodes is None:
            each = self.plan.weights / p.node_sizes
            values = p.loss.value(p.margins(mean), p.targets)
            return np.asarray(values @ each[p.node_of_sample])
        out = np.zeros(self.plan.runs)
        for run, nodes in enumerate(self.round.nodes):
            for slot, i in enumerate(nodes):
                s = p.node_slice(int(i))
                values = p.loss.value(p.features[s] @ self.models[run, slot], p.targets[s])
                out[run] += self.round.weights[run, slot] * values.mean()
        return out


class MarginEngine:
    """Compiled steps on margins: the cost does not grow with d.

    A node's model is x_0 + A'(alpha + its own delta). Cost of an iteration: O(P m batch m_i), of a
    round O(P N min(N, m K batch)); N^2 numbers of memory for the Gram matrix.
    """

    def __init__(self, problem: MarginProblem, plan: Plan) -> None:
        self.problem, self.plan = problem, plan
        shape = (plan.runs, problem.n_samples)
        self.gram = _aligned(problem.gram)
        start_margins = problem.features @ problem.start
        self.base: Array = _aligned(np.tile(start_margins, (shape[0], 1)))
        self.margins: Array = self.base.copy()
        self.delta: Array = np.zeros(shape)
        self.alpha: Array = np.zeros(shape)
        self.sums: Array = np.zeros((plan.runs, COLUMNS))
        self.best: Array = np.full(plan.runs, np.inf)
        self.record = plan.empty_record()
        self.carried = np.zeros((plan.runs, 1))
        self.course = _course(plan)
        self.round = _InProgress(plan)
        known = problem.loss.attained
        coefficients = problem.solution_coefficients if known else np.empty(0)
        self.data = MarginData(
            gram=self.gram,
            targets=problem.targets,
            offsets=problem.offsets,
            coordinates=problem.coordinates if known else np.empty((0, 0)),
            solution=coefficients,
            **_loss_fields(problem),
        )

    def advance(self, window: Window, first: int) -> None:
        """See :class:`theory.simulation.engines.Engine`."""
        plan, steps = self.plan, window.indices.shape[2]
        with _threads(plan.runs):
            margin_kernels.advance_margins(
                self.data,
                self.course,
                plan.step_sizes,
                plan.phis,
                self.base,
                self.margins,
                self.delta,
                self.alpha,
                window.indices,
                window.nodes,
                first,
                steps,
                self.sums,
                self.best,
                self.carried,
                self.record,
                plan.participants,
            )
        self.round.update(window, first + steps)

    def _mean_change(self) -> Array:
        """Coefficients of the mean of the participants' changes, (P, N)."""
        return self.delta * self.round.shares()[:, self.problem.node_of_sample]

    def mean_models(self) -> Array:
        """See :class:`theory.simulation.engines.Engine`."""
        coefficients = self.alpha + self._mean_change()
        return self.problem.start + coefficients @ self.problem.features

    def _square(self, coefficients: Array) -> Array:
        return np.maximum(((coefficients @ self.gram) * coefficients).sum(axis=1), 0.0)

    def snapshot(self) -> dict[str, Array]:
        """See :class:`theory.simulation.engines.Engine`."""
        p = self.problem
        change = self._mean_change()
        margins = self.base + change @ self.gram
        slopes = p.loss.derivative(margins, p.targets) * p.sample_weights
        own, local, shares = np.zeros(self.plan.runs), np.zeros(self.plan.runs), self.round.shares()
        for i in range(p.n_nodes):
            s = p.node_slice(i)
            squares = ((self.delta[:, s] @ self.gram[s, s]) * self.delta[:, s]).sum(axis=1)
            losses = p.loss.value(self.margins[:, s], p.targets[s]).mean(axis=1)
            own += shares[:, i] * squares
            local += shares[:, i] * losses
        consensus = np.maximum(own - self._square(change), 0.0)
        distance = np.full(self.plan.runs, np.nan)
        if p.loss.attained:
            to_solution = self.alpha + change - p.solution_coefficients
            distance = ((to_solution @ p.coordinates) ** 2).sum(axis=1)
        return {
            "global_loss": p.loss_of_margins(margins),
            "local_loss": local,
            "distance": distance,
            # About a mean, the mean square splits into the mean's own and the spread.
            "local_distance": distance + consensus,
            "gradient": self._square(slopes),
            "consensus": consensus,
        }


def make_engine(name: str, problem: Simulated, plan: Plan) -> Engine:
    """The engine of that name; a compiled one only for what :func:`is_compiled` lets pass."""
    if name == "numpy":
        return NumpyEngine(problem, plan)
    assert isinstance(problem, MarginProblem)
    return ENGINES[name](problem, plan)


ENGINES: dict[str, Callable[[MarginProblem, Plan], Engine]] = {
    "numpy": NumpyEngine,
    "numba": NumbaEngine,
    "margin": MarginEngine,
}
