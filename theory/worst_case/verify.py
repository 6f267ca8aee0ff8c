"""Check worst-case certificates in exact rational arithmetic, with the standard library alone.

Run it as ``python theory/worst_case/verify.py FILE...``; a file holds a certificate a line. Each encloses
the worst value of a metric of Local SGD (K local steps, R rounds, step size eta, outer step beta) over all
f_1..f_n convex and 1-smooth, with common minimiser x* = 0 of value 0 and ||x_0|| <= 1; with growth mu also
f_i >= (mu/2) ||x||^2. For L and D multiply by L D, a distance by D.

Unknowns: F_t = (1/n) sum_i f_i(x_i^t), and two Gram matrices: M of x_0 and the mean gradients, V of the
nodes' own parts of the gradients (they suffice for every n >= 2: theory/worst_case/reduction.py). They
come from a problem iff M and V are psd and every pair (a, b) of points, x* among them, meets (Taylor,
Hendrickx, Glineur, Math. Program. 2017, Th. 4)  F_b - F_a + <g_b, x_a - x_b> + ||g_a - g_b||^2 / 2 <= 0.

Upper side: for weights y >= 0 on the conditions A and y_0 on ||x_0||^2 <= 1, the metric is at most y_0 +
<goal - B'y, F> + <C - A'y, X>; 0 <= F_t <= q_t/2, tr X <= 1 + sum_t q_t, where q_t bounds ||x_t||^2 (local
steps and the mean never increase ||x||, a step beta > 1 at most (2 beta - 1)-fold). A shift s with
A'y - C + s I psd costs s tr X. Lower side: M, V and F themselves; all is checked.
"""

import json
import sys
from fractions import Fraction as Q
from typing import Any

STAR = -1
METRICS = ("last", "best", "average_sync", "average_local", "distance")
Vector = list[dict[int, Q]]  # block by block, the coefficients that are not zero
Terms = list[tuple[Q, Vector, Vector]]  # the sum of weight <u, w>
Matrix = list[list[Q]]


class Rejected(Exception):
    """The certificate does not prove its claim."""


