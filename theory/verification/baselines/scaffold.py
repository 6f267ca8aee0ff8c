"""SCAFFOLD (Karimireddy et al. 2020, Algorithm 1): local steps corrected by control variates.

Node i keeps c_i, the server c, their mean over all nodes. A local step is

    y_i <- y_i - eta (g_i(y_i) - c_i + c),

and after K of them, x being where the round began,

    option I:   c_i+ = grad f_i(x), at the price of one more pass over the node's samples;
    option II:  c_i+ = c_i - c + (x - y_i)/(K eta), the mean of the gradients that the steps used.

The server moves by the mean of the y_i - x, and c by (1/n) sum_{i in M} (c_i+ - c_i). Both kinds of
vector are sent, so a round costs twice what one of Local SGD costs. All variates are 0 at first, so the
first round is one of Local SGD.

What it gains under interpolation, and what not
-----------------------------------------------
It was made to remove a bias: with K > 1 the fixed point of Local SGD is not the minimiser of f when the
nodes' minimisers differ. Under A2 they do not differ: every gradient vanishes at x*, the variates tend
to 0 with them, and x* is the fixed point of Local SGD as of SCAFFOLD, for every K and eta. So there is no
bias to remove, nor is there noise at x* to be reduced.
What is left is the way there. The correction makes every node walk along the mean gradient of all nodes,
also in directions that its own samples do not see; on I1, where K local steps of Local SGD are worth one,
they are worth nearly K.
What it loses is Lemma 1: a corrected step may move a node away from x*, so T1 to T4 do not cover it, nor
any step size up to 2/L. In a direction that a node does not see the same mean gradient is added K times,
which overshoots unless K eta is of the order of 1 over the curvature of f there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.simulation.variants import FedAvg, LocalStep, Nodes, Reports, Round, Variant
from theory.support import numbers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scaffold(Variant):
    """SCAFFOLD with the server's step 1, as in the experiments of its paper.

    Attributes:
        node_gradients: grad f_i at node i's model, (n, d) to (n, d), as a problem's method of that name;
            given, it is option I, otherwise option II.
        participants: m of the n nodes a round; all of them if not given.
    """

    node_gradients: Callable[[Array], Array] | None = None
    participants: int | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        """ "SCAFFOLD I" or "SCAFFOLD II", and how many nodes take part."""
        option = "SCAFFOLD II" if self.node_gradients is None else "SCAFFOLD I"
        return option if self.participants is None else f"{option}, {self.participants} nodes"

    def begin(self, start: Array, n_nodes: int) -> Any:
        """See :class:`Variant`: c, (d,), and the c_i, (n, d)."""
        return {"server": np.zeros_like(start), "nodes": np.zeros((n_nodes, start.size))}

    def select(self, round: Round) -> Nodes:
        """See :class:`Variant`; raises UserError for participants outside 1 to n."""
        if self.participants is not None:
            numbers.whole("participants", self.participants, 1, round.n_nodes)
        return FedAvg(self.participants).select(round)

    def local_step(self, models: Array, gradients: Array, step: LocalStep) -> Array:
        """See :class:`Variant`."""
        correction = step.state["server"] - step.state["nodes"][step.nodes]
        return models - step.step_size * (gradients + correction)

    def combine(self, model: Array, reports: Reports) -> Array:
        """See :class:`Variant`."""
        own, server = reports.state["nodes"], reports.state["server"]
        before = own[reports.nodes]
        if self.node_gradients is None:
            taken = reports.changes / (reports.local_steps * reports.step_size)
            after = before - server - taken
        else:
            after = self.node_gradients(np.tile(model, (len(own), 1)))[reports.nodes]
        own[reports.nodes] = after
        reports.state["server"] = server + (after - before).sum(axis=0) / len(own)
        return super().combine(model, reports)
