"""All proofs whose algebra is checked, and which theorem each belongs to."""

from __future__ import annotations

from theory.proofs.algebra import Proof
from theory.proofs.sharper import all_sharper
from theory.proofs.steps import all_steps

PROOFS: tuple[Proof, ...] = (*all_steps(), *all_sharper())


def find_proofs(theorem: str) -> list[Proof]:
    """The checked proofs that the theorem of that name rests on; none for an unknown name."""
    return [proof for proof in PROOFS if theorem in proof.theorems]
