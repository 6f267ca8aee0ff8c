"""Try to break a claim: known instances, exact worst cases, and an adversary; ``python -m theory.claim``."""

from theory.claim.expression import Expression, parse

__all__ = ["Expression", "parse"]
