"""The one place that checks numbers: type, finite, range, seeds, and lists as ``1,5`` on a command line.

Everything refused is a :class:`UserError` that says "NAME is VALUE, allowed: RANGE".
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence

from theory.support.errors import UserError

#: Seeds key a Philox stream, which takes an unsigned 64-bit integer.
MOST_SEED = 2**64 - 1
_SHOWN = 60


def whole(name: str, value: object, least: int = 0, most: int | None = None) -> int:
    """An integer in a range, as a Python int.

    Args:
        name: what the user calls it.
        value: an int or a NumPy integer; a bool, a float (even 2.0) and a string are refused.
        least, most: the range, both included; ``most=None`` is no upper end.

    Raises:
        UserError: another type, or outside the range.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    raise refused(name, value, whole_range(least, most))


def real(
    name: str,
    value: object,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    """A finite number in a range, as a Python float.

    Args:
        name: what the user calls it.
        value: a float, an int or a NumPy number of either kind; a bool, a complex number, NaN and
            infinity are refused.
        above, least: the lower end, excluded or included.
        below, most: the upper end, excluded or included.

    Raises:
        UserError: another type, not finite, or outside the range.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if (
            math.isfinite(number)
            and (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
            and (most is None or number <= most)
        ):
            return number
    ends = (("above", above), ("of at least", least), ("below", below), ("of at most", most))
    said = " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)
    raise refused(name, value, f"finite numbers {said}".rstrip())


def seed(name: str, value: object) -> int:
    """A seed of a random stream: an integer from 0 to 2^64 - 1; raises as :func:`whole`."""
    return whole(name, value, 0, MOST_SEED)


def seeds(name: str, value: object, *, most: int | None = None) -> list[int]:
    """Seeds given as a number of them (0, 1, ...) or one by one.

    Args:
        name: what the user calls it.
        value: how many, at least 1; or a sequence of distinct seeds.
        most: the most of them.

    Raises:
        UserError: none, too many, one that is no seed, or one twice.
    """
    if isinstance(value, numbers.Integral):
        return list(range(whole(name, value, 1, most)))
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise refused(name, value, "how many, or a list of seeds")
    listed = [seed(name, entry) for entry in value]
    if not listed or (most is not None and len(listed) > most):
        raise refused(f"number of {name}", len(listed), whole_range(1, most))
    for i, entry in enumerate(listed):
        if entry in listed[:i]:
            raise UserError(f"{name} holds {entry} twice, allowed: distinct seeds")
    return listed


def choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """One of the words allowed.

    Raises:
        UserError: another word.
    """
    allowed = list(allowed)
    if value not in allowed:
        raise refused(name, value, ", ".join(allowed))
    return value


def whole_numbers(
    name: str, texts: str | Sequence[str], least: int = 0, most: int | None = None
) -> list[int]:
    """Integers as typed: ``-K 1 -K 5`` arrives as ["1", "5"], ``-K 1,5`` as ["1,5"].

    Args:
        name: the option, for its message.
        texts: what was typed, once or repeatedly.
        least, most: the range of each, both included.

    Returns:
        The numbers in the order typed, each once.

    Raises:
        UserError: empty, no integer, or outside the range.
    """
    found = []
    for text in _pieces(name, texts, whole_range(least, most)):
        try:
            number: object = int(text)
        except ValueError:
            number = text
        found.append(whole(name, number, least, most))
    return list(dict.fromkeys(found))


def real_numbers(
    name: str,
    texts: str | Sequence[str],
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> list[float]:
    """Numbers as typed, as :func:`whole_numbers`; ranges as :func:`real`."""
    found = []
    for text in _pieces(name, texts, "numbers such as 0.5,1"):
        try:
            number: object = float(text)
        except ValueError:
            number = text
        found.append(real(name, number, above=above, least=least, below=below, most=most))
    return list(dict.fromkeys(found))


def words(name: str, texts: str | Sequence[str], allowed: Iterable[str]) -> list[str]:
    """Words as typed, as :func:`whole_numbers`; each must be one of ``allowed``."""
    allowed = list(allowed)
    pieces = _pieces(name, texts, ", ".join(allowed))
    return list(dict.fromkeys(choice(name, piece, allowed) for piece in pieces))


def whole_range(least: int, most: int | None) -> str:
    """How a range of integers is said."""
    return f"integers of at least {least}" if most is None else f"integers from {least} to {most}"


def refused(name: str, value: object, allowed: str) -> UserError:
    """The error of a value outside its range, for the caller to raise; long values are cut."""
    shown = str(value) if isinstance(value, numbers.Number) else repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return UserError(f"{name} is {shown}, allowed: {allowed}")


def _pieces(name: str, texts: str | Sequence[str], allowed: str) -> list[str]:
    listed = [texts] if isinstance(texts, str) else list(texts)
    pieces = [piece.strip() for text in listed for piece in text.split(",")]
    if not pieces or "" in pieces:
        raise refused(name, ",".join(listed), f"{allowed}, with commas between")
    return pieces
