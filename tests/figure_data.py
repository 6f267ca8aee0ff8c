"""Small result files with known content, for the tests of figures and of the record."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from figures.analysis.energy import CONTROL_PATH
from figures.analysis.outer_map import OUTER_PATH
from figures.analysis.places import ROOT
from figures.analysis.worst_cases import WORST_CASE_PATH
from theory import energy
from theory.support.command import run_command
from theory.support.energy import Windows, as_rows
from theory.support.files import write_json, write_text
from theory.support.provenance import provenance
from theory.theorems import instance_1, instance_2, instance_4
from theory.verification.clients_and_servers import (
    against_clients,
    against_outer_step,
    families,
)
from theory.verification.communication import communication, typical_communication
from theory.verification.slopes import UNDERCUT_READING, instance_slopes
from theory.verification.tightness import tightness
from theory.worst_case import outer_steps

RATE, DELAY = 2.0, 40.0
KS = (1, 5, 20)
REGIMES = ("iid", "mixed", "pathological")


def deep_result(
    regime: str, local_steps: int, experiment: str = "to-loss", reached: bool = True
) -> dict[str, Any]:
    """A run whose loss is exactly 1 / (1 + RATE max(T - DELAY, 0)), with its true fits."""
    last = 40 * KS[-1]
    iterations = np.arange(0, last + 1, local_steps)
    losses = 1.0 / (1.0 + RATE * np.maximum(iterations - DELAY, 0.0))
    rounds = int(last / local_steps)
    metrics = [
        {
            "round": int(t // local_steps),
            "iteration": int(t),
            "train_loss": float(loss),
            "consensus_distance": None if t == 0 else float(local_steps * loss),
            "gradient_norm": None if t == 0 else float(loss),
            "wall_seconds": 0.1,
            "images_per_second": 1.0,
        }
        for t, loss in zip(iterations, losses, strict=True)
    ]
    fit = {"slope": RATE, "interval": [RATE - 0.1, RATE + 0.1], "r2": 0.99}
    return {
        "hardware": {"processor": "a processor", "cores": 2},
        "versions": {"python": "3"},
        "command": f"python -m deep.reproduce --regime {regime}",
        "commit": "0123456789ab",
        "data_name": "toy images",
        "config": {
            "regime": regime,
            "local_steps": local_steps,
            "rounds": rounds,
            "target_loss": 1e-3 if experiment == "to-loss" else 0.0,
            "step_size": 0.3,
            "n_nodes": 20,
            "batch_size": 8,
            "similarity": 0.5,
            "width": 4,
            "subset": 200,
            "seed": 0,
            "data_name": "toy images",
        },
        "summary": {
            "status": "reached" if reached else "round_limit",
            "reached_target": reached,
            "rounds": rounds,
            "iterations": last,
            "rounds_to_target": rounds if reached else None,
            "iterations_to_target": last if reached else None,
            "final_train_loss": float(losses[-1]),
            "lowest_train_loss": float(losses[-1]),
        },
        "fits": {
            "inverse_loss_vs_iterations": fit,
            "loglog_slope": {
                "slope": -1.5,
                "interval": [-1.7, -1.3],
                "r2": 0.9,
                "from_iteration": last // 4,
            },
        },
        "metrics": metrics,
    }


def write_deep(root: Path) -> None:
    """To-loss runs of three regimes (one misses its target) and fixed-rounds runs of one."""
    folder = root / "deep" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    for regime in REGIMES:
        for k in KS:
            content = deep_result(regime, k, reached=(regime, k) != ("pathological", 1))
            path = folder / f"laptop_to-loss_{regime}_K{k:02d}.json"
            path.write_text(json.dumps(content))
    for k in KS:
        path = folder / f"laptop_fixed-rounds_iid_K{k:02d}.json"
        path.write_text(json.dumps(deep_result("iid", k, "fixed-rounds")))


def write_ladder(root: Path) -> None:
    """A rung of the ladder that is not complete, with a variant."""
    folder = root / "deep" / "results" / "ladder"
    folder.mkdir(parents=True, exist_ok=True)
    for regime in ("iid", "one shard"):
        for k, outer_step in ((5, 1.0), (20, 1.0), (20, "extrapolated")):
            rounds = 4000 // k if outer_step == 1.0 else 50
            run = ladder_result(regime, k, rounds, outer_step=outer_step)
            name = (
                f"width8_to-loss_{regime.replace(' ', '-')}_K{k:02d}_outer-step-{outer_step}.json"
            )
            (folder / name).write_text(json.dumps(run))


def ladder_result(
    regime: str, local_steps: int, rounds: int, status: str = "reached", **config: Any
) -> dict[str, Any]:
    """A run of the ladder that takes so many rounds to its target; regime in words."""
    run = deep_result("iid", local_steps)
    shards = {"one shard": 1, "two shards": 2}.get(regime)
    run["config"] |= {
        "regime": "shards" if shards else regime,
        "shards_per_node": shards,
        "similarity": None,
        "width": 8,
        "subset": 1000,
        "step_size": 0.2,
        "norm_affine": False,
        "pixels": "centred",
        "batches": "without-replacement",
        "participants": None,
        "fixed_participants": False,
        "outer_step": 1.0,
        **config,
    }
    reached = status == "reached"
    run["command"] = "python -m deep.campaign deep/campaigns/ladder.toml --data somewhere"
    run["summary"] |= {
        "status": status,
        "rounds": rounds,
        "iterations": rounds * local_steps,
        "reached_target": reached,
        "rounds_to_target": rounds if reached else None,
        "final_test_accuracy": 0.25,
        "wall_seconds": 3600.0,
        "images_per_second": 1000.0,
    }
    for row in run["metrics"]:
        row |= {"least_loss_ratio": 0.5, "movement_ratio": 10.0 if row["round"] else None}
        row["weight_norm"] = 20.0
    return run


def check(theorem: str, verdict: str, ratio: float) -> dict[str, Any]:
    """A check of a verification record."""
    return {
        "theorem": theorem,
        "problem": "least squares",
        "heterogeneity": "iid",
        "n_nodes": 5,
        "local_steps": 5,
        "rounds": 10,
        "step_size": 1.0,
        "measured": 0.5,
        "low": 0.5,
        "high": 0.5,
        "how": "exact",
        "bound": 0.5 * ratio,
        "ratio": ratio,
        "verdict": verdict,
        "why": "",
    }


def summary_row(theorem: str, ratio: float) -> dict[str, Any]:
    """A theorem's line in the summary of a verification record with one check, which holds."""
    counts = {"holds": 1, "failed": 0, "undecided": 0, "not_applicable": 0}
    problems = ["least squares"]
    return {"theorem": theorem, **counts, "least": ratio, "median": ratio, "problems": problems}


