"""Every figure by name: the function that draws it, its title, and what a reader should see in it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from figures.analysis.sources import Sources
from figures.drawing import (
    baselines,
    bend,
    bounds,
    deep_curves,
    energy,
    ladder,
    orders,
    outer_map,
    outer_steps,
    worst_cases,
)
from theory.support.errors import UserError


@dataclass(frozen=True)
class Entry:
    """A figure.

    Attributes:
        name: on the command line and of its files.
        title: a heading.
        text: what it shows, for a page's caption and for readers who can't see it. It says how to read
            the figure and names no number of a result, as results change.
        draw: makes it from its sources.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Sources], Figure]


FIGURES: tuple[Entry, ...] = (
    Entry(
        "loss-vs-rounds",
        "Training loss against rounds, to the target loss",
        "The deep experiment, one panel a regime and one curve a K, both axes logarithmic. A curve "
        "that lies further left needs fewer rounds of communication for the same training loss.",
        deep_curves.loss_vs_rounds,
    ),
    Entry(
        "loss-fixed-rounds",
        "Training loss at a fixed number of rounds",
        "The deep experiment with the same number of rounds for every K, one panel a regime, both "
        "axes logarithmic. The end of each curve is what those rounds buy with K local steps in each.",
        deep_curves.loss_at_fixed_rounds,
    ),
    Entry(
        "inverse-loss",
        "Is it O(1/T)? The inverse of the loss against iterations",
        "One over the training loss against all iterations T. A 1/T rate is a straight line through the "
        "start (dashed: the line fitted to the whole run), 1/T after a delay a straight line further on "
        "(dotted: fitted to the second half); a curve that bends upwards falls faster.",
        deep_curves.inverse_loss_vs_iterations,
    ),
    Entry(
        "rounds-to-loss",
        "Rounds to the target loss against K",
        "Rounds until the training loss on the whole training set is below the target, against the "
        "local steps a round, with one line a regime. The dotted line falls like 1/K.",
        deep_curves.rounds_to_loss,
    ),
    Entry(
        "consensus-distance",
        "How far the nodes drift apart",
        "The mean squared distance of the nodes' models from their mean at the end of a round, just "
        "before averaging, against rounds. It grows with K and vanishes as the loss does: that is "
        "interpolation.",
        deep_curves.consensus_distance,
    ),
    Entry(
        "energy",
        "The energy balance: does training behave as if convex towards its solution?",
        "Above: the loss of the batches at the nodes' models (solid) and that of all images at xbar "
        "(dotted). Second row: phi_hat, what the nodes' own steps do (1 or more, "
        "dotted: as good as convex; below 0: away from the solution), and phi_total, with what averaging adds. "
        "Third: its parts, aim and noise, whose difference phi_hat is. Below: which share of the squared "
        "distance averaging and progress took, and what noise gave back. The first columns are the control, "
        "convex problems on which phi_hat is at least 1 by theorem.",
        energy.energy,
    ),
    Entry(
        "ladder",
        "What K saves, over seeds and scales",
        "Left: rounds to the target loss against K on the largest rung that is complete, with the least and "
        "the most of the seeds. Middle: rounds with one label a node over rounds with iid nodes; above 1 "
        "unlike nodes cost rounds. Right: the slope of log rounds in log K, rung by rung; -1 is a K-fold "
        "saving, 0 none.",
        ladder.ladder,
    ),
    Entry(
        "ladder-variants",
        "Plain averaging beside longer outer steps and fewer clients",
        "Training loss against rounds at one K and seed, a panel a regime: the plain mean, and what has been "
        "run beside it on the same rung. A curve further left needs fewer rounds.",
        ladder.ladder_variants,
    ),
    Entry(
        "ladder-assumptions",
        "What the theory assumes, measured along the runs",
        "Above: c, the least loss of a node over the mean loss, by which the bound for local steps (T3) "
        "measures how alike the nodes are; 1 for equal losses. Below: P/Q, the mean of the nodes' squared "
        "movements over the square of their mean movement: n = 20 where they are uncorrelated, 1 where "
        "they are equal, and the outer step that the theory allows.",
        ladder.ladder_assumptions,
    ),
    Entry(
        "ladder-ends",
        "How the loss falls in the end, and what the model is worth",
        "Left: the slope of the log loss in log T over the last three quarters, a mark a run; at -1 (dotted) it "
        "falls as 1/T. Right: the share of the test images that the last averaged model gets right. All "
        "models fit their training images; few images make a weak classifier.",
        ladder.ladder_ends,
    ),
    Entry(
        "bound-vs-measured",
        "The theorems: left side against bound, over T",
        "Theorems T1 to T6 on synthetic problems. Solid lines are the left sides, exact where a "
        "closed recursion gives them, with bands of 95% from sample paths; dashed lines are the "
        "bounds with their explicit constants. No solid line may cross its dashed one.",
        bounds.bound_vs_measured,
    ),
    Entry(
        "tightness",
        "How tight the constants are: bound over measured on the instances",
        "On instances I0 to I4 the ratio of bound to measured value converges to a constant as R "
        "grows, so the bounds lose no more than that constant. Markers are simulated, lines closed "
        "forms, dashes the limits 1, 2e, 2e, 1 and 4e.",
        orders.tightness,
    ),
    Entry(
        "bend",
        "When do local steps pay? From K = 1/c on",
        "Rounds to a fixed accuracy against K, one panel for each similarity c of the nodes. Dashed: the "
        "rounds that suffice for every convex problem with interpolation, the smaller of those of T2 and "
        "T3. Solid: the rounds that the worst instance known needs. Both are level until K is about 1/c "
        "(dotted) and fall like 1/K from there on: K local steps save a factor of about c K, and "
        "nothing where c is 0.",
        bend.bend,
    ),
    Entry(
        "rounds-to-eps",
        "Rounds to accuracy against K, convex",
        "Left: the two extremes, a heterogeneous instance on which local steps save nothing, and "
        "equal nodes, on which they save a factor K. Right: random least squares from iid to sorted "
        "nodes. Dashed lines are the rounds that the bounds need.",
        orders.rounds_to_eps,
    ),
    Entry(
        "ratio-heatmap",
        "Slack of the bounds over K and heterogeneity",
        "Bound over exact left side of T2 and T3 for every K and share of iid samples. Light is tight, "
        "dark is loose; T3 says nothing where the similarity constant c is 0.",
        orders.ratio_heatmap,
    ),
    Entry(
        "separable-logistic",
        "Separable logistic regression, where no minimiser exists",
        "T5 holds against any comparator. Measured averages with 95% intervals, the bound with the "
        "best comparator along the separating direction (dashed), and its closed form (dotted).",
        bounds.separable_logistic,
    ),
    Entry(
        "step-size",
        "The effect of the step size, up to 2/L and beyond",
        "Average losses after a fixed number of rounds against the step size, and the bounds with "
        "their factor min(1, 2 - eta L). Beyond 2/L (shaded) the theorems are silent.",
        orders.step_size,
    ),
    Entry(
        "outer-steps",
        "FedAvg as it is run: outer steps",
        "Loss against rounds at equal communication, with iid and with sorted nodes. The server moves by "
        "beta times the mean of the nodes' movements: beta = 1 is plain averaging; extrapolation by P/Q "
        "keeps its bounds (T8) and ends in one round on the instance where it is slowest; half of it is "
        "FedExP; Polyak's step uses the losses, whose least value is 0 here.",
        outer_steps.outer_steps,
    ),
    Entry(
        "outer-map",
        "Fixed local and outer steps: the exact worst case",
        "The worst last iterate over all problems of the class, for every pair of a fixed local step eta and a "
        "fixed outer step beta, as a multiple of the least on the map. Light is good. The star is the best "
        "pair, the dotted line plain averaging. No pair gets below the bound of I6.",
        outer_map.outer_map,
    ),
    Entry(
        "bend-participants",
        "The bend with client sampling",
        "Rounds to a fixed accuracy against K, as above, but with m of 8 nodes drawn every round, on the "
        "nodes of the worst instance known. The bounds are the same for every m (T7), and so are the bend "
        "and the slope beyond it; how many nodes take part moves the curve by a small factor.",
        bend.bend_participants,
    ),
    Entry(
        "baselines",
        "Local SGD and its rivals at equal communication and at equal computation",
        "Expected loss against vectors that a node sends (left) and against sample gradients a node (right), "
        "with iid nodes (top) and sorted nodes (bottom), every method at its best step size. A panel "
        "has the methods that share its budget with Local SGD, and their curves end where it is spent: "
        "lower at the end is better. SCAFFOLD sends two vectors a round.",
        baselines.baselines,
    ),
    Entry(
        "worst-case",
        "Bound, exact worst case, instance and typical problem",
        "How much of each bound is real, against K (top) and against the step size (bottom): the "
        "bound, the exact worst case over all problems of the class, the best known closed-form "
        "instance, and random least squares. Where bound and worst case coincide nothing is lost; the "
        "distance to the typical problem is what worst-case theory can't see.",
        worst_cases.worst_case,
    ),
)


def find(names: Sequence[str]) -> list[Entry]:
    """The figures of those names, in the catalogue's order; all for none.

    Raises:
        UserError: an unknown name, with the nearest known one.
    """
    known = {entry.name: entry for entry in FIGURES}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]}?" if near else ";"
            raise UserError(f"unknown figure {name!r}{hint} Known: {', '.join(known)}")
    return [entry for entry in FIGURES if not names or entry.name in names]
