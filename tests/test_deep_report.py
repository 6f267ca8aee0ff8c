"""Fits of known curves, and the small result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deep.results.files import MOST_ROWS, NODE_ROWS, log_spaced_rows, portable, write_result
from deep.results.fits import fit_curve


def curve(
    power: float, rows: int = 400, noise: float = 0.0, shift: float = 0.0, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of loss = 3 (T + shift)^-power, with log-normal noise."""
    rng = np.random.default_rng(seed)
    iterations = np.unique(np.geomspace(1, 50_000, rows).round().astype(int))
    loss = 3.0 * (iterations + shift) ** -power * np.exp(noise * rng.normal(size=len(iterations)))
    first = {
        "round": 0,
        "iteration": 0,
        "train_loss": 2.3,
        "consensus_distance": None,
        "gradient_norm": None,
        "wall_seconds": 0.0,
        "images_per_second": 0.0,
    }
    return [first] + [
        {**first, "round": int(t), "iteration": int(t), "train_loss": float(value)}
        for t, value in zip(iterations, loss, strict=True)
    ]


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
def test_loglog_slope_of_a_power_law(power: float) -> None:
    fit = fit_curve(curve(power))["loglog_slope"]
    assert fit["slope"] == pytest.approx(-power, abs=1e-9)
    assert fit["r2"] == pytest.approx(1.0)
    assert 0.25 * 50_000 <= fit["from_iteration"] < 0.26 * 50_000


def test_inverse_loss_of_one_over_t_is_a_line() -> None:
    """1/loss = (T + 500) / 3: the offset does not harm this fit."""
    fit = fit_curve(curve(1.0, shift=500.0))["inverse_loss_vs_iterations"]
    assert fit["slope"] == pytest.approx(1 / 3, rel=1e-9)
    assert fit["r2"] == pytest.approx(1.0)
    assert fit_curve(curve(2.0))["inverse_loss_vs_iterations"]["r2"] < 0.95


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(60):
        fit = fit_curve(curve(1.0, rows=3000, noise=0.2, seed=seed))["loglog_slope"]
        low, high = fit["interval"]
        assert low < fit["slope"] < high
        covered += low <= -1.0 <= high
    # Binomial(60, 0.95) lies in this range with probability 0.998.
    assert covered >= 51


def test_too_few_rows_give_no_fit() -> None:
    fits = fit_curve(curve(1.0, rows=12))
    assert fits["loglog_slope"]["slope"] is None and fits["loglog_slope"]["interval"] is None
    assert fit_curve([])["loglog_slope"]["from_iteration"] is None


def test_rows_that_are_not_finite_are_left_out() -> None:
    rows = curve(1.0)
    broken = [*rows]
    for value in (float("nan"), float("inf"), 0.0, None):
        broken.append({**rows[-1], "iteration": 60_000, "train_loss": value})
    assert fit_curve(broken) == fit_curve(rows)


def test_a_result_names_no_folder_of_the_machine() -> None:
    typed = "python -m deep.campaign a/b.toml --data '/home/me/my data/cifar10' --minutes 9"
    assert portable(typed) == "python -m deep.campaign a/b.toml --data cifar10 --minutes 9"


@pytest.mark.parametrize("rows", [1, 5, MOST_ROWS, 5000])
def test_kept_rows_hold_both_ends(rows: int) -> None:
    metrics = [{"iteration": 5 * i} for i in range(rows)]
    kept = log_spaced_rows(metrics)
    assert len(kept) <= MOST_ROWS and kept == sorted(set(kept))
    assert kept[0] == 0 and kept[-1] == rows - 1
    if rows > MOST_ROWS:
        gaps = np.diff(np.log([metrics[i]["iteration"] for i in kept[1:]]))
        # Late rows are evenly spread in the logarithm; early ones are all there.
        assert gaps[-50:].max() < 2 * gaps[-50:].min()


def run_folder(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A run folder as the round loop leaves it."""
    folder.mkdir()
    stored = {"commit": "first", "command": "python first", "config": {"regime": "iid"}}
    (folder / "config.json").write_text(json.dumps(stored))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"status": "diverged"}))
    return folder


def test_result_file_is_strict_json_and_names_the_first_commit(tmp_path: Path) -> None:
    rows = curve(1.0, rows=3000)
    rows = [{**row, "node_losses": [1.0, 2.0]} for row in rows]
    rows[-1] = {**rows[-1], "train_loss": float("nan"), "node_losses": [1.0, float("nan")]}
    folder = run_folder(tmp_path / "run", rows)
    head = {"commit": "later", "command": "python later", "data_name": "x"}
    write_result(tmp_path / "deep" / "r.json", head, folder)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "deep" / "r.json").read_text()
    result = json.loads(text, parse_constant=refuse)
    assert (result["commit"], result["command"], result["data_name"]) == (
        "first",
        "python first",
        "x",
    )
    kept = result["metrics"]
    assert len(kept) <= MOST_ROWS + NODE_ROWS and kept[-1]["train_loss"] is None
    assert sum("node_losses" in row for row in kept) <= NODE_ROWS
    assert kept[0]["node_losses"] == [1.0, 2.0] and kept[-1]["node_losses"] == [1.0, None]
    assert result["fits"] == json.loads(json.dumps(fit_curve(rows)))
    assert result["config"] == {"regime": "iid"} and result["summary"] == {"status": "diverged"}