def write_theory(root: Path) -> None:
    """A verification record and worst cases, small but computed by the real code."""
    ks = (1, 2, 4)
    shared = families(20, typical=False)
    found = [*communication(ks, rounds=40), typical_communication("iid", ks)]
    record = {
        **provenance(),
        "sweep": {
            "local_steps": [5],
            "rounds": 10,
            "n_nodes": 5,
            "heterogeneity": ["iid"],
            "gradients": ["stochastic"],
            "seeds": 8,
        },
        "checks": [check(t, "HOLDS", 1.5 + i) for i, t in enumerate(("T1", "T2", "T3", "T6"))],
        "sharper": [],
        "summary": [summary_row(t, 1.5 + i) for i, t in enumerate(("T1", "T2", "T3", "T6"))],
        "tightness": [
            asdict(tightness(make(100, 5))) for make in (instance_1, instance_2, instance_4)
        ],
        "slopes": [
            {**asdict(s), "verdict": s.verdict, "undercut": s.undercut}
            for s in instance_slopes(600, points=4)
        ],
        "undercut_reading": UNDERCUT_READING,
        "communication": [{**asdict(c), "verdict": c.fit.verdict} for c in found],
        "clients": [asdict(r) for p, eps in shared for r in against_clients(p, eps)],
        "outer_steps": [asdict(r) for p, eps in shared for r in against_outer_step(p, eps)],
    }
    write_json(root / "theory/results/verify_rates.json", record)
    claim = {"name": "half", "says": "half of T2", "source": "here", "verdict": "REFUTED"}
    book = {**provenance(), "claims": [{**claim, "by": "2 times, I0"}]}
    write_json(root / "theory/results/claims.json", book)
    folder = "theory/results/certificates"
    for source in sorted((ROOT / folder).glob("*.jsonl")):
        write_text(root / folder / source.name, "".join(source.open().readlines()[:3]))
    # Solving cells anew takes a minute; a corner of the committed sweep is the same numbers.
    record = json.loads((ROOT / WORST_CASE_PATH).read_text())
    record["rows"] = [
        row
        for row in record["rows"]
        if row["local_steps"] <= 2
        and row["rounds"] <= 2
        and row["step_size"] in (0.5, 1.0)
        and row["metric"] != "distance"
    ]
    write_json(root / WORST_CASE_PATH, record)


