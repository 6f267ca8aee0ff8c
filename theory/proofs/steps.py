"""One step and one round: Lemma 1, Lemma 2, and the energy balance T9."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from theory.proofs.algebra import Identity, Proof, Used, Vector, mean

L = sp.Symbol("L", positive=True)
ETA = sp.Symbol("eta", positive=True)
_P, _S = sp.Symbol("p", nonnegative=True), sp.Symbol("s", positive=True)
#: What runs through (0, 1/L], and through (1/L, 2/L).
SMALL_STEP = {ETA: 1 / (L * (1 + _P))}
LARGE_STEP = {ETA: (2 + _S) / (L * (1 + _S))}


def lemma_1() -> Proof:
    """||x - eta g - x*||^2 <= ||x - x*||^2 - 2 eta phi f, for eta < 2/L."""
    d, g = Vector.named("x - x*"), Vector.named("g")
    f = sp.Symbol("f", nonnegative=True)
    at_star = "f(x*) >= f(x) + <g, x* - x> + ||g||^2/(2L), f(x*) = 0"
    from_star = "f(x) >= ||g||^2/(2L)"

    def step(says: str, phi: sp.Expr, ranges: dict[sp.Symbol, sp.Expr]) -> Identity:
        eta = ETA
        return Identity(
            says,
            d.square - 2 * eta * phi * f - (d - eta * g).square,
            used=(
                Used(at_star, g.dot(d) - f - g.square / (2 * L), 2 * eta),
                Used(from_star, 2 * L * f - g.square, (1 - phi) * eta / L),
            ),
            squares=((eta / L - eta**2 + (1 - phi) * eta / L, g),),
            ranges=ranges,
        )

    return Proof(
        "Lemma 1",
        ("T0", "T1", "T2", "T3", "T4", "T4'"),
        "eta and L symbolic",
        (
            step("eta <= 1/L, phi = 1", sp.Integer(1), SMALL_STEP),
            step("1/L < eta < 2/L, phi = 2 - eta L", 2 - ETA * L, LARGE_STEP),
        ),
        "The two ranges together are 0 < eta < 2/L.",
    )


def telescope() -> Proof:
    """T1, T2 from Lemma 1: averaging does not raise the mean squared distance."""
    averaging = []
    for n in (2, 3, 4):
        nodes = [Vector.named(f"x_{i} - x*") for i in range(n)]
        middle = mean(nodes)
        value = sum(((x.square for x in nodes)), sp.Integer(0)) / n - middle.square
        squares = [(sp.Rational(1, n), x - middle) for x in nodes]
        averaging.append(Identity(f"averaging {n} nodes", value, squares=squares))
    return Proof(
        "Averaging",
        ("T0", "T1", "T2", "T3", "T4", "T4'", "T7"),
        "n = 2, 3, 4",
        averaging,
        "So D_t = mean ||x_i^t - x*||^2 falls by 2 eta phi times the mean batch loss at every iteration;"
        " the sum over t < T telescopes to D_0 - D_T (T0), its expectation is T1, and the terms t = rK"
        " alone are T2.",
    )


def lemma_2() -> Proof:
    """A round with participants M and outer step beta."""
    beta, phi = sp.symbols("beta phi", positive=True)
    eta = ETA
    steps = []
    for m in (1, 2, 3):
        e = Vector.named("xbar - x*")
        moved = [Vector.named(f"Delta_{i}") for i in range(m)]
        losses = sp.symbols(f"S_0:{m}", nonnegative=True)
        middle = mean(moved)
        p = sum((v.square for v in moved), sp.Integer(0)) / m
        s = sum(losses, sp.Integer(0)) / m
        value = (
            e.square
            - beta * (p - beta * middle.square)
            - 2 * beta * eta * phi * s
            - (e + beta * middle).square
        )
        used = [
            Used(
                "Lemma 1 along a node: ||xbar + Delta - x*||^2 <= ||xbar - x*||^2 - 2 eta phi S",
                e.square - (e + v).square - 2 * eta * phi * loss,
                beta / m,
            )
            for v, loss in zip(moved, losses, strict=True)
        ]
        steps.append(Identity(f"{m} participant{'s' if m > 1 else ''}", value, used=used))
    return Proof(
        "Lemma 2",
        ("T7", "T8a", "T8b", "T8c"),
        "beta, eta and phi symbolic, m = 1, 2, 3",
        steps,
        "The weights beta/m and the inequalities do not know m: the same identity is a mean over M.",
    )


def energy() -> Proof:
    """T9: an identity, for any differentiable losses."""
    eta = ETA
    x, g = Vector.named("x - z"), Vector.named("g")
    one = Identity(
        "a local step: ||x - z||^2 - ||x - eta g - z||^2 = 2 eta <g, x - z> - eta^2 ||g||^2",
        x.square - (x - eta * g).square - 2 * eta * g.dot(x) + eta**2 * g.square,
    )
    steps = [one]
    for n in (2, 3):
        nodes = [Vector.named(f"x_{i} - z") for i in range(n)]
        middle = mean(nodes)
        before = sum((v.square for v in nodes), sp.Integer(0)) / n
        spread = sum(((v - middle).square for v in nodes), sp.Integer(0)) / n
        steps.append(
            Identity(f"averaging {n} nodes takes exactly C_r", before - middle.square - spread)
        )
    return Proof(
        "T9",
        ("T9",),
        "eta symbolic, n = 2, 3",
        steps,
        "Both are equalities, so their sum over iterations and rounds is one: the balance closes.",
    )


def all_steps() -> Sequence[Proof]:
    """The proofs of this file."""
    return lemma_1(), telescope(), lemma_2(), energy()
