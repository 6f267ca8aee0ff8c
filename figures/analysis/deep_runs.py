"""The runs of the deep experiment, and what is computed from them: fits, and rounds against K."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from figures.analysis.ladder import (
    LADDER_COMMAND,
    ORDER,
    complete_rung,
    ladder_runs,
)
from figures.analysis.sources import MissingResult, Sources
from theory.verification.slopes import fit_slope

_NAME = re.compile(r"(?P<preset>[^/_]+)_(?P<experiment>[^/_]+)_(?P<regime>[a-z]+)_K\d+\.json$")

#: Regime -> K -> result file.
Runs = dict[str, dict[int, dict[str, Any]]]


def deep_command(experiment: str) -> str:
    """What makes the results of an experiment."""
    return (
        f"python -m deep.reproduce --preset laptop --experiment {experiment} --regime iid "
        "--data data --download --results deep/results"
    )


def load_runs(sources: Sources, experiment: str = "to-loss") -> Runs:
    """The runs of an experiment, regime -> K -> result.

    Those of seed 0 on the ladder's largest rung that is complete; until there is one, those of the
    preset with the most files.

    Raises:
        MissingResult: there is none.
    """
    found = ladder_runs(sources)
    rung = complete_rung(found, experiment)
    if rung is not None:
        rows = [(r.regime, r.result) for r in found if r.rung == rung and r.is_plain and not r.seed]
    else:
        rows = [(r["config"]["regime"], r) for r in _preset_runs(sources, experiment)]
    runs: Runs = {}
    for regime, result in rows:
        runs.setdefault(regime, {})[result["config"]["local_steps"]] = result
    return {r: dict(sorted(runs[r].items())) for r in ORDER if r in runs}


def _preset_runs(sources: Sources, experiment: str) -> list[dict[str, Any]]:
    pattern = f"deep/results/*_{experiment}_*_K*.json"
    presets = Counter(m["preset"] for n in sources.match(pattern) if (m := _NAME.search(n)))
    if not presets:
        raise MissingResult(
            f"{pattern} is missing; make it with: {deep_command(experiment)} (and mixed, pathological)"
        )
    # The full-scale experiment wins a tie, and one of a few seconds never does.
    chosen = max(presets, key=lambda p: (p != "smoke", presets[p], p == "paper"))
    found = sources.read_all(
        f"deep/results/{chosen}_{experiment}_*_K*.json", deep_command(experiment)
    )
    return list(found.values())


def command_of(runs: Runs, experiment: str) -> str:
    """What makes these runs, without the folders of whoever made them."""
    first = next(iter(next(iter(runs.values())).values()))
    return LADDER_COMMAND if "deep.campaign" in first["command"] else deep_command(experiment)


def config_of(runs: Runs) -> dict[str, Any]:
    """The configuration of the first run; those of one experiment share what it is read for."""
    config: dict[str, Any] = next(iter(next(iter(runs.values())).values()))["config"]
    return config


def describe(runs: Runs) -> str:
    """Data and scale, and what of the set-up is not the present default."""
    c = config_of(runs)
    images = f"{c['subset']:,} images" if c["subset"] else "all images"
    parts = [f"{images}, width {c['width']}, step {c['step_size']:g}"]
    # Files of before these options existed lack them.
    if c.get("norm_affine", True):
        parts.append("norms with scale and shift")
    if c.get("pixels", "standardised") != "centred":
        parts.append("pixels standardised a channel")
    if c.get("batches", "with-replacement") != "without-replacement":
        parts.append("batches with replacement")
    return f"{c['data_name']}; {', '.join(parts)}"


def local_steps_of(runs: Runs) -> list[int]:
    """Every K that some regime was run with."""
    return sorted({k for by_k in runs.values() for k in by_k})


def column(run: dict[str, Any], name: str) -> np.ndarray:
    """A column of the metrics as floats; null is NaN."""
    return np.array([np.nan if m[name] is None else m[name] for m in run["metrics"]], float)


def fitted_line(run: dict[str, Any]) -> tuple[float, float] | None:
    """(intercept, slope) of 1/loss on T; None without a fit.

    The slope is the result file's, over every row of the run. The file has no intercept: this one puts
    the line through the mean of the kept rows, each weighted by the iterations that it stands for.
    """
    fit = run["fits"]["inverse_loss_vs_iterations"]
    if fit["slope"] is None:
        return None
    if fit.get("intercept") is not None:
        return fit["intercept"], fit["slope"]
    t, loss = column(run, "iteration"), column(run, "train_loss")
    usable = np.isfinite(loss) & (loss > 0) & (t > 0)
    t, inverse = t[usable], 1.0 / loss[usable]
    weights = np.gradient(t) if len(t) > 1 else np.ones(1)
    return float(np.average(inverse - fit["slope"] * t, weights=weights)), fit["slope"]


def late_line(run: dict[str, Any]) -> tuple[float, float, float] | None:
    """(intercept, slope, r2) of 1/loss on T over the second half of the iterations.

    From the rows kept in the file. A curve 1/(b (T - T0)) is O(1/T) with a delay T0: its log-log slope
    is -T/(T - T0), steeper than -1, while its 1/loss is a straight line. None with fewer than 5 rows.
    """
    t, loss = column(run, "iteration"), column(run, "train_loss")
    late = (t >= 0.5 * t[-1]) & np.isfinite(loss) & (loss > 0)
    if late.sum() < 5:
        return None
    fit = stats.linregress(t[late], 1.0 / loss[late])
    return float(fit.intercept), float(fit.slope), float(fit.rvalue**2)


def late_slopes(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fits of the late phase, of the runs that have one."""
    fits = [run["fits"]["loglog_slope"] for run in runs]
    return [fit for fit in fits if fit["slope"] is not None and fit["interval"] is not None]


