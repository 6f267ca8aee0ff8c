"""Where local steps begin to pay: rounds to accuracy against K, from below by I5 and from above by T2, T3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.problems.margin import MarginProblem
from theory.simulation.moments import exact_moments
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
    return {"instance": needed, **_granted(similarity, local_steps, accuracy)}


def participants_curve(
    similarity: float,
    participants: Sequence[int],
    local_steps: Sequence[int],
    accuracy: float,
    n_nodes: int,
) -> dict[str, Any]:
    """As :func:`bend_curve`, but with m of the nodes drawn every round, in exact expectation.

    A half of the ``n_nodes`` nodes hold each of the two functions of I5.

    Returns:
        As there, with "instance" a list for every m.
    """
    needed: list[list[int]] = []
    for m in participants:
        found: list[int] = []
        for k in local_steps:
            # More local steps seldom need more rounds, so the search starts at the last answer.
            guess = found[-1] if found else 1
            found.append(_rounds_in_expectation(similarity, k, accuracy, n_nodes, m, guess))
        needed.append(found)
    return {"instance": needed, **_granted(similarity, local_steps, accuracy)}


def _granted(similarity: float, local_steps: Sequence[int], accuracy: float) -> dict[str, Any]:
    t2 = t2_synchronised.rounds_to(L=1.0, D=1.0, eps=accuracy)
    t3 = [
        t3_similar.rounds_to(L=1.0, D=1.0, c=similarity, K=k, eps=accuracy) if similarity else None
        for k in local_steps
    ]
    return {"local_steps": list(local_steps), "t2": [t2] * len(local_steps), "t3": t3}


def many_nodes(similarity: float, local_steps: int, rounds: int, n_nodes: int) -> MarginProblem:
    """I5 on an even number of nodes: its two functions by turns, of two samples each, L = 1 a node."""
    made = instance_5(rounds, local_steps, similarity).problem
    # Gradients at the unit vectors are the Hessians' columns, as x* = 0.
    unit = np.broadcast_to(np.eye(2)[:, None, :], (2, made.n_nodes, 2))
    hessians = np.asarray(made.node_gradients(unit)).transpose(1, 0, 2)
    curvatures, directions = np.linalg.eigh(hessians)
    # The mean over a node's two samples of a a' is its Hessian; rounding may leave a 0 below 0.
    scales = np.sqrt(2 * np.maximum(curvatures, 0.0))
    rows = scales[:, :, None] * directions.swapaxes(1, 2)
    return MarginProblem(
        [rows[i % 2] for i in range(n_nodes)],
        [np.zeros(2)] * n_nodes,
        start=np.array([0.0, 1.0]),
        name="I5",
        heterogeneity="instance",
    )


def _rounds_in_expectation(
    similarity: float,
    local_steps: int,
    accuracy: float,
    n_nodes: int,
    participants: int,
    guess: int,
) -> int:
    """The least R whose instance ends with E f(xbar_R) at or below eps, exactly."""

    def reached(rounds: int) -> bool:
        moments = exact_moments(
            many_nodes(similarity, local_steps, rounds, n_nodes),
            step_size=1.0,
            local_steps=local_steps,
            rounds=rounds,
            gradient="full",
            participants=participants,
            record=[local_steps * rounds],
        )
        return bool(moments.history["global_loss"][-1] <= accuracy)

    above, below = 0, guess
    while not reached(below):
        above, below = below, 2 * below
    while below - above > 1:
        middle = (above + below) // 2
        above, below = (above, middle) if reached(middle) else (middle, below)
    return below


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
