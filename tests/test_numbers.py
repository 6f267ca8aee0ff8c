"""Numbers and lists as users type them: one check, one line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.support import numbers
from theory.support.errors import UserError


@given(st.integers())
def test_a_seed_is_an_unsigned_64_bit_integer(value: int) -> None:
    if 0 <= value < 2**64:
        assert numbers.seed("seed", value) == value
    else:
        with pytest.raises(
            UserError, match=r"seed is .*, allowed: integers from 0 to 1844674407370955"
        ):
            numbers.seed("seed", value)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_numpy_integers_are_integers(kind: type[np.integer]) -> None:
    found = numbers.seed("seed", kind(3))
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    "value", [1.5, 2.0, math.nan, math.inf, True, np.bool_(True), "3", None, 3 + 0j, [3]]
)
def test_nothing_else_is_an_integer(value: object) -> None:
    with pytest.raises(UserError, match=r"^rounds is .*, allowed: integers of at least 1$"):
        numbers.whole("rounds", value, 1)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, "1", 1j, None, 10**400, np.array([1.0]), 2.0, 0]
)
def test_a_real_number_is_finite_and_in_its_range(value: object) -> None:
    with pytest.raises(UserError, match=r"allowed: finite numbers above 0 and below 2$"):
        numbers.real("step size", value, above=0, below=2)
    assert numbers.real("step size", np.float32(0.5), above=0, below=2) == 0.5
    assert numbers.real("step size", 1, least=1, most=1) == 1.0


@given(st.lists(st.integers(1, 50), min_size=1), st.data())
def test_a_list_means_the_same_with_commas_as_repeated(
    values: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(values) - 1))
    texts = [",".join(map(str, part)) for part in (values[:cut], values[cut:]) if part]
    expected = list(dict.fromkeys(values))
    assert numbers.whole_numbers("-K", texts, 1) == expected
    assert numbers.real_numbers("-K", texts, above=0) == expected


@pytest.mark.parametrize("texts", ["", [], [""], "1,,2", ",", "1,a", "1.5", "0", "9" * 5000])
def test_an_empty_or_malformed_list_is_refused(texts: str | list[str]) -> None:
    with pytest.raises(UserError, match=r"-K is .*, allowed: integers") as error:
        numbers.whole_numbers("-K", texts, 1, 100)
    assert len(str(error.value)) < 200


def test_seeds_are_a_number_of_them_or_a_list() -> None:
    assert numbers.seeds("seeds", np.int64(3)) == [0, 1, 2]
    assert numbers.seeds("seeds", np.array([5, 2**63], np.uint64)) == [5, 2**63]
    for bad in (0, 1.5, True, [1, 1], [], [2**64], "3", None):
        with pytest.raises(UserError, match="allowed"):
            numbers.seeds("seeds", bad)
