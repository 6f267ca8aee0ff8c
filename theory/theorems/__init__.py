"""The theorems T0-T8 and Lemma 2, one file each with its proof; sharper variants; tight instances.

``THEOREMS`` holds the plain statements in order, ``SHARPER`` their variants with smaller constants.
:func:`theory.theorems.explain.explain` prints any of them with its proof.
"""

from __future__ import annotations

from collections.abc import Sequence

from theory.support.errors import UserError
from theory.support.loading import load_object
from theory.theorems.base import Instance, Metric, Setting, Theorem
from theory.theorems.l2_every_round import LEMMA_2, instance_equality
from theory.theorems.t0_every_path import T0, T0_SEPARABLE
from theory.theorems.t1_local_losses import T1, instance_0, instance_huber
from theory.theorems.t2_synchronised import T2, instance_1, instance_6
from theory.theorems.t3_similar import T3, instance_2, instance_5
from theory.theorems.t4_linear import (
    T4,
    T4_GLOBAL,
    instance_3,
    instance_bend,
    instance_simplex,
)
from theory.theorems.t5_separable import T5, T5_SYNC
from theory.theorems.t6_nonconvex import T6, instance_4
from theory.theorems.t7_client_sampling import T7, T7_FAMILY, instance_axes
from theory.theorems.t8_outer_step import (
    T8A,
    T8B,
    T8B_BEST,
    T8C,
    instance_damped,
    instance_extrapolated,
    instance_polyak,
)

THEOREMS: tuple[Theorem, ...] = (
    *(T0, T0_SEPARABLE, T1, T2, T3, T4, T4_GLOBAL, T5, T5_SYNC, T6),
    *(LEMMA_2, T7, T8A, T8B, T8B_BEST, T8C),
)
SHARPER: tuple[Theorem, ...] = tuple(variant for t in THEOREMS for variant in t.sharper)

__all__ = [
    "LEMMA_2",
    "SHARPER",
    "T0",
    "T0_SEPARABLE",
    "T1",
    "T2",
    "T3",
    "T4",
    "T4_GLOBAL",
    "T5",
    "T5_SYNC",
    "T6",
    "T7",
    "T7_FAMILY",
    "T8A",
    "T8B",
    "T8B_BEST",
    "T8C",
    "THEOREMS",
    "Instance",
    "Metric",
    "Setting",
    "Theorem",
    "all_instances",
    "find_theorems",
    "instance_0",
    "instance_1",
    "instance_2",
    "instance_3",
    "instance_4",
    "instance_5",
    "instance_6",
    "instance_axes",
    "instance_bend",
    "instance_damped",
    "instance_equality",
    "instance_extrapolated",
    "instance_huber",
    "instance_polyak",
    "instance_simplex",
]


def find_theorems(names: Sequence[str]) -> list[Theorem]:
    """The theorems named, in order; "T4" means T4 and T4' both, "T8" all of its parts, "T2/S3" a
    sharper variant, "T7/T4" that theorem for sampled clients.

    ``file.py:NAME`` is a user's own :class:`Theorem`.

    Raises:
        UserError: an unknown name, or a file without that theorem.
    """
    chosen: list[Theorem] = []
    for name in names:
        if ".py:" in name:
            own = load_object("theorem", name)
            if not isinstance(own, Theorem):
                raise UserError(f"theorem {name!r} is a {type(own).__name__}, allowed: a Theorem")
            chosen.append(own)
            continue
        found = [t for t in (*THEOREMS, *SHARPER, *T7_FAMILY) if name.upper() in _names(t)]
        if not found:
            raise UserError(
                f"theorem {name!r}, allowed: {', '.join(t.name for t in THEOREMS)}, "
                f"and the sharper {', '.join(t.name for t in SHARPER)}"
            )
        chosen += [t for t in found if t not in chosen]
    return chosen


def _names(theorem: Theorem) -> tuple[str, ...]:
    """What a theorem may be called, in capitals: T8b' also T8b and T8."""
    name, plain = theorem.name, theorem.name.rstrip("'")
    return tuple(n.upper() for n in (name, plain, plain.rstrip("abc")))


def all_instances(local_steps: int = 5, rounds: int = 10_000) -> list[Instance]:
    """Every instance whose ratio bound / value has a limit, long enough to be near it.

    I3 runs for 50 rounds, as (3/4)^T leaves the range of floating point; those that run on the NumPy
    engine, and whose ratio is there at once, are short.
    """
    return [
        *(instance_0(name, 10, local_steps) for name in ("T1", "T2", "T3")),
        instance_huber(10, local_steps),
        instance_1(rounds, local_steps),
        instance_2(rounds, local_steps),
        instance_3(50, local_steps=local_steps),
        instance_simplex(20, max(2, local_steps)),
        instance_bend(),
        instance_4(rounds, local_steps),
        instance_5(400, local_steps),
        instance_equality(10, local_steps),
        instance_axes(30, local_steps),
        instance_damped(rounds, local_steps),
        instance_extrapolated(10, local_steps),
        instance_polyak(10, local_steps),
    ]
