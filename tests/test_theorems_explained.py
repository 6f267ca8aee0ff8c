"""A theorem's file can be read on a terminal, and says everything; the template is a theorem."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from theory.problems.generators import least_squares, realizable_logistic
from theory.support.errors import UserError
from theory.support.verdicts import FAILED, HOLDS, NOT_APPLICABLE
from theory.theorems import SHARPER, THEOREMS, Theorem
from theory.theorems.explain import WIDTH, explain, explain_theorem, overview
from theory.theorems.template import TX, instance_flip
from theory.verification.check import verify
from theory.verification.tightness import simulate_instance

FOLDER = Path(__file__).resolve().parent.parent / "theory" / "theorems"
ORDER = ("Statement", "Assumptions", "Proof", "Bound", "Instance", "Sharper: ", "References")


@pytest.mark.parametrize("theorem", THEOREMS, ids=lambda t: t.name)
def test_a_theorem_is_explained_in_the_order_of_its_file(theorem: Theorem) -> None:
    text = explain(theorem.name, algebra=False)
    assert text.startswith(f"{theorem.name}: {theorem.title}")
    places = [text.index(f"\n{title}") for title in ORDER if f"\n{title}" in text]
    assert places == sorted(places)
    needed = [t for t in ORDER if t != "Instance" or theorem.instances]
    needed = [t for t in needed if t != "Sharper: " or theorem.sharper]
    assert all(f"\n{title}" in text for title in needed)
    proof = text[text.index("\nProof\n") : text.index("\nBound\n")]
    assert "QED" in proof
    for maker in theorem.instances:
        assert (inspect.getdoc(maker) or "no docstring") in _unwrapped(text, maker)


def _unwrapped(text: str, thing: object) -> str:
    """The text with the lines of a docstring that were broken put together again."""
    for line in (inspect.getdoc(thing) or "").splitlines():
        if len(line) > WIDTH:
            head, start = line[:40], text.find(line[:40])
            assert start >= 0, head
            pieces = text[start:].splitlines()
            joined, used = pieces[0], 1
            while len(joined) < len(line):
                joined += " " + pieces[used].strip()
                used += 1
            text = text[:start] + "\n".join([joined, *pieces[used:]])
    return text


@pytest.mark.parametrize("variant", SHARPER, ids=lambda t: t.name)
def test_a_sharper_variant_has_its_own_proof(variant: Theorem) -> None:
    doc = inspect.getdoc(variant.formula) or ""
    assert "Proof" in doc and "QED" in doc
    assert doc.splitlines()[-1] in explain(variant.name)
    assert variant.statement.split(" <= ")[0] in explain(variant.name)
    plain = next(t for t in THEOREMS if t.name == variant.name.partition("/")[0])
    assert variant in plain.sharper and doc.splitlines()[-1] in explain(plain.name, algebra=False)


@pytest.mark.parametrize("name", [*(t.name for t in (*THEOREMS, *SHARPER)), "lemmas"])
def test_an_explanation_fits_a_terminal(name: str) -> None:
    text = explain(name, algebra=False)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.isascii()


@pytest.mark.parametrize("name", ["T2", "T4'"])
def test_an_explanation_says_what_is_checked_symbolically(name: str) -> None:
    text = explain(name)
    assert max(map(len, text.splitlines())) <= WIDTH
    algebra = text[text.index("\nAlgebra of these proofs\n") :]
    assert "Lemma 1 (eta and L symbolic): checked symbolically." in algebra
    assert ("S2, S3" in algebra) == (name == "T2") and "NOT PROVED" not in algebra


def test_every_instance_is_proved_where_it_is_made() -> None:
    for theorem in (*THEOREMS, *SHARPER):
        for maker in theorem.instances:
            doc = inspect.getdoc(maker) or ""
            assert "Proof." in doc and "QED" in doc


def test_one_theorem_has_one_file_of_its_name() -> None:
    for theorem in THEOREMS:
        module = importlib.import_module(theorem.module)
        number = theorem.name.rstrip("'abc").lower()
        assert Path(inspect.getfile(module)).name.startswith(f"{number}_")
        assert len(inspect.getsource(module).splitlines()) <= 400


def test_an_unknown_name_says_which_are_known() -> None:
    with pytest.raises(UserError, match="theorem 'T9', allowed: T0"):
        explain("T9")


def test_the_readme_of_the_theorems_holds_the_table_that_the_code_makes() -> None:
    text = (FOLDER / "README.md").read_text()
    begin, end = "<!-- begin overview -->\n", "<!-- end overview -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == overview()
    for theorem in THEOREMS:
        assert (FOLDER / f"{theorem.module.rpartition('.')[2]}.py").is_file()


def test_the_template_is_a_theorem() -> None:
    instance = instance_flip(6, 3, 2.0)
    assert simulate_instance(instance) == pytest.approx(instance.value, rel=1e-12)
    assert TX.applies(instance.problem, instance.setting)[0]
    bound = TX.bound(instance.problem, instance.setting, 18)
    assert bound == pytest.approx(instance.value)
    quadratic = least_squares(n_nodes=2, samples_per_node=5, dimension=20, rank=5)
    soft = realizable_logistic(n_nodes=2, samples_per_node=5, dimension=20, rank=5)
    for problem in (quadratic, soft):
        check = verify(TX, problem, step_size=1.9 / problem.smoothness, local_steps=3, rounds=10)
        assert check.verdict == HOLDS
        far = verify(TX, problem, step_size=3.0 / problem.smoothness, local_steps=3, rounds=10)
        assert far.verdict == NOT_APPLICABLE and "step size" in far.why
    half = verify(TX, quadratic, step_size=1e-6, rounds=1)
    assert half.verdict != FAILED and half.ratio == pytest.approx(1.0, abs=1e-3)
    text = explain_theorem(TX, algebra=False)
    assert "TX: the distance never grows" in text and "IX (TX with equality)" in text
