"""A proof by inequalities as data: what is used, with which weight, and what is left over.

Vectors of any dimension are linear combinations of named ones, and their inner products are symbols; so
an identity that holds in these symbols holds in every dimension. A claim ``value >= 0`` is proved by

    value = sum_k weight_k (inequality_k) + sum_j weight_j ||vector_j||^2,   all weights >= 0.

Ranges such as 0 < eta <= 1/L are parametrised (eta = 1/(L (1 + p)) with p >= 0) for the signs of the
weights; where sympy can't tell a sign, the proof counts as not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy as sp


@dataclass(frozen=True)
class Vector:
    """A linear combination of named vectors: coefficients by name."""

    terms: Mapping[str, sp.Expr]

    @classmethod
    def named(cls, name: str) -> Vector:
        return cls({name: sp.Integer(1)})

    def __add__(self, other: Vector) -> Vector:
        names = [*self.terms, *(name for name in other.terms if name not in self.terms)]
        zero = sp.Integer(0)
        return Vector({n: self.terms.get(n, zero) + other.terms.get(n, zero) for n in names})

    def __rmul__(self, factor: sp.Expr | int) -> Vector:
        return Vector({name: sp.sympify(factor) * c for name, c in self.terms.items()})

    def __sub__(self, other: Vector) -> Vector:
        return self + (-1) * other

    def dot(self, other: Vector) -> sp.Expr:
        """The inner product, in symbols <a,b> that do not depend on the order of a and b."""
        total = sp.Integer(0)
        for a, x in self.terms.items():
            for b, y in other.terms.items():
                total += x * y * sp.Symbol("<{},{}>".format(*sorted((a, b))), real=True)
        return total

    @property
    def square(self) -> sp.Expr:
        """||v||^2."""
        return self.dot(self)


def mean(vectors: Sequence[Vector]) -> Vector:
    """(1/n) sum of the vectors."""
    total = vectors[0]
    for vector in vectors[1:]:
        total = total + vector
    return sp.Rational(1, len(vectors)) * total


@dataclass(frozen=True)
class Used:
    """An inequality ``value >= 0`` with the weight that it enters with."""

    why: str
    value: sp.Expr
    weight: sp.Expr


@dataclass(frozen=True)
class Identity:
    """One step of a proof.

    Attributes:
        says: the claim in words and formulas.
        value: what is claimed to be at least 0 (exactly 0 where nothing is used and left over).
        used: inequalities with weights.
        squares: (weight, vector) of the remainder.
        scalar_squares: (weight, expression) of the remainder, weight expression^2.
        ranges: symbol -> what runs through its range, for the signs of the weights.
        definitions: symbol -> what it stands for, put in at the end.
    """

    says: str
    value: sp.Expr
    used: Sequence[Used] = ()
    squares: Sequence[tuple[sp.Expr, Vector]] = ()
    scalar_squares: Sequence[tuple[sp.Expr, sp.Expr]] = ()
    ranges: Mapping[sp.Symbol, sp.Expr] = field(default_factory=dict)
    definitions: Mapping[sp.Symbol, sp.Expr] = field(default_factory=dict)

    def remainder(self) -> sp.Expr:
        """value less all that proves it; 0 for a proof."""
        total = self.value
        for item in self.used:
            total -= item.weight * item.value
        for weight, vector in self.squares:
            total -= weight * vector.square
        for weight, root in self.scalar_squares:
            total -= weight * root**2
        # Coefficient by coefficient of the inner products: many small fractions, no large one.
        products = sorted((s for s in total.free_symbols if s.name.startswith("<")), key=str)
        if not products:
            return sp.cancel(sp.together(total.subs(self.definitions)))
        parts = sp.collect(sp.expand(total), products, evaluate=False)
        return sum(
            (sp.cancel(part.subs(self.definitions)) * product for product, part in parts.items()),
            sp.Integer(0),
        )

    def weights(self) -> list[sp.Expr]:
        """All weights, each of which must be at least 0."""
        found = [item.weight for item in self.used]
        return [*found, *(w for w, _ in self.squares), *(w for w, _ in self.scalar_squares)]

    def failures(self) -> list[str]:
        """Why this is no proof; empty when it is one."""
        found = []
        rest = self.remainder()
        if rest != 0:
            found.append(f"{self.says}: the two sides differ by {rest}")
        for weight in self.weights():
            if not _is_nonnegative(weight.subs(self.definitions).subs(self.ranges)):
                found.append(f"{self.says}: the weight {weight} is not known to be at least 0")
        return found


def _is_nonnegative(weight: sp.Expr) -> bool:
    return bool(weight.is_nonnegative or sp.factor(weight).is_nonnegative)


@dataclass(frozen=True)
class Proof:
    """The steps of one statement's proof.

    Attributes:
        name: "Lemma 1", "T2/sharper", ...
        theorems: names of the theorems whose explanation shows it.
        scope: what is symbolic and what is not.
        steps: the identities; their sum or chain is the statement.
        conclusion: how the steps give it (a telescope, an induction), in words.
    """

    name: str
    theorems: tuple[str, ...]
    scope: str
    steps: Sequence[Identity]
    conclusion: str
    notes: str = field(default="")

    def failures(self) -> list[str]:
        """Why a step is no proof; empty when all are."""
        return [reason for step in self.steps for reason in step.failures()]

    def text(self) -> str:
        """For ``verify_rates --explain``: each step, what it uses, and the outcome of the check."""
        failed = self.failures()
        outcome = "checked symbolically" if not failed else "NOT PROVED: " + "; ".join(failed)
        lines = [f"{self.name} ({self.scope}): {outcome}."]
        for step in self.steps:
            lines.append(f"  {step.says}")
            counted = Counter(f"weight {sp.factor(u.weight)} on: {u.why}" for u in step.used)
            lines += [
                f"    {n} x {used}" if n > 1 else f"    {used}" for used, n in counted.items()
            ]
            squares = len(step.squares) + len(step.scalar_squares)
            if squares:
                lines.append(f"    and {squares} square{'s' if squares > 1 else ''}")
        return "\n".join([*lines, f"  {self.conclusion}"])
