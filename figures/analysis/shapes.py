"""What a result file must hold for figures and tables to read it; anything else in it is allowed.

A shape is a dict of keys and shapes, a list of one shape (of at least one entry), or the types of a
value. A file that has another shape is refused with the place and what belongs there, before anything
is drawn from it.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from typing import Any

from theory.support.errors import UserError


class Entries(list[Any]):
    """A list in a shape that may be empty."""


class Pair(list[Any]):
    """A list of two of the shape, or null."""


class Word:
    """In a shape: a text need not stand for a number."""


class IfThere:
    """In a shape: a key that an object may lack."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


TEXT, WHOLE, NUMBER, FLAG = (str,), (int,), (int, float), (bool,)
NONE = type(None)
_LARGEST = sys.float_info.max
#: NaN is null and infinity is "inf" in our JSON.
MAYBE = (int, float, NONE, str)
_WORDS = {str: "a text", int: "an integer", float: "a number", NONE: "null", bool: "true or false"}

#: Any text will do beside the number.
NUMBER_OR_WORD = (int, float, str, Word)

_FIT = {"slope": NUMBER, "low": NUMBER, "high": NUMBER}
_ORIGIN = {"command": TEXT, "commit": TEXT}
_ROUNDS_TO = {
    "family": TEXT,
    "accuracy": NUMBER,
    "rounds": (int, float, NONE),
    "bound": (int, float, NONE),
    "verdict": TEXT,
}
VERIFICATION = {
    **_ORIGIN,
    "sweep": {
        "local_steps": [WHOLE],
        "rounds": WHOLE,
        "n_nodes": WHOLE,
        "heterogeneity": Entries([TEXT]),
        "gradients": [TEXT],
        "seeds": WHOLE,
    },
    "summary": [
        {
            "theorem": TEXT,
            **dict.fromkeys(("holds", "failed", "undecided", "not_applicable"), WHOLE),
            "least": MAYBE,
            "median": MAYBE,
            "problems": Entries([TEXT]),
        }
    ],
    "sharper": Entries(
        [
            {
                "variant": TEXT,
                "title": TEXT,
                "step_factor": (int, float, NONE),
                "checks": WHOLE,
                "median": MAYBE,
                "median_sharper": MAYBE,
                "median_bounds": MAYBE,
            }
        ]
    ),
    "checks": [
        {
            "theorem": TEXT,
            "problem": TEXT,
            "heterogeneity": TEXT,
            "local_steps": WHOLE,
            "measured": MAYBE,
            "low": MAYBE,
            "high": MAYBE,
            "how": TEXT,
            "bound": MAYBE,
            "ratio": MAYBE,
            "verdict": TEXT,
        }
    ],
    "tightness": [
        {
            "instance": TEXT,
            "theorem": TEXT,
            "metric": TEXT,
            "local_steps": WHOLE,
            "rounds": WHOLE,
            "ratio": NUMBER,
            "limit": NUMBER,
            "verdict": TEXT,
        }
    ],
    "slopes": [
        {
            **_FIT,
            "family": TEXT,
            "predicted": (int, float, NONE),
            "tolerance": NUMBER,
            "undercut": (int, float, NONE),
            "verdict": TEXT,
        }
    ],
    "undercut_reading": TEXT,
    "communication": [
        {
            "family": TEXT,
            "accuracy": NUMBER,
            "local_steps": [WHOLE],
            "rounds": [(int, float, NONE)],
            "bound": [NUMBER],
            "theorem": TEXT,
            "fit": {"slope": NUMBER},
            "verdict": TEXT,
        }
    ],
    "clients": [{**_ROUNDS_TO, "clients": WHOLE}],
    "outer_steps": [{**_ROUNDS_TO, "outer_step": NUMBER_OR_WORD}],
}
WORST_CASES = {
    **_ORIGIN,
    "rows": [
        {
            "metric": TEXT,
            "theorem": (str, NONE),
            "local_steps": WHOLE,
            "rounds": WHOLE,
            "step_size": NUMBER,
            "worst_case": (int, float, NONE),
            "bound": MAYBE,
            "sharper": MAYBE,
            "source": (str, NONE),
            "kind": TEXT,
            "instance": MAYBE,
            "ratio": MAYBE,
            "duality_gap": (int, float, NONE),
            "attained": (int, float, NONE),
            "verdict": TEXT,
        }
    ],
    "routes": Entries([{"verdict": TEXT}]),
}
#: Of an energy balance; the first is the start, which has no sums.
_WINDOWS = [
    {
        "iteration": WHOLE,
        "distance": NUMBER,
        **dict.fromkeys(("loss", "inner", "square", "averaging"), IfThere(NUMBER)),
    }
]
ENERGY = {
    **_ORIGIN,
    "cells": [
        {
            "problem": TEXT,
            "heterogeneity": TEXT,
            "local_steps": WHOLE,
            "step_size": NUMBER,
            "phi": NUMBER,
            "windows": _WINDOWS,
        }
    ],
}
RUN: dict[str, Any] = {
    **_ORIGIN,
    "hardware": {"processor": TEXT, "cores": (int, NONE)},
    "config": {
        "regime": TEXT,
        "local_steps": WHOLE,
        "rounds": WHOLE,
        "target_loss": NUMBER,
        "step_size": NUMBER,
        "n_nodes": WHOLE,
        "batch_size": WHOLE,
        "similarity": (int, float, NONE),
        "width": WHOLE,
        "subset": (int, NONE),
        "seed": WHOLE,
        "data_name": TEXT,
    },
    "summary": {
        "status": TEXT,
        "rounds": WHOLE,
        "iterations": WHOLE,
        "rounds_to_target": (int, NONE),
        "final_train_loss": MAYBE,
    },
    "fits": {
        "inverse_loss_vs_iterations": {"slope": (int, float, NONE), "r2": (int, float, NONE)},
        "loglog_slope": {"slope": (int, float, NONE), "interval": Pair([NUMBER])},
    },
    "metrics": [
        {
            "round": WHOLE,
            "iteration": WHOLE,
            "train_loss": (int, float, NONE),
            "consensus_distance": (int, float, NONE),
        }
    ],
    "energy": IfThere({"windows": _WINDOWS}),
}
_PLACE = {"local_steps": WHOLE, "rounds": WHOLE, "step_size": NUMBER, "outer_step": NUMBER}
OUTER_STEPS = {
    **_ORIGIN,
    "pairs": [
        {
            **_PLACE,
            "metric": TEXT,
            **dict.fromkeys(("value", "plain_value", "plain_step_size", "gain"), NUMBER),
            **dict.fromkeys(("lower_bound", "one_step_rounds"), NUMBER),
        }
    ],
    "maps": Entries([{**_PLACE, "value": NUMBER}]),
}
_MAYBE_WHOLE = (int, NONE)
#: A run with everything that the ladder's tables read; older files lack some of it.
LADDER_RUN = {
    **RUN,
    "config": {
        **RUN["config"],
        "shards_per_node": _MAYBE_WHOLE,
        "norm_affine": FLAG,
        "pixels": TEXT,
        "batches": TEXT,
        "participants": _MAYBE_WHOLE,
        "fixed_participants": FLAG,
        "outer_step": NUMBER_OR_WORD,
    },
    "summary": {
        **RUN["summary"],
        "final_test_accuracy": (int, float, NONE),
        "wall_seconds": NUMBER,
        "images_per_second": NUMBER,
    },
    "metrics": [
        {
            **RUN["metrics"][0],
            "least_loss_ratio": (int, float, NONE),
            "movement_ratio": (int, float, NONE),
            "weight_norm": (int, float, NONE),
        }
    ],
}
THEORY_SPEED = {
    **_ORIGIN,
    "comparisons": [
        {
            "timings": [
                {
                    "method": TEXT,
                    "scaled": NUMBER,
                    "size": {},
                    "floor_share": (int, float, NONE),
                }
            ]
        }
    ],
}
DEEP_SPEED = {
    **_ORIGIN,
    "hardware": {"processor": TEXT, "cores": (int, NONE)},
    "rows": [
        {
            "engine": TEXT,
            "width": WHOLE,
            "images_per_second": NUMBER,
            "simd_speedup": (int, float, NONE),
        }
    ],
}
BASELINES = {
    **_ORIGIN,
    "local_steps": WHOLE,
    "rounds": WHOLE,
    "eps": NUMBER,
    "seeds": WHOLE,
    "step_factors": [NUMBER],
    "prox_strengths": [NUMBER],
    "fixed_outer_steps": [NUMBER],
    "problems": [
        {
            "name": TEXT,
            "heterogeneity": TEXT,
            "n_nodes": WHOLE,
            "n_samples": WHOLE,
            "dimension": WHOLE,
        }
    ],
    "rounds_to_eps": {},
    "equal_budgets": [
        {
            "method": TEXT,
            "budget": TEXT,
            "local_steps": WHOLE,
            "batch_size": (int, NONE),
            "communications": WHOLE,
            "gradients": NUMBER,
            "loss": {},
            "low": {},
            "high": {},
        }
    ],
}
BOOK = {
    **_ORIGIN,
    "claims": [dict.fromkeys(("name", "says", "source", "verdict", "by"), TEXT)],
}
#: Path, as a pattern -> shape.
SHAPES: dict[str, Any] = {
    "theory/results/verify_rates.json": VERIFICATION,
    "theory/results/worst_case.json": WORST_CASES,
    "theory/results/outer_step.json": OUTER_STEPS,
    "theory/results/baselines.json": BASELINES,
    "theory/results/energy.json": ENERGY,
    "theory/results/speed.json": THEORY_SPEED,
    "theory/results/claims.json": BOOK,
    "deep/results/speed.json": DEEP_SPEED,
    "deep/results/ladder/*.json": LADDER_RUN,
    "deep/results/paper_*_K*.json": LADDER_RUN,
    "deep/results/*_K*.json": RUN,
}