@dataclass(frozen=True)
class RoundsOrder:
    """How the rounds to the target fall with K in one regime; the fit is None below 3 points."""

    regime: str
    first: tuple[int, int]
    last: tuple[int, int]
    fit: dict[str, Any] | None

    @property
    def reading(self) -> str:
        """What the interval says of 1/K and of no gain at all."""
        return "too few runs there for a fit" if self.fit is None else reading(self.fit["interval"])


def reading(interval: Sequence[float]) -> str:
    """What a 95% interval of the slope of log rounds in log K says of 1/K and of no gain at all."""
    low, high = interval
    if high - low > 0.5:
        return "the interval is too wide to tell"
    if low <= -1 <= high:
        return "1/K lies inside the interval"
    if high < -1:
        return "falls faster than 1/K"
    return "falls, but slower than 1/K" if high < 0 else "no clear gain from local steps"


def slope_in_k(points: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """(slope, low, high) of log rounds in log K with the line's 95%, of at least three (K, rounds)."""
    ks, rounds = (np.array(column, float) for column in zip(*points, strict=True))
    line = fit_slope(ks, rounds, "rounds to the target in K", -1.0)
    return line.slope, line.low, line.high


def rounds_below(run: dict[str, Any], loss: float) -> int | None:
    """The first evaluated round with a training loss below ``loss``; None if there is none."""
    found = np.flatnonzero(column(run, "train_loss") < loss)
    return int(run["metrics"][found[0]]["round"]) if len(found) else None


def rounds_orders(runs: Runs) -> list[RoundsOrder]:
    """The fitted order of rounds to the target in K, per regime with at least two runs there."""
    found = []
    for regime, by_k in runs.items():
        points = [
            (k, run["summary"]["rounds_to_target"])
            for k, run in by_k.items()
            if run["summary"]["rounds_to_target"]
        ]
        if len(points) < 2:
            continue
        fit = None
        if len(points) > 2:
            slope, *interval = slope_in_k(points)
            fit = {"slope": slope, "interval": interval}
        found.append(RoundsOrder(regime, points[0], points[-1], fit))
    return found
