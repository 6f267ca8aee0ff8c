"""The book of claims: what tried to break them, and what came out."""

from __future__ import annotations

from figures.analysis.sources import Sources
from figures.record.table import Table

BOOK_PATH = "theory/results/claims.json"
BOOK_COMMAND = f"python -m theory.claim --book --json {BOOK_PATH}"


def book(sources: Sources) -> Table:
    """A row a claim: its words, where it is from, the verdict and what decided."""
    record = sources.read(BOOK_PATH, BOOK_COMMAND)
    return Table(
        "Claims that were tried",
        ("claim", "in words", "from", "verdict", "by"),
        [
            (row["name"], row["says"], row["source"], row["verdict"], row["by"])
            for row in record["claims"]
        ],
        "REFUTED: a problem of the class exceeds the claim, or, for a lower bound, a step size does better on "
        "its family; NOT REFUTED: nothing that was tried does, which is no proof. A paper's claim "
        "is in the wording of notes made on reading it. Formulas, grids, and how each was read: "
        f"theory/claims.toml. Made by {BOOK_COMMAND}.",
    )
