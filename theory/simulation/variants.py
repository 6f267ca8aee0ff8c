"""A variant of Local SGD is one small object: what is drawn, what a node does, how reports combine.

Plain Local SGD is :class:`Variant` itself; :class:`FedAvg` is the generalised round of Lemma 2, T7 and
T8, which all engines run. A variant of your own overrides what differs and runs on the NumPy engine::

    class ServerMomentum(Variant):
        name = "server momentum 0.9"

        def begin(self, start, n_nodes):
            return {"velocity": np.zeros_like(start)}

        def combine(self, model, reports):
            reports.state["velocity"] = 0.9 * reports.state["velocity"] + reports.mean
            return model + reports.state["velocity"]

    run_local_sgd(problem, step_size=0.5, local_steps=5, variant=ServerMomentum())

Every method sees one run (one step size, one seed); arrays are (m, d) for m participants, (d,) for the
server's model. What must be remembered between calls belongs into the state that ``begin`` returns, not
into the object, which all runs share.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.simulation.arguments import whole_number
from theory.simulation.outer_steps import OuterRule, checked_rule, outer_step
from theory.simulation.streams import participants, round_generator
from theory.support.errors import UserError
from theory.support.loading import LOADED, load_module, load_object

Array = NDArray[np.float64]
Nodes = NDArray[np.integer[Any]]
ORDERS = ("uniform", "reshuffled")


@dataclass(frozen=True)
class Round:
    """Which round of which run is about to begin: ``seed``, ``number`` r, and ``n_nodes`` n."""

    seed: int
    number: int
    n_nodes: int

    @property
    def random(self) -> np.random.Generator:
        """A fresh generator that depends on seed and round only."""
        return round_generator(self.seed, self.number)


@dataclass(frozen=True)
class LocalStep:
    """Step ``number`` k (0 to K - 1) of a round at the nodes that take it.

    Attributes:
        step_size: eta.
        number, local_steps: k and K.
        start: xbar_r, from which all nodes started the round, (d,).
        nodes: which nodes, (m,); rows of the model and gradient arrays belong to them.
        state: what ``begin`` returned.
    """

    step_size: float
    number: int
    local_steps: int
    start: Array
    nodes: Nodes
    state: Any


@dataclass
class Reports:
    """What the participants report at the end of round ``number`` r.

    Attributes:
        changes: Delta_i = x_i - xbar_r, (m, d).
        losses: sum over node i's steps of its batch's loss before the step, (m,); NaN for a problem
            that has no ``sample_losses``.
        weights: of the participants, summing to 1, (m,).
        nodes: which nodes, (m,).
        step_size, phi, local_steps: eta, phi(eta) = min(1, 2 - eta L) (at least 0; NaN for a problem
            without ``smoothness``) and K.
        state: what ``begin`` returned.
        outer_step: the beta that :meth:`Variant.combine` used; NaN until then.
    """

    number: int
    changes: Array
    losses: Array
    weights: Array
    nodes: Nodes
    step_size: float
    phi: float
    local_steps: int
    state: Any
    outer_step: float = field(default=float("nan"), init=False)

    @cached_property
    def mean(self) -> Array:
        """The weighted mean of the changes, (d,)."""
        return np.asarray(self.weights @ self.changes)

    @cached_property
    def mean_square(self) -> float:
        """P, the mean of ||Delta_i||^2."""
        return float(self.weights @ (self.changes**2).sum(axis=1))

    @cached_property
    def square_mean(self) -> float:
        """Q = ||mean Delta_i||^2, at most P."""
        return float(self.mean @ self.mean)

    @cached_property
    def loss(self) -> float:
        """S, the mean of ``losses``."""
        return float(self.weights @ self.losses)


class Variant:
    """Plain Local SGD: all nodes, samples with replacement, SGD steps, the mean of the models.

    Attributes:
        name: what results and checks call it.
        order: "uniform" or "reshuffled"; see :func:`theory.simulation.local_sgd.run_local_sgd`.
        weights: of the nodes in every mean, (n,), summing to 1; None for equal ones.
    """

    name: str = "Local SGD"
    order: str = "uniform"
    weights: Sequence[float] | None = None

    def begin(self, start: Array, n_nodes: int) -> Any:
        """State of one run before its first round; ``start`` is x_0, (d,)."""
        return None

    def select(self, round: Round) -> Nodes | Sequence[int]:
        """The nodes that take part in a round, at least one, none twice."""
        return np.arange(round.n_nodes)

    def local_step(self, models: Array, gradients: Array, step: LocalStep) -> Array:
        """The nodes' models after one step, (m, d), from models and gradients of that shape."""
        return models - step.step_size * gradients

    def outer_step(self, reports: Reports) -> float:
        """beta, the factor on the mean change."""
        return 1.0

    def combine(self, model: Array, reports: Reports) -> Array:
        """xbar_{r+1} from xbar_r and the reports, (d,)."""
        reports.outer_step = float(self.outer_step(reports))
        return model + reports.outer_step * reports.mean

    def __reduce__(self) -> Any:
        # Worker processes can't import a file by name: they load it again from its path.
        module = type(self).__module__
        if not module.startswith(LOADED):
            return super().__reduce__()
        return _rebuild, (sys.modules[module].__file__, type(self).__qualname__, self.__dict__)