class Cell:
    """What is certified, with the points x_t and gradients g_t of one node on the Grams' basis."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.k, self.r, self.metric = found["local_steps"], found["rounds"], found["metric"]
        self.eta, self.beta, self.mu = (Q(found[n]) for n in ("step_size", "outer_step", "growth"))
        whole = type(self.k) is type(self.r) is int and self.k >= 1 and self.r >= 1
        inside = 0 < self.eta < 2 and self.beta > 0 and 0 <= self.mu < 1
        if not (whole and inside and self.metric in METRICS):
            raise Rejected("the cell is outside the class")
        self.points = n = self.k * self.r + (self.metric in ("last", "best", "distance"))
        self.starts = range(0, n, self.k)
        self.sizes = [1 + n] if found["one_node"] is True else [1 + n, n]
        spread = max(Q(1), 2 * self.beta - 1)
        self.square = [spread ** (2 * (t // self.k)) for t in range(n)]
        nothing: Vector = [{} for _ in self.sizes]
        self.x, self.g = {STAR: nothing}, {STAR: nothing}
        begun = now = [{0: Q(1)}, *nothing[1:]]
        for t in range(n):
            if t % self.k == 0:  # xbar + beta (mean of the nodes - xbar); own parts have mean zero
                moved = combine(begun, combine(now, begun, Q(-1)), self.beta)
                begun = now = [moved[0], *nothing[1:]]
            self.x[t], self.g[t] = now, [{1 + t: Q(1)}, {t: Q(1)}][: len(nothing)]
            now = combine(now, self.g[t], -self.eta)

    def condition(self, a: int, b: int) -> tuple[Terms, dict[int, Q]]:
        """The condition of (a, b) as terms on the Grams + coefficients . F <= 0."""
        step = combine(self.g[a], self.g[b], Q(-1))
        terms = [(Q(1, 2), step, step)]
        if (
            b == STAR
        ):  # g_b = 0; with growth, f_a - ||g_a||^2/2 >= (m/2) ||x_a - g_a||^2, m = mu/(1 - mu)
            z = combine(self.x[a], self.g[a], Q(-1))
            terms.append((self.mu / (1 - self.mu) / 2, z, z))
        else:
            terms.append((Q(1), self.g[b], combine(self.x[a], self.x[b], Q(-1))))
        return terms, {t: Q(c) for t, c in ((a, -1), (b, 1)) if t != STAR}

    def goal(self) -> tuple[Terms, dict[int, Q]]:
        """The metric; empty for the best iterate, which the two sides treat themselves."""
        last = self.points - 1
        sets = {"last": [last], "average_sync": self.starts, "average_local": range(self.points)}
        chosen = sets.get(self.metric, [])
        terms = [(Q(1), self.x[last], self.x[last])] if self.metric == "distance" else []
        return terms, {t: Q(1, len(chosen)) for t in chosen}


def combine(first: Vector, second: Vector, factor: Q) -> Vector:
    """first + factor second."""
    pairs = zip(first, second, strict=True)
    return [{i: u.get(i, Q(0)) + factor * w.get(i, Q(0)) for i in {*u, *w}} for u, w in pairs]


def value(terms: Terms, scalars: dict[int, Q], grams: list[Matrix], losses: list[Q]) -> Q:
    total = sum((c * losses[t] for t, c in scalars.items()), Q(0))
    for weight, first, second in terms:
        for u, w, gram in zip(first, second, grams, strict=True):
            total += weight * sum(
                (a * b * gram[i][j] for i, a in u.items() for j, b in w.items()), Q(0)
            )
    return total


def add_terms(matrices: list[Matrix], terms: Terms, factor: Q) -> None:
    """Add factor times the symmetric matrix of the terms to every block."""
    for weight, first, second in terms:
        for u, w, matrix in zip(first, second, matrices, strict=True):
            for i, j in ((i, j) for i in u for j in w):
                matrix[i][j] += factor * weight * u[i] * w[j] / 2
                matrix[j][i] += factor * weight * u[i] * w[j] / 2


def is_psd(matrix: Matrix) -> bool:
    """By symmetric elimination: every pivot is positive, or zero with a zero row."""
    rows = [list(row) for row in matrix]
    symmetric = rows == [list(column) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        if not symmetric or row[i] < 0 or (row[i] == 0 and any(row[i:])):
            return False
        for below in (lower for lower in rows[i + 1 :] if lower[i]):
            factor = below[i] / row[i]
            below[i:] = [b - factor * a for a, b in zip(row[i:], below[i:], strict=True)]
    return True


def check_upper(cell: Cell, found: dict[str, Any]) -> Q:
    """The bound that the multipliers prove."""
    terms, left = cell.goal()
    slack = [[[Q(0)] * size for _ in range(size)] for size in cell.sizes]
    add_terms(slack, terms, Q(-1))
    weights = [Q(w) for w in found["best"]] if cell.metric == "best" else [Q(1)]
    if cell.metric == "best":  # min_r F_r <= sum_r w_r F_r for convex weights w
        left = dict(zip(cell.starts, weights, strict=True))
    bound, shift = Q(found["start"]), Q(found["shift"])
    pairs = [(a, b, Q(y)) for a, b, y in found["pairs"]]
    if min([bound, shift, *weights, *(y for _, _, y in pairs)]) < 0 or sum(weights) != 1:
        raise Rejected("a multiplier is negative, or the weights do not add up to 1")
    slack[0][0][0] += bound
    for a, b, y in pairs:
        terms, scalars = cell.condition(a, b)
        add_terms(slack, terms, y)
        for t, c in scalars.items():
            left[t] = left.get(t, Q(0)) - y * c
    for block in slack:
        for i, row in enumerate(block):
            row[i] += shift
    if not all(map(is_psd, slack)):
        raise Rejected("the shifted dual matrix is not positive semidefinite")
    charged = sum((max(rest, Q(0)) * cell.square[t] / 2 for t, rest in left.items()), Q(0))
    return bound + charged + shift * (1 + sum(cell.square))


def check_lower(cell: Cell, found: dict[str, Any]) -> Q:
    """The metric on the Gram matrices, once they are shown to be those of a problem."""
    scale, blocks = Q(found["scale"]), [found["mean"], found.get("deviation")][: len(cell.sizes)]
    grams = [[[scale * Q(entry) for entry in row] for row in block] for block in blocks]
    losses = [scale * Q(entry) for entry in found["losses"]]
    right = [[len(row) for row in gram] for gram in grams] == [[n] * n for n in cell.sizes]
    right = right and len(losses) == cell.points and all(map(is_psd, grams))
    if not right or grams[0][0][0] > 1:
        raise Rejected("the matrices are not psd, or of the wrong size, or ||x_0|| > 1")
    for a, b in ((a, b) for a in cell.x for b in cell.x if a != b):
        if value(*cell.condition(a, b), grams, losses) > 0:
            raise Rejected(f"the condition of the points {a}, {b} is violated")
    best = min(losses[t] for t in cell.starts)
    return best if cell.metric == "best" else value(*cell.goal(), grams, losses)


def verify(found: dict[str, Any]) -> tuple[Q, Q]:
    """(lower, upper) as the certificate claims and proves them; raises `Rejected` otherwise."""
    try:
        cell = Cell(found["cell"])
        claimed = Q(found["lower"]["value"]), Q(found["upper"]["bound"])
        lower, upper = check_lower(cell, found["lower"]), check_upper(cell, found["upper"])
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Rejected(f"not a certificate: {type(error).__name__} {error}") from None
    if lower < claimed[0] or upper > claimed[1]:
        raise Rejected("it proves less than it claims")
    return claimed


def main(paths: list[str]) -> int:
    """A line a certificate; the status is 0, 1 when one is rejected, 2 when a file can't be read."""
    status = 0 if paths else 2
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                certificates = [json.loads(line) for line in file if line.strip()]
        except (OSError, ValueError) as error:
            print(f"error: {path}: {error}", file=sys.stderr)
            return 2
        for number, found in enumerate(certificates, 1):
            try:
                low, high = verify(found)
                name = ", ".join(f"{key} {value}" for key, value in found["cell"].items())
                floor, ceiling = low * 10**9 // 1 / 10**9, -(-high * 10**9 // 1) / 10**9
                print(f"PROVED {floor:.9f} <= worst case <= {ceiling:.9f}: {name}")
            except Rejected as reason:
                print(f"REJECTED {path}, line {number}: {reason}")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
