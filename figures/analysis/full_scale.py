"""Runs at the paper's own scale, however far they came, and the hours that the rest would take."""

from __future__ import annotations

from pathlib import PurePath

from deep.plan import PRESETS, SET_UP
from figures.analysis.ladder import Run, ladder_runs
from figures.analysis.sources import Sources

PAPER = "deep/results/paper_*_K*.json"
PAPER_COMMAND = (
    "python -m deep.reproduce --preset paper --data data --download --results deep/results"
)
#: iid, and two heterogeneous ones.
N_REGIMES = 3


def full_scale_runs(sources: Sources) -> list[Run]:
    """Those of the paper's width on all images, of the ladder or on their own; none is no error."""
    found = ladder_runs(sources)
    if sources.match(PAPER):
        alone = sources.read_all(PAPER, PAPER_COMMAND)
        found += [Run(PurePath(path).stem, result) for path, result in alone.items()]
    width = PRESETS["paper"]["width"]
    return [run for run in found if run.rung.width == width and not run.rung.images]


def rounds_in_all(run: Run) -> int:
    """Of the run, or of the paper's experiment of which a shorter one is the start."""
    whole = int(PRESETS["paper"]["fixed-rounds"]["rounds"]) if not run.config["target_loss"] else 0
    return max(whole, int(run.config["rounds"]))


def is_begun(run: Run) -> bool:
    """Whether rounds are missing: out of time, or so short by intent."""
    short = run.summary["status"] == "round_limit" and run.config["rounds"] < rounds_in_all(run)
    return short or run.summary["status"] == "unfinished"


def hours_of_run(run: Run) -> float:
    """All rounds of a run, at its own images a second, evaluation not counted."""
    c = run.config
    images = (
        rounds_in_all(run)
        * c["local_steps"]
        * (c["participants"] or c["n_nodes"])
        * c["batch_size"]
    )
    return float(images / run.summary["images_per_second"] / 3600)


def hours_of_experiment_1(images_per_second: float) -> float:
    """The paper's Experiment 1: every K in every regime. How long Experiment 2 takes, no one can know."""
    paper = PRESETS["paper"]
    steps = sum(paper["local_steps"]) * paper["fixed-rounds"]["rounds"] * N_REGIMES
    return float(steps * SET_UP["nodes"] * SET_UP["batch_size"] / images_per_second / 3600)