def write_energy(root: Path) -> None:
    """The theory's control, small, by the real command."""
    path = root / CONTROL_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    few = ["--problem", "logistic,sigmoid", "-K", "1,5", "--rounds", "12", "--json", str(path)]
    with contextlib.redirect_stdout(io.StringIO()):
        assert run_command(energy.app, "python -m theory.energy", few) == 0


def balanced(run: dict[str, Any], windows: Windows) -> dict[str, Any]:
    """A run with the energy balance ``windows``."""
    run["energy"] = {
        "reference": "the last model",
        "closing_error": windows.closing_error,
        "windows": as_rows(windows),
    }
    return run


def made_windows(
    step_size: float,
    iteration: Sequence[int],
    loss: Sequence[float],
    aim: Sequence[float],
    noise: Sequence[float],
    total: Sequence[float],
) -> Windows:
    """A balance that closes, with these mean losses, aims, noises and phi_total; the last D is 0."""
    sums = np.asarray(loss, float) * np.diff(np.asarray(iteration, float))
    inner, own = (
        np.asarray(aim, float) * sums,
        (np.asarray(aim, float) - np.asarray(noise, float)) * sums,
    )
    fallen = 2 * step_size * np.asarray(total, float) * sums
    return Windows(
        step_size,
        np.asarray(iteration),
        np.concatenate([[fallen.sum()], fallen.sum() - np.cumsum(fallen)]),
        sums,
        inner,
        2 * np.asarray(noise, float) * sums / step_size,
        fallen - 2 * step_size * own,
    )


def write_outer_steps(root: Path) -> None:
    """A sweep over outer steps in a small corner, by the real solver."""
    solver = outer_steps.Solver(None)
    found = outer_steps.sweep(None, (1,), (1, 2), ("last",), (), quiet=True)
    points = [
        outer_steps.MapPoint(
            local_steps=2,
            rounds=rounds,
            step_size=eta,
            outer_step=beta,
            value=solver(outer_steps._cell("last", 2, rounds, eta, beta))[0],
            certified=1.0,
        )
        for rounds in (1, 2)
        for eta in (0.5, 1.0, 1.5)
        for beta in (1.0, 1.25, 1.5)
    ]
    write_json(
        root / OUTER_PATH,
        {**provenance(), **outer_steps.as_json(replace(found, maps=points))},
    )


def write_speed(root: Path) -> None:
    """The committed timings, and the committed comparison of methods."""
    kept = ("theory/results/speed.json", "theory/results/baselines.json", "deep/results/speed.json")
    for path in kept:
        write_text(root / path, (ROOT / path).read_text())
