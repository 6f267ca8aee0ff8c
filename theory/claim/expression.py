"""A claim's formula, read without evaluating anything but arithmetic.

The text is parsed into a syntax tree (never run); each node must be on a short list, and is turned into a
sympy expression by hand. Numbers and powers are bounded, so that no text can cost time or memory.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import sympy as sp
from numpy.typing import NDArray

from theory.support.errors import UserError

Array = NDArray[np.float64]
#: What a formula may speak of; the symbols of the theory.
NAMES = {
    "L": "smoothness of every sample's loss",
    "D": "||x_0 - x*||^2",
    "mu": "quadratic growth of every f_i",
    "c": "similarity, f_i >= c f",
    "rho": "strong growth",
    "gamma": "margin of separable data",
    "n": "nodes",
    "K": "local steps a round",
    "R": "rounds",
    "T": "iterations, K R",
    "eta": "step size",
    "m": "participating nodes a round",
    "beta": "outer step",
    "f0": "f(x_0)",
}
FUNCTIONS: dict[str, Callable[..., sp.Expr]] = {
    "sqrt": sp.sqrt,
    "log": sp.log,
    "exp": sp.exp,
    "min": sp.Min,
    "max": sp.Max,
}
LONGEST, DEEPEST, LARGEST_POWER, MOST_DIGITS = 400, 40, 64, 18
_ALLOWED = (
    f"names {', '.join(NAMES)}; numbers; + - * / ^; {', '.join(f'{name}()' for name in FUNCTIONS)}"
)


@dataclass(frozen=True)
class Expression:
    """A formula in the names of NAMES.

    Attributes:
        text: as it was typed.
        symbolic: as sympy has it, all symbols positive.
    """

    text: str
    symbolic: sp.Expr

    @property
    def names(self) -> tuple[str, ...]:
        """The names that it speaks of, in the order of NAMES."""
        used = {symbol.name for symbol in self.symbolic.free_symbols}
        return tuple(name for name in NAMES if name in used)

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        symbols = [sp.Symbol(name, positive=True) for name in self.names]
        return cast("Callable[..., Any]", sp.lambdify(symbols, self.symbolic, "numpy"))

    @cached_property
    def _slopes(self) -> dict[str, Callable[..., Any]]:
        symbols = [sp.Symbol(name, positive=True) for name in self.names]
        return {
            symbol.name: sp.lambdify(symbols, sp.diff(self.symbolic, symbol), "numpy")
            for symbol in symbols
        }

    def partials(self, values: Mapping[str, float]) -> dict[str, float]:
        """The derivative in each of :attr:`names`; at a tie of min or max the mean of both sides'.

        Args:
            values: a number for each name.
        """
        numbers = [float(values[name]) for name in self.names]
        with np.errstate(all="ignore"):
            return {
                name: float(slope(*map(np.float64, numbers)))
                for name, slope in self._slopes.items()
            }

    def __call__(self, values: Mapping[str, float | Array]) -> Array:
        """The value, elementwise; NaN or infinite where it is not defined (a division by zero).

        Args:
            values: a number or an array for each of :attr:`names`.
        """
        with np.errstate(all="ignore"):
            found = self._compiled(*(np.asarray(values[name], float) for name in self.names))
            return np.asarray(found, float)


def parse(text: str) -> Expression:
    """Read a formula.

    Args:
        text: arithmetic in the names of NAMES; ``^`` and ``**`` are powers.

    Raises:
        UserError: anything else, in one line that says what is allowed.
    """
    if not text.strip() or len(text) > LONGEST:
        raise UserError(f"the claim has {len(text)} characters, allowed: 1 to {LONGEST}")
    try:
        # Python reads ^ as another operator, weaker than +.
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise UserError(
            f"the claim {_short(text)} can't be read ({reason}); allowed: {_ALLOWED}"
        ) from None
    expression = _build(tree, 0)
    if expression.has(sp.zoo, sp.nan, sp.oo, sp.I):
        raise UserError(f"the claim {_short(text)} divides by zero or is no real number")
    return Expression(text, expression)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _refuse(node: ast.AST, depth: int) -> UserError:
    what = (
        "nested too deeply" if depth > DEEPEST else f"{_short(ast.unparse(node))} is not arithmetic"
    )
    return UserError(f"the claim's {what}; allowed: {_ALLOWED}")


def _build(node: ast.expr, depth: int) -> sp.Expr:
    if depth > DEEPEST:
        raise _refuse(node, depth)
    if isinstance(node, ast.Constant):
        return _number(node)
    if isinstance(node, ast.Name):
        if node.id not in NAMES:
            raise UserError(f"the claim speaks of {_short(node.id)}; allowed: {_ALLOWED}")
        return sp.Symbol(node.id, positive=True)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        inner = _build(node.operand, depth + 1)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp):
        return _binary(node, depth)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        name, arguments = node.func.id, [_build(a, depth + 1) for a in node.args]
        most = len(arguments) if name in ("min", "max") else 1
        if name in FUNCTIONS and 1 <= len(arguments) <= most:
            return FUNCTIONS[name](*arguments)
    raise _refuse(node, depth)


def _number(node: ast.Constant) -> sp.Expr:
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refuse(node, 0)
    if abs(value) >= 10**MOST_DIGITS:
        raise UserError(f"the claim has a number above 10^{MOST_DIGITS}, allowed: smaller ones")
    # 0.1 is meant as 1/10, not as the float beside it.
    return sp.Integer(value) if isinstance(value, int) else sp.Rational(repr(value))


def _binary(node: ast.BinOp, depth: int) -> sp.Expr:
    left, right = _build(node.left, depth + 1), _build(node.right, depth + 1)
    if isinstance(node.op, ast.Add):
        return left + right
    if isinstance(node.op, ast.Sub):
        return left - right
    if isinstance(node.op, ast.Mult):
        return left * right
    if isinstance(node.op, ast.Div):
        return left / right
    if isinstance(node.op, ast.Pow):
        if right.is_number and not abs(right) <= LARGEST_POWER:
            raise UserError(f"the claim has a power above {LARGEST_POWER}, allowed: up to that")
        if left.is_number and left.is_Rational and abs(left.p) > 10**MOST_DIGITS:
            raise UserError("the claim raises a large number to a power, allowed: small ones")
        return left**right
    raise _refuse(node, depth)
