"""The sharper constants: S1 (every path), S2 and S3 (K >= 2 at eta = 1/L), and T2 with (1 - (1-a)^R)/a."""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from theory.proofs.algebra import Identity, Proof, Used, Vector, mean
from theory.proofs.steps import ETA, SMALL_STEP, L

#: (n, K, R) of S1, whose sums are written out.
SIZES = ((1, 1, 1), (1, 3, 1), (2, 1, 2), (2, 2, 2), (2, 3, 2), (3, 2, 1))


def every_path() -> Proof:
    """S1: T times the mean batch loss is at most D / (2 (eta + (1/L - eta)/T))."""
    steps = [_every_path(*size) for size in SIZES]
    return Proof(
        "S1",
        ("T0", "T1", "T3"),
        "eta <= 1/L and L symbolic; (n, K, R) = " + ", ".join(map(str, SIZES)),
        steps,
        "D / (2 A) over T, A = eta + (1/L - eta)/T, is L D / (2 (1 + eta L (T - 1))).",
    )


def _every_path(n: int, local_steps: int, rounds: int) -> Identity:
    eta, total = ETA, local_steps * rounds
    start = Vector.named("x_0 - x*")
    used, gradients, losses = [], [], sp.Integer(0)
    squares: list[tuple[sp.Expr, Vector]] = []
    common = start
    for r in range(rounds):
        nodes = [common] * n
        own = [
            [Vector.named(f"g_{i}^{r * local_steps + k}") for k in range(local_steps)]
            for i in range(n)
        ]
        for k in range(local_steps):
            for i in range(n):
                g, f = own[i][k], sp.Symbol(f"f_{i}^{r * local_steps + k}", nonnegative=True)
                losses += f / n
                condition = g.dot(nodes[i]) - f - g.square / (2 * L)
                used.append(Used("f + ||g||^2/(2L) <= <g, x - x*>", condition, sp.Rational(1, n)))
                nodes[i] = nodes[i] - eta * g
        sums = [_sum(part) for part in own]
        squares += [(eta / (2 * n), part - mean(sums)) for part in sums]
        gradients += [(g, sp.Rational(1, n)) for part in own for g in part]
        common = mean(nodes)
    everything = _sum([weight * g for g, weight in gradients])
    curvature = sp.Symbol("A", positive=True)
    squares += [
        ((1 / L - eta) / 2 * weight, g - sp.Rational(1, total) * everything)
        for g, weight in gradients
    ]
    squares.append((1 / (2 * curvature), start - curvature * everything))
    return Identity(
        f"n = {n}, K = {local_steps}, R = {rounds}: sum_t (1/n) sum_i l_i^t <= D/(2A)",
        start.square / (2 * curvature) - losses,
        used=used,
        squares=squares,
        ranges=SMALL_STEP,
        definitions={curvature: eta + (1 / L - eta) / total},
    )


def _sum(vectors: Sequence[Vector]) -> Vector:
    return len(vectors) * mean(vectors)