class Record(dict[str, Any]):
    """An object of a result file; a key that it lacks is the file's fault, and said so."""

    path = ""

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.path} lacks {key!r}; make it again with the present version")


def checked(path: str, content: Any) -> Record:
    """The content of a result file, as :class:`Record`.

    Args:
        path: of the file, relative to the folder that holds ``theory/results``.
        content: what its JSON says.

    Raises:
        UserError: not the shape of that file.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    for pattern, shape in SHAPES.items():
        if fnmatch(path, pattern):
            _check(path, "", content, shape)
    kept: Record = _wrap(path, content)
    return kept


def _wrap(path: str, value: Any) -> Any:
    if isinstance(value, dict):
        record = Record({key: _wrap(path, inner) for key, inner in value.items()})
        record.path = path
        return record
    return [_wrap(path, inner) for inner in value] if isinstance(value, list) else value


def _check(path: str, place: str, value: Any, shape: Any) -> None:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise _wrong(path, place, value, "an object")
        for key, inner in shape.items():
            if key not in value and isinstance(inner, IfThere):
                continue
            if key not in value:
                raise UserError(f"{path} lacks {f'{place}.{key}'.lstrip('.')!r}")
            expected = inner.shape if isinstance(inner, IfThere) else inner
            _check(path, f"{place}.{key}", value[key], expected)
    elif isinstance(shape, Pair):
        if value is not None and not (isinstance(value, list) and len(value) == 2):
            raise _wrong(path, place, value, "two numbers, or null")
        for i, inner in enumerate(value or ()):
            _check(path, f"{place}[{i}]", inner, shape[0])
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(path, place, value, "a list")
        if not value and not isinstance(shape, Entries):
            raise _wrong(path, place, value, "at least one entry")
        for i, inner in enumerate(value):
            _check(path, f"{place}[{i}]", inner, shape[0])
    elif not isinstance(value, shape) or (isinstance(value, bool) and bool not in shape):
        kinds = [k for k in shape if k is not Word and (k is not int or float not in shape)]
        raise _wrong(path, place, value, " or ".join(_WORDS[kind] for kind in kinds))
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST:
        # Python's reader takes NaN, 1e999 and integers of any length, which no result of ours holds.
        raise _wrong(path, place, value, "a finite number")
    elif (
        isinstance(value, str)
        and {float, Word} & {*shape} == {float}
        and value not in ("inf", "-inf")
    ):
        raise _wrong(path, place, value, "a number, null or 'inf'")


def _wrong(path: str, place: str, value: Any, allowed: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) < 40 else f"{shown[:37]}..."
    return UserError(f"{path}: {place.lstrip('.')} is {shown}, allowed: {allowed}")
