"""The ladder of deep runs, from a few minutes to the paper's network: its rungs and what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from figures.analysis.sources import Sources

LADDER = "deep/results/ladder/*.json"
LADDER_COMMAND = "python -m deep.campaign deep/campaigns/ladder.toml --data data"
#: The K and regimes that a rung must have reached to stand for the experiment.
CORE = tuple((regime, k) for regime in ("iid", "one shard") for k in (1, 5, 20))
#: Fields of a configuration that a plain run leaves at these values.
_PLAIN: dict[str, Any] = {
    "participants": None,
    "fixed_participants": False,
    "outer_step": 1.0,
    "norm_affine": False,
    "pixels": "centred",
    "batches": "without-replacement",
}
_SHARDS = {1: "one shard", 2: "two shards"}
ORDER = ("iid", "mixed", "two shards", "one shard", "pathological", "sorted")


@dataclass(frozen=True, order=True)
class Rung:
    """What all runs of a rung share: width, images (0: all of them), step size, experiment."""

    width: int
    images: int
    step_size: float
    experiment: str

    @property
    def label(self) -> str:
        """Width, images and step size."""
        images = f"{self.images:,}" if self.images else "all"
        return f"width {self.width}, {images} images, step {self.step_size:g}"


@dataclass(frozen=True)
class Run:
    """A run of the ladder: its name, and its result file."""

    name: str
    result: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """Of the result file."""
        config: dict[str, Any] = self.result["config"]
        return config

    @property
    def summary(self) -> dict[str, Any]:
        """Of the result file."""
        summary: dict[str, Any] = self.result["summary"]
        return summary

    @property
    def rung(self) -> Rung:
        """Where it stands on the ladder."""
        c = self.config
        experiment = "to-loss" if c["target_loss"] else "fixed-rounds"
        return Rung(c["width"], c["subset"] or 0, c["step_size"], experiment)

    @property
    def regime(self) -> str:
        """ "iid", "one shard", "two shards", ...: how the nodes' data differ."""
        return regime_of(self.config)

    @property
    def local_steps(self) -> int:
        """K."""
        return int(self.config["local_steps"])

    @property
    def seed(self) -> int:
        """Of all its random numbers."""
        return int(self.config["seed"])

    @property
    def variant(self) -> str:
        """What is not plain Local SGD in the first author's set-up; empty for that."""
        c, parts = self.config, []
        if c["participants"]:
            fixed = "the same " if c["fixed_participants"] else ""
            parts.append(f"{fixed}{c['participants']} of {c['n_nodes']} nodes")
        if c["outer_step"] != 1.0:
            word = c["outer_step"]
            parts.append(f"{word} outer step" if isinstance(word, str) else f"outer step {word:g}")
        parts += [
            f"{name.replace('_', ' ')} {c[name]}"
            for name in ("norm_affine", "pixels", "batches")
            if c[name] != _PLAIN[name]
        ]
        return ", ".join(parts)

    @property
    def is_plain(self) -> bool:
        """Whether it is plain Local SGD in the first author's set-up."""
        return not self.variant

    @property
    def rounds(self) -> int | None:
        """To the target loss; None where it was not reached."""
        found: int | None = self.summary["rounds_to_target"]
        return found

    @property
    def place(self) -> tuple[Any, ...]:
        """For sorting: rung, plain runs first, regime, K, seed."""
        place = ORDER.index(self.regime) if self.regime in ORDER else len(ORDER)
        return self.rung, self.variant, place, self.local_steps, self.seed


def regime_of(config: dict[str, Any]) -> str:
    """The regime of a run's configuration in words; shards by how many a node has."""
    if config["regime"] != "shards":
        return str(config["regime"])
    count = config["shards_per_node"]
    return _SHARDS.get(count, f"{count} shards")


def ladder_runs(sources: Sources) -> list[Run]:
    """Every run that has a result file, finished or not, in the ladder's order; none is no error."""
    if not sources.match(LADDER):
        return []
    found = sources.read_all(LADDER, LADDER_COMMAND)
    return sorted((Run(PurePath(p).stem, r) for p, r in found.items()), key=lambda r: r.place)


def complete_rung(runs: Iterable[Run], experiment: str) -> Rung | None:
    """The largest rung whose plain runs of seed 0 have all of CORE; None if there is none yet.

    To a target loss they must have reached it, with fixed rounds have done all of them.
    """
    done: dict[Rung, set[tuple[str, int]]] = {}
    for run in runs:
        ended = run.rounds if experiment == "to-loss" else run.summary["status"] == "round_limit"
        if run.rung.experiment == experiment and run.is_plain and not run.seed and ended:
            done.setdefault(run.rung, set()).add((run.regime, run.local_steps))
    return max((rung for rung, have in done.items() if have >= set(CORE)), default=None)
