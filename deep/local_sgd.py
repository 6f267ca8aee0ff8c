"""The round loop: local steps, averaging, full-set evaluation, stop rule, run folder.

`run` is one run: one regime, one K. It returns what it wrote to the run folder: ``config.json``,
``metrics.jsonl``, ``summary.json`` and the checkpoint from which a killed run continues.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deep.checkpoint import (
    Checkpoint,
    append_line,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    write_atomically,
)
from deep.data.partition import draw_batches
from deep.distributed import Communicator
from deep.engines.base import Engine
from theory.support.errors import UserError

#: Share of a run's arithmetic that evaluation may take, and the cost of a forward pass in
#: units of a training pass (forward, and a backward twice as dear).
EVALUATION_SHARE, FORWARD_COST = 0.10, 1.0 / 3.0
#: Consecutive evaluations are at least this factor apart, so a long run has few of them.
SPACING = 1.002
#: A loss above this multiple of the loss of guessing, ln(classes), counts as diverged.
DIVERGED = 100.0


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run; two equal configurations may be resumed.

    ``target_loss`` 0 means: run all ``rounds``. ``subset`` None means all images.
    """

    regime: str
    local_steps: int
    rounds: int
    target_loss: float
    step_size: float
    n_nodes: int
    batch_size: int
    similarity: float
    width: int
    subset: int | None
    seed: int
    engine: str
    precision: str
    data_name: str
    data_fingerprint: str

    def __post_init__(self) -> None:
        for name, least in (
            ("local_steps", 1),
            ("rounds", 1),
            ("batch_size", 1),
            ("n_nodes", 1),
            ("width", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least {least}, "
                    f"got {getattr(self, name)}"
                )
        if not (math.isfinite(self.step_size) and self.step_size > 0):
            raise UserError(f"--step-size must be positive and finite, got {self.step_size}")
        if not (math.isfinite(self.target_loss) and self.target_loss >= 0):
            raise UserError(f"--target-loss must be at least 0, got {self.target_loss}")


@dataclass(frozen=True)
class Snapshot:
    """What a progress display is told after every round."""

    round: int
    loss: float
    images_per_second: float
    rounds_left: float
    seconds_left: float


@dataclass
class _Clock:
    """Seconds of the run over all its processes, and the part spent on evaluation."""

    before: float
    evaluation: float
    started: float

    def seconds(self) -> float:
        return self.before + time.perf_counter() - self.started


def evaluation_is_due(config: Config, n_images: int, done: int, last: int, round_: int) -> bool:
    """Whether to evaluate after ``round_`` rounds, when ``done`` are done, the last at ``last``.

    Counts images, not seconds, so that a resumed run evaluates at the same rounds.
    """
    if round_ >= config.rounds:
        return True
    trained = round_ * config.n_nodes * config.local_steps * config.batch_size
    spent = (done + 1) * n_images * FORWARD_COST
    return spent <= EVALUATION_SHARE * trained and round_ >= last * SPACING


def rounds_to_go(config: Config, metrics: list[dict[str, Any]]) -> float:
    """Rounds left: to the limit, or to the target if loss ~ C / round^p goes on as of late."""
    last = metrics[-1]
    limit = config.rounds - last["round"]
    if config.target_loss <= 0 or last["round"] < 10 or not last["train_loss"] > 0:
        return limit
    earlier = next(row for row in metrics if row["round"] >= last["round"] / 2)
    if earlier["round"] == last["round"] or last["train_loss"] >= earlier["train_loss"]:
        return limit
    power = math.log(earlier["train_loss"] / last["train_loss"]) / math.log(
        last["round"] / max(earlier["round"], 1)
    )
    ratio = math.log(last["train_loss"] / config.target_loss) / power
    return min(limit, last["round"] * math.expm1(min(ratio, 50.0))) if ratio > 0 else 0.0


def run(
    config: Config,
    engine: Engine,
    shards: list[np.ndarray],
    start: np.ndarray,
    folder: Path,
    *,
    checkpoint_minutes: float = 5.0,
    provenance: dict[str, Any] | None = None,
    report: Callable[[Snapshot], None] | None = None,
    observe: Callable[[dict[str, Any]], None] | None = None,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Run Local SGD as ``config`` says, or continue what ``folder`` holds; return the summary.

    ``shards``: the images of each node; ``start`` [P]: the initial model. ``report`` hears of every
    round, ``observe`` of every row of metrics. After ``seconds`` the run is saved with the status
    ``unfinished``, and the next call goes on from there. Raises `UserError` when the folder belongs to
    another configuration or cannot be written.
    """
    communicator = engine.communicator
    writer = communicator.rank == 0
    identity = asdict(config)
    state = _open(folder, config, identity, provenance, communicator, writer)
    clock = _Clock(
        state.seconds if state else 0.0,
        state.evaluation_seconds if state else 0.0,
        time.perf_counter(),
    )
    metrics = state.metrics if state else []
    engine.set_model(state.model if state else start)
    round_ = state.round if state else 0
    nodes = communicator.nodes(config.n_nodes)
    per_round = config.n_nodes * config.local_steps * config.batch_size
    saved, mark = time.perf_counter(), (time.perf_counter(), round_)
    deadline = saved + seconds
    rate = left = 0.0

    if not metrics:
        metrics.append(_row(config, 0, engine.mean_loss(), None, None, clock.seconds(), 0.0))
        if writer:
            _rewrite_metrics(folder, metrics)
    status = _status(config, metrics[-1], engine)
    while status is None:
        round_ += 1
        due = evaluation_is_due(
            config, len(engine.data), len(metrics) - 1, metrics[-1]["round"], round_
        )
        batches = draw_batches(
            shards,
            nodes,
            (round_ - 1) * config.local_steps,
            config.local_steps,
            config.batch_size,
            config.seed,
        )
        statistics = engine.round(batches, measure=due)
        if due:
            assert statistics is not None
            now = time.perf_counter()
            rate = (round_ - mark[1]) * per_round / max(now - mark[0], 1e-9)
            loss = engine.mean_loss()
            clock.evaluation += time.perf_counter() - now
            mark = (time.perf_counter(), round_)
            metrics.append(
                _row(
                    config,
                    round_,
                    loss,
                    statistics.consensus_distance,
                    statistics.gradient_norm,
                    clock.seconds(),
                    rate,
                )
            )
            if writer:
                append_line(folder / "metrics.jsonl", json.dumps(metrics[-1]))
            if observe:
                observe(metrics[-1])
            status = _status(config, metrics[-1], engine)
            left = rounds_to_go(config, metrics)
        if report:
            wait = clock.seconds() / max(round_, 1) * left
            report(Snapshot(round_, metrics[-1]["train_loss"], rate, left, wait))
        now = time.perf_counter()
        if status is None and seconds < math.inf and communicator.agree(now >= deadline):
            status = "unfinished"
        late = now - saved >= 60.0 * checkpoint_minutes
        if communicator.agree(late) and status is None:
            if writer:
                _save(folder, identity, round_, engine, metrics, clock)
            saved = time.perf_counter()
    summary = _summary(status, metrics, clock, round_ * per_round)
    if writer:
        _save(folder, identity, round_, engine, metrics, clock)
        write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode() + b"\n")
    return summary


def _open(
    folder: Path,
    config: Config,
    identity: dict[str, Any],
    provenance: dict[str, Any] | None,
    communicator: Communicator,
    writer: bool,
) -> Checkpoint | None:
    """Make or check the run folder; the checkpoint to continue from, if there is one."""
    # Rank 0 alone reads: on another machine the folder may not exist, or hold an older round.
    state = load_checkpoint(folder, identity) if writer else None
    if writer:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the run folder {folder}: {error.strerror}") from error
        if not (folder / "config.json").exists():
            text = json.dumps({**(provenance or {}), "config": identity}, indent=1)
            write_atomically(folder / "config.json", text.encode() + b"\n")
        remove_leftovers(folder)
        # Rows that a killed run wrote after its last checkpoint come again, to the same digits.
        _rewrite_metrics(folder, state.metrics if state else [])
    shared: Checkpoint | None = communicator.share(state)
    return shared


def _rewrite_metrics(folder: Path, metrics: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in metrics)
    write_atomically(folder / "metrics.jsonl", text.encode())


def _row(
    config: Config,
    round_: int,
    loss: float,
    consensus: float | None,
    gradient: float | None,
    seconds: float,
    rate: float,
) -> dict[str, Any]:
    return {
        "round": round_,
        "iteration": round_ * config.local_steps,
        "train_loss": loss,
        "consensus_distance": consensus,
        "gradient_norm": gradient,
        "wall_seconds": round(seconds, 3),
        "images_per_second": round(rate, 1),
    }


def _status(config: Config, row: dict[str, Any], engine: Engine) -> str | None:
    """How the run ends after this row, or None to go on."""
    loss = row["train_loss"]
    if not math.isfinite(loss) or loss > DIVERGED * math.log(engine.architecture.classes):
        return "diverged"
    if loss < config.target_loss:
        return "reached"
    return "round_limit" if row["round"] >= config.rounds else None


def _save(
    folder: Path,
    identity: dict[str, Any],
    round_: int,
    engine: Engine,
    metrics: list[dict[str, Any]],
    clock: _Clock,
) -> None:
    state = Checkpoint(round_, engine.model(), metrics, clock.seconds(), clock.evaluation)
    save_checkpoint(folder, identity, state)


def _summary(
    status: str, metrics: list[dict[str, Any]], clock: _Clock, images: int
) -> dict[str, Any]:
    """What the run came to; ``images`` were trained on. Rounds are those of the last row."""
    last = metrics[-1]
    reached = status == "reached"
    return {
        "status": status,
        "reached_target": reached,
        "rounds": last["round"],
        "iterations": last["iteration"],
        "rounds_to_target": last["round"] if reached else None,
        "iterations_to_target": last["iteration"] if reached else None,
        "final_train_loss": last["train_loss"],
        "lowest_train_loss": min(row["train_loss"] for row in metrics),
        "wall_seconds": round(clock.seconds(), 1),
        "evaluation_share": round(clock.evaluation / max(clock.seconds(), 1e-9), 4),
        "images_per_second": round(images / max(clock.seconds() - clock.evaluation, 1e-9), 1),
    }
