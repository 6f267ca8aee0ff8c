"""The round loop: local steps, averaging, full-set evaluation, stop rule, run folder.

`run` is one run: one regime, one K. It returns what it wrote to the run folder: ``config.json``,
``metrics.jsonl``, ``summary.json`` and the checkpoint from which a killed run continues.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deep import run_folder
from deep.checkpoint import Checkpoint, append_line, save_checkpoint
from deep.config import Config
from deep.data.cifar10 import Images
from deep.data.partition import draw_batches
from deep.energy_record import MODELS, Recorder, is_complete, windows_of, write_balance
from deep.engines.base import Engine, RoundStatistics
from deep.engines.energy import EnergyTerms
from deep.participants import draw_participants
from deep.schedule import (
    Row,
    evaluation_is_due,
    images_a_round,
    rounds_to_go,
    status_after,
    test_is_due,
    without_the_end,
)
from deep.stopping import Stopped, stop_requests
from theory.support.errors import UserError

#: The first checkpoint of a process comes at the latest after so many seconds.
FIRST_CHECKPOINT = 60.0
_GO_ON, _SAVE, _OUT_OF_TIME, _STOP = range(4)


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


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(
    config: Config,
    engine: Engine,
    shards: list[np.ndarray],
    start: np.ndarray,
    folder: Path,
    *,
    test: Images | None = None,
    checkpoint_minutes: float = 5.0,
    provenance: dict[str, Any] | None = None,
    report: Callable[[Snapshot], None] | None = None,
    observe: Callable[[Row], None] | None = None,
    warn: Callable[[str], None] = _to_stderr,
    seconds: float = math.inf,
    energy: bool = False,
) -> dict[str, Any]:
    """Run Local SGD as ``config`` says, or continue what ``folder`` holds; return the summary.

    ``shards``: the images of each node; ``start`` [P]: the initial model; ``test``: images on which to
    measure now and then. ``report`` hears of every round, ``observe`` of every row of metrics, ``warn`` of
    what a user should know. After ``seconds`` the run is saved with the status ``unfinished``, and the next
    call goes on from there; a run that had ended goes on when ``config`` wants more rounds or a smaller
    loss. ``energy`` records the energy balance, which changes no other number; what began with a record goes
    on with it, what began without goes on without. Raises `UserError` when the folder belongs to another
    configuration, went further than this one wants, is in use or cannot be written;
    `Stopped` after Ctrl-C or SIGTERM.
    """
    communicator = engine.communicator
    writer = communicator.rank == 0
    identity = asdict(config)
    with (
        run_folder.hold(folder, identity) if writer else nullcontext(),
        stop_requests() as request,
    ):
        classes, n_test = engine.architecture.classes, len(test) if test else 0
        # Rank 0 alone reads: on another machine the folder may not exist, or hold an older round.
        state: Checkpoint | None = None
        if writer:
            state = run_folder.checkpoint_of(folder, identity, warn)
            if state is not None:
                state = _continued(config, folder, state, len(engine.data), n_test, classes)
                state = _with_record(folder, state, energy, warn)
            run_folder.begin(folder, identity, provenance, state.metrics if state else [])
            write_balance(folder, None)
        state = communicator.share(state)
        clock = _Clock(
            state.seconds if state else 0.0,
            state.evaluation_seconds if state else 0.0,
            time.perf_counter(),
        )
        metrics = state.metrics if state else []
        engine.set_model(state.model if state else start)
        engine.set_shards(shards)
        round_ = state.round if state else 0
        recorder = None
        if state.energy if state else energy:
            recorder = Recorder(
                folder if writer else None, state.energy if state else None, engine.model()
            )
        if not metrics:
            metrics.append(_row(config, engine, 0, None, clock, 0.0))
            if writer:
                append_line(folder / "metrics.jsonl", json.dumps(metrics[0]))
        nodes = communicator.nodes(config.n_nodes)
        per_round = images_a_round(config)
        saved = first = time.perf_counter()
        mark = (first, round_)
        wait = min(60.0 * checkpoint_minutes, FIRST_CHECKPOINT)
        rate = left = 0.0
        status = status_after(config, metrics[-1], classes)
        while status is None:
            round_ += 1
            last = metrics[-1]["round"]
            due = evaluation_is_due(config, len(engine.data), len(metrics) - 1, last, round_)
            terms = recorder.terms if recorder else None
            statistics = _train(config, engine, shards, nodes, round_, due, terms)
            if recorder:
                recorder.after(round_, engine.model)
            if due:
                now = time.perf_counter()
                rate = (round_ - mark[1]) * per_round / max(now - mark[0], 1e-9)
                row = _row(config, engine, round_, statistics, clock, rate)
                status = status_after(config, row, classes)
                if test and (status or test_is_due(config, n_test, metrics, round_)):
                    loss, accuracy = engine.evaluate(test)
                    row |= {"test_loss": loss, "test_accuracy": accuracy}
                clock.evaluation += time.perf_counter() - now
                mark = (time.perf_counter(), round_)
                metrics.append(row)
                if writer:
                    append_line(folder / "metrics.jsonl", json.dumps(row))
                if observe:
                    observe(row)
                left = rounds_to_go(config, metrics)
            if report:
                to_end = clock.seconds() / max(round_, 1) * left
                report(Snapshot(round_, metrics[-1]["train_loss"], rate, left, to_end))
            if status is not None:
                break
            now = time.perf_counter()
            what = _GO_ON
            if request.wanted:
                what = _STOP
            elif now - first >= seconds:
                what = _OUT_OF_TIME
            elif now - saved >= wait:
                what = _SAVE
            what = communicator.number(what)
            if what == _OUT_OF_TIME:
                status = "unfinished"
            elif what != _GO_ON:
                if writer:
                    _save(folder, identity, round_, engine, metrics, clock, recorder)
                saved, wait = time.perf_counter(), 60.0 * checkpoint_minutes
            if what == _STOP:
                if writer:
                    run_folder.write_summary(
                        folder, _summary("unfinished", metrics, clock, round_ * per_round)
                    )
                raise Stopped
        summary = _summary(status, metrics, clock, round_ * per_round)
        if writer:
            state = _save(folder, identity, round_, engine, metrics, clock, recorder)
            if status != "unfinished":
                write_balance(
                    folder, windows_of(folder, state, config.step_size, config.local_steps)
                )
            run_folder.write_summary(folder, summary)
        return summary


def _train(
    config: Config,
    engine: Engine,
    shards: list[np.ndarray],
    mine: list[int],
    round_: int,
    measure: bool,
    energy: EnergyTerms | None,
) -> RoundStatistics | None:
    """Round number ``round_`` (from 1) of the nodes ``mine`` of this process."""
    chosen = draw_participants(
        config.n_nodes, config.participants, round_ - 1, config.seed, config.fixed_participants
    )
    active = None if chosen is None else [int(node) for node in chosen]
    batches = draw_batches(
        shards,
        mine if active is None else [node for node in mine if node in active],
        (round_ - 1) * config.local_steps,
        config.local_steps,
        config.batch_size,
        config.seed,
        replacement=config.batches == "with-replacement",
    )
    return engine.round(
        batches, measure=measure, nodes=active, outer_step=config.outer_step, energy=energy
    )


def _continued(
    config: Config, folder: Path, state: Checkpoint, n_images: int, n_test: int, classes: int
) -> Checkpoint:
    """The checkpoint, with the rows that this configuration would have written until there."""
    metrics = state.metrics
    if state.round > config.rounds:
        raise UserError(
            f"--rounds is {config.rounds}, allowed: {state.round} or more, which {folder} holds"
        )
    for row in metrics[:-1]:
        if status_after(config, row, classes) == "reached":
            raise UserError(
                f"--target-loss is {config.target_loss:g}, allowed: less, because {folder} went on to "
                f"{metrics[-1]['train_loss']:.3g}; or choose another --out"
            )
    if state.round == metrics[-1]["round"] and status_after(config, metrics[-1], classes) is None:
        metrics = without_the_end(config, metrics, n_images, n_test)
    return replace(state, metrics=metrics)


def _with_record(
    folder: Path, state: Checkpoint, energy: bool, warn: Callable[[str], None]
) -> Checkpoint:
    """The checkpoint, less a record of the energy balance of which the models are gone."""
    if state.energy is None:
        if energy:
            warn(f"{folder} began without a record of its energy balance and goes on without")
        return state
    if is_complete(folder, state):
        return state
    warn(f"{folder / MODELS} is missing or cut short: the energy balance is not recorded")
    return replace(state, energy=None)


def _significant(value: float, digits: int = 6) -> float:
    return float(f"{value:.{digits}g}")


def _row(
    config: Config,
    engine: Engine,
    round_: int,
    statistics: RoundStatistics | None,
    clock: _Clock,
    rate: float,
) -> Row:
    """One row of metrics, see deep/results/README.md; ``statistics`` None before the first round."""
    losses = engine.losses()
    row: Row = {
        "round": round_,
        "iteration": round_ * config.local_steps,
        "train_loss": losses.mean,
        "least_loss_ratio": _significant(float(losses.nodes.min()) / losses.mean)
        if losses.mean
        else None,
        "node_losses": [_significant(float(loss), 4) for loss in losses.nodes],
        "weight_norm": _significant(engine.weight_norm(), 8),
    }
    if statistics is None:
        names = ("consensus_distance", "gradient_norm", "mean_square", "square_mean", "local_loss")
        row |= dict.fromkeys((*names, "movement_ratio", "outer_step"))
    else:
        p, q = statistics.mean_square, statistics.square_mean
        row |= {
            "consensus_distance": statistics.consensus_distance,
            "gradient_norm": statistics.gradient_norm,
            "mean_square": _significant(p, 8),
            "square_mean": _significant(q, 8),
            "local_loss": _significant(statistics.local_loss, 8),
            "movement_ratio": _significant(p / q) if q else None,
            "outer_step": _significant(statistics.outer_step),
        }
    return row | {
        "test_loss": None,
        "test_accuracy": None,
        "wall_seconds": round(clock.seconds(), 3),
        "images_per_second": round(rate, 1),
    }


def _save(
    folder: Path,
    identity: dict[str, Any],
    round_: int,
    engine: Engine,
    metrics: list[Row],
    clock: _Clock,
    recorder: Recorder | None,
) -> Checkpoint:
    state = Checkpoint(
        round_,
        engine.model(),
        metrics,
        clock.seconds(),
        clock.evaluation,
        recorder.record() if recorder else None,
    )
    save_checkpoint(folder, identity, state)
    return state


def _summary(status: str, metrics: list[Row], clock: _Clock, images: int) -> dict[str, Any]:
    """What the run came to; ``images`` were trained on. Rounds are those of the last row."""
    last = metrics[-1]
    reached = status == "reached"
    tested = [row for row in metrics if row["test_loss"] is not None]
    return {
        "status": status,
        "reached_target": reached,
        "rounds": last["round"],
        "iterations": last["iteration"],
        "rounds_to_target": last["round"] if reached else None,
        "iterations_to_target": last["iteration"] if reached else None,
        "final_train_loss": last["train_loss"],
        "lowest_train_loss": min(row["train_loss"] for row in metrics),
        "final_test_loss": tested[-1]["test_loss"] if tested else None,
        "final_test_accuracy": tested[-1]["test_accuracy"] if tested else None,
        "wall_seconds": round(clock.seconds(), 1),
        "evaluation_share": round(clock.evaluation / max(clock.seconds(), 1e-9), 4),
        "images_per_second": round(images / max(clock.seconds() - clock.evaluation, 1e-9), 1),
    }
