"""From options, or tables of a campaign, to configurations with names.

An option that holds several values means one run for each; a name tells every value that differs from the
preset's, so two runs never share a folder. When to stop is not in a name: a finished run may go on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deep.config import BATCHES, OUTER_STEPS, Config, option
from deep.data.cifar10 import PIXELS
from deep.data.partition import REGIMES
from theory.support.errors import UserError
from theory.support.numbers import choice, refused

EXPERIMENTS = ("fixed-rounds", "to-loss")
TARGET_LOSS = 1e-4
#: The first author's set-up; shares of an option that a preset leaves open.
SET_UP: dict[str, Any] = {
    "regime": ["iid", "shards"],
    "shards_per_node": [2, 1],
    "nodes": 20,
    "batch_size": 8,
    "similarity": 0.5,
    "subset": 0,
    "seed": 0,
    "norm_affine": False,
    "pixels": PIXELS[0],
    "batches": BATCHES[0],
    "participants": None,
    "fixed_participants": False,
    "outer_step": 1.0,
    "target_loss": TARGET_LOSS,
    "engine": "auto",
    "precision": "float32",
}
#: What an option may be; a tuple is a choice. Lists of these are sweeps.
KINDS: dict[str, type | tuple[str, ...]] = {
    "regime": REGIMES,
    "shards_per_node": int,
    "local_steps": int,
    "rounds": int,
    "target_loss": float,
    "step_size": float,
    "nodes": int,
    "batch_size": int,
    "similarity": float,
    "width": int,
    "subset": int,
    "seed": int,
    "norm_affine": bool,
    "pixels": PIXELS,
    "batches": BATCHES,
    "participants": int,
    "fixed_participants": bool,
    "outer_step": float,
    "engine": ("auto", "simd", "loop", "stacked", "grouped", "im2col", "vmap"),
    "precision": ("float32", "float64", "bf16"),
}
#: Options whose values every name tells, or none does.
_IN_HEAD = ("regime", "shards_per_node", "local_steps")
_NEVER = ("rounds", "target_loss")

Options = Mapping[str, Any]
#: Options of a preset; those of one experiment stand in a table of its name.
Preset = dict[str, Any]

PRESETS: dict[str, Preset] = {
    "paper": {
        "width": 64,
        "local_steps": [1, 2, 5, 10, 20],
        "fixed-rounds": {"rounds": 20_000, "step_size": 0.1},
        "to-loss": {"rounds": 1_000_000, "step_size": 0.075},
    },
    # The ladder's first rung at half its width, with 15 images a node instead of 50: iid and one shard, K = 1,
    # 5, 20. All six reach 1e-4: about ten minutes iid and ten for one shard on two cores at 12,000 images/s,
    # nearly half of it at K = 20. With 500 images iid at K = 5 stood at 6.8e-4 after 1,526 rounds; with 200 a
    # batch is nearly all that a node has. A larger step saves nothing: K = 20 needs as many rounds at 0.5.
    "laptop": {
        "width": 4,
        "subset": 300,
        "shards_per_node": 1,
        "local_steps": [1, 5, 20],
        "step_size": 0.3,
        "fixed-rounds": {"rounds": 300},
        "to-loss": {"rounds": 20_000},
    },
    "smoke": {
        "width": 2,
        "subset": 200,
        "local_steps": [1, 2],
        "rounds": 5,
        "fixed-rounds": {"step_size": 0.1},
        "to-loss": {"step_size": 0.075},
    },
}


@dataclass(frozen=True)
class Planned:
    """A run and its name, which is its folder's and its result file's; the data are not yet known."""

    label: str
    config: Config


def plan(
    preset: str,
    experiment: str,
    options: Options,
    presets: Mapping[str, Preset] = PRESETS,
) -> list[Planned]:
    """The runs that options ask for, as a product of the options with several values.

    The option named first in ``options`` varies slowest; then those of which the preset has several.
    ``options`` has the names of `KINDS`, None for what is left to the preset. Raises `UserError` for an
    unknown preset, experiment or option, a value of the wrong kind, or one that `Config` refuses.
    """
    choice("--preset", preset, presets)
    choice("--experiment", experiment, EXPERIMENTS)
    base = dict(SET_UP)
    common = {k: v for k, v in presets[preset].items() if k not in EXPERIMENTS}
    base |= common | presets[preset].get(experiment, {})
    check_kinds(base)
    given = {name: value for name, value in options.items() if value is not None}
    check_kinds(given)
    for name in ("width", "rounds", "step_size", "local_steps"):
        if name not in base and name not in given:
            raise UserError(f"{option(name)} is missing, and the preset {preset} has none")
    order = [*given, *(name for name in base if name not in given)]
    values = {**base, **given}
    several = [_several(values[name]) for name in order]
    found: dict[str, Planned] = {}
    for combination in itertools.product(*several):
        one = dict(zip(order, combination, strict=True))
        config = _config(one, experiment)
        label = _label(preset, experiment, one, base, config)
        # Shards a node mean nothing in the other regimes: these runs come once.
        found.setdefault(label, Planned(label, config))
    return list(found.values())


def _several(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value]


def _config(one: Options, experiment: str) -> Config:
    regime = one["regime"]
    return Config(
        regime=regime,
        local_steps=one["local_steps"],
        rounds=one["rounds"],
        target_loss=0.0 if experiment == "fixed-rounds" else one["target_loss"],
        step_size=one["step_size"],
        n_nodes=one["nodes"],
        batch_size=one["batch_size"],
        width=one["width"],
        subset=one["subset"] or None,
        seed=one["seed"],
        shards_per_node=one["shards_per_node"] if regime == "shards" else None,
        similarity=one["similarity"] if regime == "mixed" else None,
        norm_affine=one["norm_affine"],
        pixels=one["pixels"],
        batches=one["batches"],
        participants=one["participants"],
        fixed_participants=one["fixed_participants"],
        outer_step=one["outer_step"],
        engine=one["engine"],
        precision=one["precision"],
    )


def _label(preset: str, experiment: str, one: Options, base: Options, config: Config) -> str:
    regime = config.regime
    if regime == "shards":
        regime += str(config.shards_per_node)
    parts = [preset, experiment, regime, f"K{config.local_steps:02d}"]
    for name in KINDS:
        if name in _IN_HEAD or name in _NEVER or (name == "similarity" and regime != "mixed"):
            continue
        value = one[name]
        if value == base.get(name):
            continue
        text = name.replace("_", "-")
        if value is True:
            parts.append(text)
        elif value is False:
            parts.append(f"no-{text}")
        else:
            parts.append(f"{text}-{str(value).removesuffix('.0')}")
    return "_".join(parts)


def check_kinds(options: Options) -> None:
    """Raise `UserError` for an option that does not exist or has a value of another kind."""
    for name, value in options.items():
        if name not in KINDS:
            known = ", ".join(k.replace("_", "-") for k in KINDS)
            raise UserError(f"{name.replace('_', '-')} is no option, allowed: {known}")
        several = _several(value)
        if not several:
            raise UserError(f"{option(name)} is empty, allowed: at least one value")
        for item in several:
            _check_kind(name, item)


def _check_kind(name: str, value: Any) -> None:
    kind, shown = KINDS[name], option(name)
    if name == "participants" and value is None:
        return
    if name == "outer_step" and isinstance(value, str):
        choice(shown, value, ("a positive number", *OUTER_STEPS))
    elif isinstance(kind, tuple):
        choice(shown, value, kind)
    elif kind is bool:
        if not isinstance(value, bool):
            raise refused(shown, value, "true or false")
    # Ranges are for `Config` to check.
    elif isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise refused(shown, value, "integers" if kind is int else "numbers")
