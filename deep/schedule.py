"""When to evaluate, when a run ends, and how long it may still take.

Everything counts images and rounds, never seconds, so that a resumed run does the same at the same rounds.
"""

from __future__ import annotations

import math
from typing import Any

from deep.config import Config

#: Shares of a run's arithmetic that evaluation on the training and on the test set may take, and the cost
#: of a forward pass in units of a training pass (forward, and a backward twice as dear).
EVALUATION_SHARE, TEST_SHARE, FORWARD_COST = 0.10, 0.02, 1.0 / 3.0
#: Consecutive evaluations are at least this factor of rounds apart, so a long run has few of them.
SPACING, TEST_SPACING = 1.002, 1.02
#: A loss above this multiple of the loss of guessing, ln(classes), counts as diverged.
DIVERGED = 100.0

Row = dict[str, Any]


def images_a_round(config: Config) -> int:
    """Images on which all participants of a round train."""
    return (config.participants or config.n_nodes) * config.local_steps * config.batch_size


def evaluation_is_due(config: Config, n_images: int, done: int, last: int, round_: int) -> bool:
    """Whether to evaluate after ``round_`` rounds, when ``done`` are done, the last at ``last``."""
    return round_ >= config.rounds or _fits(
        config, n_images, done, last, round_, EVALUATION_SHARE, SPACING
    )


def test_is_due(config: Config, n_test: int, metrics: list[Row], round_: int) -> bool:
    """Whether to look at the test set too, in an evaluation after ``round_`` rounds."""
    tested = [row["round"] for row in metrics if row["test_loss"] is not None]
    last = tested[-1] if tested else 0
    return _fits(config, n_test, len(tested), last, round_, TEST_SHARE, TEST_SPACING)


def _fits(
    config: Config, n_images: int, done: int, last: int, round_: int, share: float, spacing: float
) -> bool:
    spent = (done + 1) * n_images * FORWARD_COST
    return spent <= share * round_ * images_a_round(config) and round_ >= last * spacing


def status_after(config: Config, row: Row, classes: int) -> str | None:
    """How the run ends after this row of metrics, or None to go on."""
    loss = row["train_loss"]
    if not math.isfinite(loss) or loss > DIVERGED * math.log(classes):
        return "diverged"
    if loss < config.target_loss:
        return "reached"
    return "round_limit" if row["round"] >= config.rounds else None


def without_the_end(config: Config, metrics: list[Row], n_images: int, n_test: int) -> list[Row]:
    """The rows less what only the end of a shorter run added: a run made longer is as if always so long."""
    *before, last = metrics
    if not before:
        return metrics
    if not evaluation_is_due(config, n_images, len(before) - 1, before[-1]["round"], last["round"]):
        return before
    if n_test and not test_is_due(config, n_test, before, last["round"]):
        last = {**last, "test_loss": None, "test_accuracy": None}
    return [*before, last]


def rounds_to_go(config: Config, metrics: list[Row]) -> float:
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
