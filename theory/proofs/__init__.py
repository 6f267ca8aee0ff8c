"""The algebra of the proofs, as data that sympy checks for symbolic step size and smoothness."""

from theory.proofs.algebra import Identity, Proof, Vector
from theory.proofs.catalogue import PROOFS, find_proofs

__all__ = ["PROOFS", "Identity", "Proof", "Vector", "find_proofs"]
