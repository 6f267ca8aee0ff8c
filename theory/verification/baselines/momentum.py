"""Momentum at the server (FedAvgM; Hsu, Qi, Brown 2019): v <- beta v + mean change, x <- x + v."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theory.simulation.variants import Reports, Variant
from theory.support import numbers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ServerMomentum(Variant):
    """Local SGD whose server keeps a velocity.

    Attributes:
        factor: beta in [0, 1); 0 is Local SGD.

    Raises:
        UserError: a factor outside its range.
    """

    factor: float = 0.9

    def __post_init__(self) -> None:
        numbers.real("factor", self.factor, least=0, below=1)

    @property
    def name(self) -> str:  # type: ignore[override]
        """Such as "server momentum 0.9"."""
        return f"server momentum {self.factor:g}"

    def begin(self, start: Array, n_nodes: int) -> Any:
        """See :class:`Variant`."""
        return {"velocity": np.zeros_like(start)}

    def combine(self, model: Array, reports: Reports) -> Array:
        """See :class:`Variant`."""
        reports.state["velocity"] = self.factor * reports.state["velocity"] + reports.mean
        return model + reports.state["velocity"]