@dataclass(frozen=True)
class FedAvg(Variant):
    """FedAvg as it is run: client sampling, node weights and an outer step.

    Attributes:
        participants: m of the n nodes, drawn uniformly without replacement, afresh every round.
        outer_step_size: beta, or a rule for it; see :mod:`theory.simulation.outer_steps`.
        weights: of the nodes, each above 0, summing to 1; the participants' are scaled to sum to 1.
        order: of the samples.

    Raises:
        UserError: an attribute outside its range (the number of nodes is checked by the run).
    """

    participants: int | None = None
    outer_step_size: float | str | OuterRule = 1.0
    weights: Sequence[float] | None = None
    order: str = "uniform"

    def __post_init__(self) -> None:
        checked_rule(self.outer_step_size)
        if self.order not in ORDERS:
            raise UserError(f"order is {self.order!r}, allowed: {', '.join(ORDERS)}")

    @property
    def name(self) -> str:  # type: ignore[override]
        """Such as "FedAvg, 3 nodes a round, outer step polyak"; "Local SGD" where nothing differs."""
        rule = self.outer_step_size
        word = getattr(rule, "__name__", str(rule)) if callable(rule) else str(rule)
        parts = [] if self.participants is None else [f"{self.participants} nodes a round"]
        parts += [] if rule == 1.0 else [f"outer step {word}"]
        parts += [] if self.weights is None else ["weighted nodes"]
        parts += [] if self.order == "uniform" else [self.order]
        return ", ".join(["FedAvg", *parts]) if parts else "Local SGD"

    @property
    def compiled(self) -> bool:
        """Whether all engines run it: its outer step is a number or a named rule."""
        return type(self) is FedAvg and not callable(self.outer_step_size)

    def select(self, round: Round) -> Nodes:
        """See :class:`Variant`."""
        if self.participants in (None, round.n_nodes):
            return np.arange(round.n_nodes)
        return participants(round.seed, round.number, 1, round.n_nodes, self.participants)[0]

    def outer_step(self, reports: Reports) -> float:
        """See :class:`Variant`."""
        rule = self.outer_step_size
        if callable(rule):
            return float(rule(reports.changes, reports.loss))
        code, number = checked_rule(rule)
        r = reports
        return float(
            outer_step(code, number, r.mean_square, r.square_mean, r.loss, r.step_size, r.phi)
        )


def selects_everyone(variant: Variant, n_nodes: int) -> bool:
    """Whether every node takes part in every round, so that clients are no source of chance."""
    select = type(variant).select
    if select is FedAvg.select:
        assert isinstance(variant, FedAvg)
        return variant.participants in (None, n_nodes)
    return select is Variant.select


def check_variant(variant: Variant, n_nodes: int) -> None:
    """Refuse a variant that does not fit a problem of ``n_nodes`` nodes.

    Raises:
        UserError: not a :class:`Variant`, participants outside 1 to n, weights that are not n positive
            numbers with sum 1, or an unknown order.
    """
    if not isinstance(variant, Variant):
        raise UserError(f"variant is {variant!r}, allowed: an object of a class of Variant")
    if variant.order not in ORDERS:
        raise UserError(f"order is {variant.order!r}, allowed: {', '.join(ORDERS)}")
    if isinstance(variant, FedAvg) and variant.participants is not None:
        whole_number("participants", variant.participants, 1, n_nodes)
    if variant.weights is None:
        return
    weights = np.asarray(variant.weights, dtype=float)
    if weights.shape != (n_nodes,) or not (weights > 0).all() or abs(weights.sum() - 1) > 1e-9:
        raise UserError(
            f"weights is {list(variant.weights)}, allowed: {n_nodes} numbers above 0 with sum 1"
        )


def node_weights(variant: Variant, n_nodes: int) -> Array:
    """The nodes' weights, (n,), with sum 1 to rounding."""
    if variant.weights is None:
        return np.full(n_nodes, 1.0 / n_nodes)
    weights = np.asarray(variant.weights, dtype=float)
    return weights / weights.sum()


# ---- variants in files ---------------------------------------------------------------------------


def load_variant(text: str) -> Variant:
    """A variant from ``file.py:NAME``, NAME a class of :class:`Variant` or an object of one.

    Raises:
        UserError: no such file or name, a file that does not run, or something that is no variant.
    """
    found = load_object("variant", text)
    variant = found() if isinstance(found, type) and issubclass(found, Variant) else found
    if not isinstance(variant, Variant):
        raise UserError(f"variant {text!r} is a {type(found).__name__}, allowed: a Variant")
    return variant


def _rebuild(path: str, qualified_name: str, attributes: dict[str, Any]) -> Variant:
    found: Any = load_module("variant", path)
    for part in qualified_name.split("."):
        found = getattr(found, part)
    variant: Variant = found.__new__(found)
    variant.__dict__.update(attributes)
    return variant
