"""Where local steps begin to pay: rounds to accuracy against K, from below by I5 and from above by T2, T3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.theorems import Instance, instance_1, instance_5, t2_synchronised, t3_similar
from theory.verification.tightness import simulate_instance


def bend_curve(
    similarity: float, local_steps: Sequence[int], accuracy: float, most: int = 10**6
) -> dict[str, Any]:
    """Rounds to f(xbar_R) <= accuracy at L = D = 1, eta = 1/L, full gradients, for nodes c-similar.

    Args:
        similarity: c of A3, in [0, 1].
        local_steps: the K.
        accuracy: eps, in units of L D, below 1/8.
        most: no family of instances is followed beyond so many rounds.

    Returns:
        "local_steps"; "instance", the rounds that the family I5 (I1 for c = 0) takes, simulated: with
        one round fewer the loss of the instance made for that many rounds ends above eps; "t2", the
        rounds that T2 needs; "t3", those that T3 needs, None for c = 0.
    """
    needed = [_rounds_on_instances(similarity, k, accuracy, most) for k in local_steps]
    t2 = t2_synchronised.rounds_to(L=1.0, D=1.0, eps=accuracy)
    t3 = [
        t3_similar.rounds_to(L=1.0, D=1.0, c=similarity, K=k, eps=accuracy) if similarity else None
        for k in local_steps
    ]
    return {
        "local_steps": list(local_steps),
        "instance": needed,
        "t2": [t2] * len(needed),
        "t3": t3,
    }


def _instance(similarity: float, local_steps: int, rounds: int) -> Instance:
    # At c = 0 the two are one; I1 is made of margins, which compiled engines run.
    if similarity == 0:
        return instance_1(rounds, local_steps)
    return instance_5(rounds, local_steps, similarity)


def _rounds_on_instances(similarity: float, local_steps: int, accuracy: float, most: int) -> int:
    """The least R whose instance ends at or below eps: near it by the closed form, then simulated."""
    above, below = 0, most
    while below - above > 1:
        middle = (above + below) // 2
        value = _instance(similarity, local_steps, middle).value
        above, below = (middle, below) if value > accuracy else (above, middle)

    def reached(rounds: int) -> bool:
        return simulate_instance(_instance(similarity, local_steps, rounds)) <= accuracy

    found = below
    while not reached(found):
        found += 1
    while found > 1 and reached(found - 1):
        found -= 1
    return found
