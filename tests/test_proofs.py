"""The algebra of the proofs holds symbolically, and an altered proof is no proof."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy as sp

from theory.proofs import PROOFS, Identity, Proof, Vector, find_proofs
from theory.proofs.algebra import Used


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_every_step_is_an_identity_with_nonnegative_weights(proof: Proof) -> None:
    assert proof.failures() == []
    assert "checked symbolically" in proof.text()


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)
def test_a_stronger_claim_is_not_proved_by_the_same_algebra(proof: Proof) -> None:
    step = proof.steps[0]
    stronger = replace(step, value=step.value - Vector.named("extra").square)
    broken = replace(proof, steps=[stronger])
    assert broken.failures() and "NOT PROVED" in broken.text()


def test_a_negative_weight_is_no_proof() -> None:
    x = Vector.named("x")
    upside_down = Identity("-||x||^2 >= 0", -x.square, squares=((sp.Integer(-1), x),))
    assert upside_down.remainder() == 0
    assert "not known to be at least 0" in upside_down.failures()[0]


def test_a_weight_of_unknown_sign_is_no_proof() -> None:
    unknown = sp.Symbol("u", real=True)
    value = sp.Symbol("f", nonnegative=True)
    step = Identity("u f >= 0", unknown * value, used=(Used("f >= 0", value, unknown),))
    assert step.failures()


def test_inner_products_are_symmetric_and_bilinear() -> None:
    x, y = Vector.named("x"), Vector.named("y")
    assert sp.expand((x + 2 * y).square - x.square - 4 * x.dot(y) - 4 * y.square) == 0
    assert x.dot(y) == y.dot(x)


def test_every_theorem_of_the_paper_in_the_convex_case_rests_on_checked_algebra() -> None:
    for name in ("T0", "T1", "T2", "T3", "T4", "T4'"):
        assert find_proofs(name)
    assert not find_proofs("none")