def synchronised_rounds() -> Proof:
    """S2, S3: eta = 1/L, deterministic, K >= 2 symbolic, any R."""
    extra = sp.Symbol("k", nonnegative=True, integer=True)
    local_steps = 2 + extra
    # D_before = ||xbar_{r-1} - x*||^2, m = mean ||y_i - x*||^2 at the end of the round, a = ||xbar_r - x*||^2.
    before, m, a = sp.symbols("D_before m a", nonnegative=True)
    phi, f_before, f_after = sp.symbols("Phi f_before f_after", nonnegative=True)
    plain = Used(
        "m <= D_before - 2 K Phi/L: every prox step lowers ||x_i - x*||^2 by 2 phi_i(next)/L, and phi_i falls",
        before - 2 * local_steps * phi / L - m,
        L / 8,
    )
    first = Used(
        "m <= D_before - 2 f(xbar_before)/L - 2 (K - 1) Phi/L: the first step lowers it by 2 f_i/L",
        before - 2 * f_before / L - 2 * (local_steps - 1) * phi / L - m,
        sp.Integer(1),
    )

    def tested(s: sp.Expr, weight: sp.Expr) -> Used:
        return Used(
            f"f_i is an envelope, tested at {s} y_i: f(xbar_r) <= s Phi + (L/2)(a - 2 s a + s^2 m)",
            s * phi + L / 2 * (a - 2 * s * a + s**2 * m) - f_after,
            weight,
        )

    one = sp.Integer(1)
    return Proof(
        "S2, S3",
        ("T2",),
        "L and K >= 2 symbolic, every R",
        (
            Identity(
                "S2: f(xbar_r) <= L D_before / 8",
                L * before / 8 - f_after,
                used=(
                    tested(sp.Rational(1, 2), one),
                    plain,
                    Used("Phi >= 0, K >= 2", phi, (local_steps - 2) / sp.Integer(4)),
                ),
            ),
            Identity(
                "S3: D_r <= D_before - 2 f(xbar_before)/L - 2 f(xbar_r)/L",
                before - 2 * f_before / L - 2 * f_after / L - a,
                used=(
                    tested(one, 2 / L),
                    first,
                    Used("Phi >= 0, K >= 2", phi, 2 * (local_steps - 2) / L),
                ),
            ),
        ),
        "S2 holds with D for D_before, which only falls. S3 telescopes: f(xbar_0)/2 + sum_{0<r<R} f(xbar_r)"
        " + f(xbar_R)/2 <= L (D - D_R)/4, so the best of R + 1 is at most L D/(4R).",
    )


def synchronised_average() -> Proof:
    """T2 with (L D/2R)(1 - (1-a)^R)/a: the round's decrease a, and the sum over rounds."""
    eta = sp.Symbol("eta", positive=True)  # L = 1: eta stands for eta L, in (0, 1]
    below_one = {eta: SMALL_STEP[ETA] * L}
    q = 1 - eta
    v, b, p = sp.symbols("v b p_k", nonnegative=True)
    pivot = 1 - eta + eta**2 * p
    following = 1 + p * (1 - eta) / pivot
    power = sp.Symbol("Q", positive=True)

    def closed(at: sp.Expr) -> sp.Expr:
        return (1 - at) / (eta * (1 + at / q))

    decrease, w = sp.symbols("a w", positive=True)
    excess = sp.Symbol("u", nonnegative=True)  # w = (1-a)^(R-1) in (0, 1] as 1/(1 + u)
    w = 1 / (1 + excess)
    now, then, loss = sp.symbols("D_r D_next f_r", nonnegative=True)
    return Proof(
        "T2, sharper",
        ("T2",),
        "eta <= 1/L, K and R symbolic",
        (
            Identity(
                "a step of the recursion: v^2 + (1 - eta) b^2 + p_k (v - eta b)^2 >= p_{k+1} v^2",
                v**2 + (1 - eta) * b**2 + p * (v - eta * b) ** 2 - following * v**2,
                scalar_squares=((pivot, b - eta * p * v / pivot),),
                ranges=below_one,
            ),
            Identity(
                "p_K = (1 - q^(2K)) / (eta (1 + q^(2K-1))) solves it: p_0 = 0",
                closed(sp.Integer(1)),
            ),
            Identity(
                "and p_{K+1} follows p_K (Q stands for q^(2K))",
                closed(power * q**2) - following.subs(p, closed(power)),
            ),
            Identity(
                "one more round: f_r + V_{R-1}(D_next) <= V_R(D_r), V_R(D) = (D/2a)(1 - (1-a)^R)",
                now * (1 - (1 - decrease) * w) / (2 * decrease)
                - loss
                - then * (1 - w) / (2 * decrease),
                used=(
                    Used(
                        "a round: D_next <= D_r - 2 a f(xbar_r)",
                        now - 2 * decrease * loss - then,
                        (1 - w) / (2 * decrease),
                    ),
                    Used("smoothness: f(xbar_r) <= D_r / 2", now / 2 - loss, w),
                ),
            ),
        ),
        "By induction over the local steps a round lowers the mean squared distance by 2 a f(xbar_r),"
        " a = eta p_K; by induction over the rounds the sum of f(xbar_r) is at most V_R(D).",
    )


def all_sharper() -> Sequence[Proof]:
    """The proofs of this file."""
    return every_path(), synchronised_rounds(), synchronised_average()
