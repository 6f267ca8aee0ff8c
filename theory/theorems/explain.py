"""A theorem's file as readable text at 80 columns: :func:`explain`; all of them: :func:`overview`."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from theory.theorems import SHARPER, THEOREMS, assumptions, find_theorems
from theory.theorems.base import Theorem

WIDTH = 80
INDENT = "  "


def explain(name: str, *, algebra: bool = True) -> str:
    """Statement, assumptions, proof, bound, instances, sharper variants and references of a theorem.

    Args:
        name: a theorem ("T2", "T4'"), a sharper variant ("T2/S3"), or "lemmas" for the notation and
            Lemmas 1 and 2.
        algebra: also check the algebra of its proofs symbolically, and say what came out: seconds.

    Raises:
        UserError: an unknown name.
    """
    if name.lower() == "lemmas":
        return _fitted(inspect.getdoc(assumptions) or "")
    # "T4" names T4 and T4' both, which share a file: the first is enough.
    return explain_theorem(find_theorems([name])[0], algebra=algebra)


def explain_theorem(theorem: Theorem, *, algebra: bool = True) -> str:
    """As :func:`explain`, for a theorem that is in no list."""
    if "/" in theorem.name:
        return _fitted("\n".join(_variant(theorem)))
    return _fitted("\n".join(_theorem(theorem, algebra)))


def _theorem(theorem: Theorem, algebra: bool) -> Iterator[str]:
    module = sys.modules[theorem.module]
    lead, _, rest = (inspect.getdoc(module) or "").partition("\n\n")
    statement, _, proof = rest.partition("Proof\n-----\n")
    title = f"{theorem.name}: {theorem.title}"
    yield from (title, "=" * len(title), lead, f"File: {_path(theorem)}", "", statement.strip())
    yield from _section("Assumptions", _hypotheses(theorem))
    yield from _section("Proof", proof)
    yield from _section("Bound", f"{theorem.statement}\nFormula: {_doc(theorem.formula)}")
    yield from _section("Step size used when none is given", _doc(theorem.default_step))
    yield from _section("Communication complexity", _complexity(theorem))
    yield from _section("Tightest known, bound / measured", theorem.tightest)
    for maker in theorem.instances:
        yield from _section("Instance", _doc(maker))
    for variant in theorem.sharper:
        yield from ("", *_variant(variant))
    if algebra:
        yield from _section("Algebra of these proofs", _algebra(theorem.name))
    yield from _section("References", getattr(module, "REFERENCES", ""))


def _variant(theorem: Theorem) -> Iterator[str]:
    kind = "Sharper" if theorem in SHARPER else "Variant"
    title = f"{kind}: {theorem.name}, {theorem.title}"
    yield from (title, "-" * len(title), theorem.statement)
    yield "Assumptions:"
    yield textwrap.indent(_hypotheses(theorem), INDENT)
    yield f"Tightest known, bound / measured: {theorem.tightest}"
    yield from ("", _doc(theorem.formula))
    for maker in theorem.instances:
        yield from ("", _doc(maker))


def _section(title: str, text: str) -> Iterator[str]:
    if text.strip():
        yield from ("", title, "-" * len(title), text.strip("\n"))


@lru_cache
def _algebra(name: str) -> str:
    # Imported here: a plain import of the theorems need not wait for sympy.
    from theory.proofs import find_proofs

    return "\n".join(proof.text() for proof in find_proofs(name))


def _hypotheses(theorem: Theorem) -> str:
    return "\n".join(_doc(h) for h in theorem.assumptions)


def _complexity(theorem: Theorem) -> str:
    if theorem.rounds_to is None:
        return "No closed form from this bound."
    return _doc(sys.modules[theorem.module].rounds_to)


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _path(theorem: Theorem) -> str:
    return f"{theorem.module.replace('.', '/')}.py"


def _fitted(text: str) -> str:
    """Lines broken at WIDTH, continued under their own indent."""
    out: list[str] = []
    for line in text.splitlines():
        lead = " " * (len(line) - len(line.lstrip()))
        out += textwrap.wrap(
            line,
            WIDTH,
            subsequent_indent=lead + INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(out) + "\n"


def overview() -> str:
    """One row a theorem, as a markdown table: what it says, where, tight on what, how to see it."""
    rows = ["| theorem | says | file | tightest known | sharper | command |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    for t in THEOREMS:
        file = Path(_path(t)).name
        sharper = ", ".join(v.name.partition("/")[2] for v in t.sharper) or "-"
        cells = (
            t.name,
            f"`{t.statement}`",
            f"[{file}]({file})",
            t.tightest,
            sharper,
            f"`python -m theory.verify_rates --explain {_quoted(t.name)}`",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else name
