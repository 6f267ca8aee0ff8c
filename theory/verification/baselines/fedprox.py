"""FedProx (Li et al. 2020): a node minimises its loss plus (mu/2)||y - x||^2, x where the round began.

Here, as in the paper's experiments, inexactly: by K steps y <- y - eta (g_i(y) + mu (y - x)). The pull
keeps the nodes together where their minimisers differ. Under A2 they do not, so it can only shorten steps
that Lemma 1 shows to be towards x*; with mu = 0 it is Local SGD.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.simulation.variants import LocalStep, Variant
from theory.support import numbers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FedProx(Variant):
    """FedProx with all nodes.

    Attributes:
        strength: mu, at least 0, absolute (not in units of L).

    Raises:
        UserError: a strength outside its range.
    """

    strength: float

    def __post_init__(self) -> None:
        numbers.real("strength", self.strength, least=0)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Such as "FedProx 0.1"."""
        return f"FedProx {self.strength:g}"

    def local_step(self, models: Array, gradients: Array, step: LocalStep) -> Array:
        """See :class:`Variant`."""
        return models - step.step_size * (gradients + self.strength * (models - step.start))
