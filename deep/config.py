"""What decides the numbers of a run, and where its values may lie."""

from __future__ import annotations

from dataclasses import dataclass

from deep.data.cifar10 import PIXELS
from deep.data.partition import REGIMES
from theory.support.errors import UserError
from theory.support.numbers import MOST_SEED, choice, real, whole

BATCHES = ("without-replacement", "with-replacement")
#: Outer steps that a round works out for itself; see `deep.engines.base`.
OUTER_STEPS = ("extrapolated", "polyak")
#: Fields that only say when a run ends, or how its data are called: a folder may change them.
OPEN_ENDED = ("rounds", "target_loss", "data_name")


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run; a folder is resumed when all but the end agree.

    ``target_loss`` 0 means: run all ``rounds``. ``subset`` None means all images, ``participants``
    None all nodes. ``shards_per_node`` belongs to the regime ``shards`` and ``similarity`` to ``mixed``;
    both are None elsewhere. ``outer_step`` is a number (beta) or one of `OUTER_STEPS`.
    Raises `UserError` for a value that is not allowed.
    """

    regime: str
    local_steps: int
    rounds: int
    target_loss: float
    step_size: float
    n_nodes: int
    batch_size: int
    width: int
    subset: int | None
    seed: int
    shards_per_node: int | None = None
    similarity: float | None = None
    norm_affine: bool = False
    pixels: str = "centred"
    batches: str = "without-replacement"
    participants: int | None = None
    fixed_participants: bool = False
    outer_step: float | str = 1.0
    engine: str = "auto"
    precision: str = "float32"
    data_name: str = ""
    data_fingerprint: str = ""

    def __post_init__(self) -> None:
        for name, least, most in (
            ("local_steps", 1, None),
            ("rounds", 1, None),
            ("n_nodes", 1, None),
            ("batch_size", 1, None),
            ("width", 1, None),
            ("subset", 1, None),
            ("seed", 0, MOST_SEED),
            ("shards_per_node", 1, None),
            ("participants", 1, self.n_nodes),
        ):
            value = getattr(self, name)
            if value is not None:
                whole(option(name), value, least, most)
        choice("--regime", self.regime, REGIMES)
        choice("--pixels", self.pixels, PIXELS)
        choice("--batches", self.batches, BATCHES)
        real("--step-size", self.step_size, above=0)
        real("--target-loss", self.target_loss, least=0)
        if self.similarity is not None:
            real("--similarity", self.similarity, least=0, most=1)
        if self.fixed_participants and self.participants is None:
            raise UserError("--fixed-participants is set, allowed: only with --participants")
        if isinstance(self.outer_step, str):
            choice("--outer-step", self.outer_step, ("a positive number", *OUTER_STEPS))
        else:
            real("--outer-step", self.outer_step, above=0)
        if self.regime == "shards" and self.subset is not None and self.shards_per_node:
            pieces = self.n_nodes * self.shards_per_node
            if self.subset % pieces:
                raise UserError(
                    f"--shards-per-node is {self.shards_per_node}, allowed: what makes {pieces} "
                    f"(nodes times shards) a divisor of the {self.subset} images"
                )


def option(field: str) -> str:
    """The option of a field of `Config`, as a user types it."""
    return "--nodes" if field == "n_nodes" else f"--{field.replace('_', '-')}"
