"""Formulas of claims: arithmetic in the theory's names is read exactly, nothing else is."""

from __future__ import annotations

import math
import time

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from theory.claim.expression import NAMES, parse
from theory.support.errors import UserError


def test_a_formula_is_arithmetic_in_the_names_of_the_theory() -> None:
    claim = parse("L*D/(4*K*R)")
    assert claim.names == ("L", "D", "K", "R")
    assert claim({"L": 2.0, "D": 3.0, "K": 5, "R": 7}) == pytest.approx(6 / 140)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^3^2 / 512", 1.0),
        ("-(1 - eta*mu)**T * D", -(0.9**4)),
        ("sqrt(D)*exp(-R)*log(T)", math.exp(-2) * math.log(4)),
        ("min(L, D/2, 7) + max(1, 3)", 3.5),
        ("0.1*3", 0.3),
        ("1e-3", 1e-3),
        ("+f0/rho", 1.0),
    ],
)
def test_values(text: str, value: float) -> None:
    numbers = dict.fromkeys(NAMES, 1.0) | {"eta": 0.1, "T": 4.0, "R": 2.0}
    assert parse(text)(numbers) == pytest.approx(value)


def test_decimals_are_exact() -> None:
    assert parse("0.1").symbolic == sp.Rational(1, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "x",
        "L.real",
        "__import__('os').system('id')",
        "(lambda: 1)()",
        "[1][0]",
        "L if D else 1",
        "L and D",
        "L < D",
        "L @ D",
        "L // D",
        "L % D",
        "'a'",
        "f'{L}'",
        "1j",
        "True",
        "None",
        "10**1000000",
        "9^9^9",
        "10^64^2",
        "L**1000",
        "1e400",
        "10000000000000000000000",
        "sqrt()",
        "sqrt(1, 2)",
        "exp(x=1)",
        "open('f')",
        "sin(L)",
        "L*",
        "L;D",
        "L=1",
        "(" * 300 + "L" + ")" * 300,
        "-" * 100 + "L",
        "L/0",
        "log(0)",
        "sqrt(-1)",
        "L" * 500,
        "D\x00",
        "min(*[1])",
        "globals()",
        "L := 3",
        "{1}",
        "...",
    ],
)
def test_what_is_not_arithmetic_is_refused_at_once_in_one_line(text: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(UserError) as refusal:
        parse(text)
    assert time.perf_counter() - begin < 2
    assert "\n" not in str(refusal.value) and "claim" in str(refusal.value)


@given(st.text(max_size=60))
def test_any_text_is_a_formula_or_a_user_error(text: str) -> None:
    try:
        parse(text)
    except UserError as error:
        assert "\n" not in str(error)
