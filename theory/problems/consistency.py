"""A problem of one's own against what it says of itself, before a run or a theorem believes it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.problems.margin import MarginProblem
from theory.problems.protocols import Simulated, has_samples
from theory.support.errors import UserError

Array = NDArray[np.float64]

#: Distances from x* (x_0 where there is none) at which it is tested, in units of ||x_0 - x*||.
_SCALES = (0.0, 1e-2, 0.1, 0.3, 0.5, 0.7, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0)
#: How far a difference reaches, in the same unit.
_SPAN = 1e-4
#: Relative error that a careless formula may have.
_SLACK = 1e-9
#: Samples a node up to which the mean over all of them is compared with the node's gradient.
_MOST_SAMPLES = 64
_tested: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def check_problem(problem: Simulated) -> None:
    """Test a problem of one's own, once, on points around x* as far out as twice x_0.

    Every test is an inequality that a true problem cannot miss by more than rounding. On a segment the
    change of a loss is between its length times the slopes at the ends where the loss is convex or the
    slope is monotone, and so near the slope halfway as the slopes are to each other. Problems of
    margins are not tested here, as their loss was when they were made, nor those of a class that says
    ``true_by_construction = True``, as it is for values that are themselves solved for.

    Args:
        problem: as :class:`theory.problems.protocols.Simulated`; what it has of ``Sampled`` and
            ``KnowsConstants`` is tested too.

    Raises:
        UserError: names the problem, what is wrong and where: a shape, a number that is not finite, a loss
            below 0 or not 0 at x*, a gradient that is not the slope of the loss, a change of gradient
            above the smoothness or, if it is said to be convex, below 0, a global loss that is not the
            nodes' mean, an initial distance that is not ||x_0 - x*||^2, or samples whose mean is not
            the node.
    """
    true = isinstance(problem, MarginProblem) or getattr(problem, "true_by_construction", False)
    if true or _tested.get(id(problem)) is problem:
        return
    _test(problem)
    # What can't be referred to weakly is tested every time.
    with contextlib.suppress(TypeError):
        _tested[id(problem)] = problem


def _test(problem: Simulated) -> None:
    start = np.asarray(problem.start, dtype=np.float64)
    if start.ndim != 1 or not np.isfinite(start).all():
        raise _wrong(problem, "start", f"has shape {start.shape}, allowed: (d,), finite numbers")
    centre = start if problem.solution is None else np.asarray(problem.solution, dtype=np.float64)
    if centre.shape != start.shape or not np.isfinite(centre).all():
        allowed = f"{start.shape}, finite numbers"
        raise _wrong(problem, "solution", f"has shape {centre.shape}, allowed: {allowed}")
    distance = float(np.sum((start - centre) ** 2))
    radius = float(np.sqrt(distance)) or 1.0
    random = np.random.Generator(np.random.Philox(key=0))
    segments = [_segment(problem, centre, scale, radius, random) for scale in _SCALES]
    for segment in segments:
        _test_slopes(problem, segment)
    _test_start(problem, start, centre, distance)
    for segment in segments:
        _test_curvature(problem, segment)
    _test_samples(problem, start)


@dataclass(frozen=True)
class _Segment:
    """A short segment for every node: losses (3, n), gradients (3, n, d) at its ends and halfway."""

    where: str
    length: float
    reach: float
    step: Array
    losses: Array
    gradients: Array

    @property
    def size(self) -> Array:
        """Of the gradients at the ends, (n,)."""
        return np.asarray(np.linalg.norm(self.gradients[[0, 2]], axis=2).sum(axis=0))

    @property
    def turn(self) -> Array:
        """The change of the gradients from end to end, (n, d)."""
        return np.asarray(self.gradients[2] - self.gradients[0])


def _segment(
    problem: Simulated, centre: Array, scale: float, radius: float, random: np.random.Generator
) -> _Segment:
    shape = (problem.n_nodes, centre.size)
    way, along = random.standard_normal(shape), random.standard_normal(shape)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    length = _SPAN * radius
    step = length * along / np.linalg.norm(along, axis=1, keepdims=True)
    point = centre + scale * radius * way
    places = [point + share * step for share in (0.0, 0.5, 1.0)]
    return _Segment(
        f"at {scale:g} times the distance of x_0 from x*",
        length,
        float(np.linalg.norm(centre)) + (scale + 1) * radius,
        step,
        np.stack([_losses(problem, x) for x in places]),
        np.stack([_gradients(problem, x) for x in places]),
    )


def _test_slopes(problem: Simulated, s: _Segment) -> None:
    slack = _SLACK * (np.abs(s.losses[[0, 2]]).sum(0) + s.size * s.length)
    # The rounding of x itself.
    slack += 1e-15 * s.size * s.reach
    _all(problem, s.losses[0] >= -slack, "loss", s.losses[0], f"below 0 {s.where}")
    change = s.losses[2] - s.losses[0]
    slope = (s.gradients[1] * s.step).sum(axis=1)
    fits = np.abs(change - slope) <= np.linalg.norm(s.turn, axis=1) * s.length + slack
    said = f"not the change of its loss, {{:.6g}}, {s.where}"
    _all(problem, fits, "gradient times a short step", slope, said, change)


def _test_curvature(problem: Simulated, s: _Segment) -> None:
    bend = np.linalg.norm(s.turn, axis=1) / s.length
    rounding = 1e-6 * bend + 1e-12 * s.size / s.length
    smoothness = getattr(problem, "smoothness", None)
    if smoothness is not None:
        said = f"above its smoothness {smoothness:.6g} {s.where}"
        _all(problem, bend <= smoothness + rounding, "gradient's change a unit", bend, said)
    if getattr(problem, "convex", False):
        rise = (s.turn * s.step).sum(axis=1) / s.length**2
        said = f"below 0, so not convex, {s.where}"
        _all(problem, rise >= -rounding, "curvature", rise, said)


def _test_start(problem: Simulated, start: Array, centre: Array, distance: float) -> None:
    losses = _losses(problem, start)
    slack = 1e-8 * (1e-300 + float(np.abs(losses).max()))
    if problem.solution is not None:
        least = _losses(problem, centre)
        _all(problem, np.abs(least) <= slack, "loss at the solution", least, "allowed: 0")
        said = getattr(problem, "initial_distance", distance)
        if not abs(said - distance) <= 1e-6 * distance:
            wrong = f"is {said:.6g}, but ||start - solution||^2 is {distance:.6g}"
            raise _wrong(problem, "initial_distance", wrong)
    whole: Callable[[Array], Array] | None = getattr(problem, "global_loss", None)
    if whole is not None:
        found, mean = float(whole(start)), float(losses.mean())
        if not abs(found - mean) <= slack:
            wrong = f"at x_0 is {found:.6g}, the mean of its node_losses {mean:.6g}"
            raise _wrong(problem, "global_loss", wrong)


def _test_samples(problem: Simulated, start: Array) -> None:
    if not has_samples(problem):
        return
    sizes = np.asarray(problem.node_sizes)
    if sizes.shape != (problem.n_nodes,) or not (sizes >= 1).all():
        raise _wrong(problem, "node_sizes", f"is {sizes}, allowed: one number above 0 a node")
    if sizes.min() != sizes.max() or sizes[0] > _MOST_SAMPLES:
        return
    models = np.broadcast_to(start, (1, problem.n_nodes, start.size)).copy()
    every = np.broadcast_to(np.arange(sizes[0]), (1, problem.n_nodes, int(sizes[0]))).copy()
    found = np.asarray(problem.sample_gradients(models, every), dtype=np.float64)
    whole = _gradients(problem, start)
    if found.shape != (1, *whole.shape):
        wrong = f"has shape {found.shape}, allowed: {(1, *whole.shape)}"
        raise _wrong(problem, "sample_gradients", wrong)
    miss = np.linalg.norm(found[0] - whole, axis=1)
    fits = miss <= 1e-8 * np.linalg.norm(whole, axis=1) + 1e-300
    _all(problem, fits, "mean sample gradient's distance from node_gradients", miss, "allowed: 0")


def _losses(problem: Simulated, x: Array) -> Array:
    """At x of shape (d,), or one (n, d) a node."""
    models = np.broadcast_to(x, (problem.n_nodes, x.shape[-1])).copy()
    return _finite(problem, "node_losses", problem.node_losses(models), (problem.n_nodes,))


def _gradients(problem: Simulated, x: Array) -> Array:
    models = np.broadcast_to(x, (problem.n_nodes, x.shape[-1])).copy()
    return _finite(problem, "node_gradients", problem.node_gradients(models), models.shape)


def _finite(problem: Simulated, name: str, values: Any, shape: tuple[int, ...]) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != shape:
        allowed = f"{shape}, and the same with leading axes"
        raise _wrong(problem, name, f"has shape {found.shape}, allowed: {allowed}")
    if not np.isfinite(found).all():
        raise _wrong(problem, name, "is not finite near x*, allowed: finite numbers")
    return found


def _all(
    problem: Simulated,
    passed: NDArray[np.bool_],
    what: str,
    found: Array,
    wrong: str,
    instead: Array | None = None,
) -> None:
    if not passed.all():
        node = int(np.argmin(passed))
        said = wrong if instead is None else wrong.format(instead[node])
        raise _wrong(problem, f"{what}, node {node},", f"is {found[node]:.6g}, {said}")


def _wrong(problem: object, what: str, said: str) -> UserError:
    name = getattr(problem, "name", type(problem).__name__)
    return UserError(f"problem {name!r}: its {what} {said}")
