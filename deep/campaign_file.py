"""Campaigns as TOML: presets of their own, and runs in the order in which they are wanted.

data-name = "CIFAR-10, JPEG copy"
energy = true             # record the energy balance of every run that begins

[preset.small]            # options of python -m deep.reproduce, without the dashes
width = 8
subset = 1000
local-steps = [1, 5]
[preset.small.to-loss]    # those of one experiment
step-size = 0.2
rounds = 100000

[[run]]
preset = "small"          # of this file, or paper, laptop, smoke
experiment = "to-loss"
local-steps = [5, 20]     # a list means one run for each; the key written first varies slowest
regime = ["iid", "shards"]
shards-per-node = 1
minutes = 60              # ends such a run, however far it came
energy = false            # of this run not
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep.plan import EXPERIMENTS, PRESETS, Planned, Preset, check_kinds, plan
from theory.support.errors import UserError
from theory.support.reading import require_regular

#: Of a campaign's file; a queue of thousands of runs has less.
_MOST_BYTES = 1_000_000
_MOST_MINUTES = 1e9
#: Of a preset; it begins the name of a run's folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Entry:
    """A run of the queue; ``minutes`` that it may take in all, None for as many as it needs.

    ``energy``: whether its energy balance is recorded.
    """

    run: Planned
    minutes: float | None
    energy: bool = False


@dataclass(frozen=True)
class Campaign:
    """What a file says; ``data_name`` None: the name the data have."""

    data_name: str | None
    entries: list[Entry]


def read_campaign(path: Path) -> Campaign:
    """The campaign in a file. Raises `UserError`, which names the place, for whatever is not allowed."""
    try:
        require_regular(path)
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError("it is larger")
        content = tomllib.loads(text.decode())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        # Of tomllib's own kind, or of numbers and nesting that are too long for Python.
        raise UserError(f"{path} is not TOML of at most {_MOST_BYTES:,} bytes: {error}") from error
    try:
        return _campaign(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _campaign(content: dict[str, Any]) -> Campaign:
    _known(content, ("data-name", "energy", "preset", "run"), "the file")
    name = content.get("data-name")
    if name is not None and not isinstance(name, str):
        raise UserError(f"data-name is {name!r}, allowed: a text")
    energy = _flag(content, "energy", False)
    own = content.get("preset", {})
    if not isinstance(own, dict):
        raise UserError(f"preset is {own!r}, allowed: tables [preset.NAME]")
    presets = {**PRESETS, **{key: _preset(key, table) for key, table in own.items()}}
    runs = content.get("run", [])
    if not isinstance(runs, list) or not runs:
        raise UserError("run is missing, allowed: at least one table [[run]]")
    entries: dict[str, Entry] = {}
    for number, table in enumerate(runs, 1):
        try:
            for entry in _entries(table, presets, energy):
                # Asked for twice, a run stays where it came first.
                entries.setdefault(entry.run.label, entry)
        except UserError as error:
            raise UserError(f"run {number}: {error}") from error
    return Campaign(name, list(entries.values()))


def _preset(name: str, table: Any) -> Preset:
    where = f"preset.{name}"
    if not _NAME.fullmatch(name):
        raise UserError(
            f"a preset is called {name!r}, allowed: up to 64 letters, digits and . _ - in a name"
        )
    if name in PRESETS:
        raise UserError(f"{where} is a preset already, allowed: a name of its own")
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}, allowed: a table")
    found: Preset = {}
    try:
        for key, value in table.items():
            found[key if key in EXPERIMENTS else _field(key)] = (
                _options(value) if key in EXPERIMENTS else value
            )
        check_kinds({k: v for k, v in found.items() if k not in EXPERIMENTS})
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return found


def _options(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UserError(f"{table!r} stands where a table is needed")
    options = {_field(key): value for key, value in table.items()}
    check_kinds(options)
    return options


def _entries(table: Any, presets: dict[str, Preset], energy: bool) -> list[Entry]:
    if not isinstance(table, dict):
        raise UserError(f"it is {table!r}, allowed: a table")
    own = ("preset", "experiment", "minutes", "energy")
    rest = {k: v for k, v in table.items() if k not in own}
    energy = _flag(table, "energy", energy)
    minutes = table.get("minutes")
    if minutes is not None and (
        isinstance(minutes, bool)
        or not isinstance(minutes, int | float)
        or not 0 < minutes <= _MOST_MINUTES
    ):
        raise UserError(f"minutes is {minutes!r}, allowed: a number above 0, to 1e9")
    preset, experiment = table.get("preset", "paper"), table.get("experiment", "to-loss")
    if not isinstance(preset, str) or not isinstance(experiment, str):
        raise UserError("preset and experiment are texts, one of each in a run")
    return [
        Entry(run, minutes, energy) for run in plan(preset, experiment, _options(rest), presets)
    ]


def _flag(table: dict[str, Any], key: str, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise UserError(f"{key} is {value!r}, allowed: true or false")
    return value


def _field(key: str) -> str:
    if "_" in key:
        raise UserError(f"{key} is no option, allowed: the same with dashes")
    return key.replace("-", "_")


def _known(table: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise UserError(f"{key} is no key of {where}, allowed: {', '.join(allowed)}")
