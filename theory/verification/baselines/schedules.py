"""What each method spends, and the steps at which it is tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

from theory.problems.margin import MarginProblem
from theory.simulation.variants import Variant
from theory.verification.baselines.fedprox import FedProx
from theory.verification.baselines.scaffold import Scaffold

LOCAL = "Local SGD"
MINIBATCH = "mini-batch SGD"
GD = "GD"
ACCELERATED = "accelerated GD"
ONE_SHOT = "one-shot averaging"
FEDPROX = "FedProx"
SCAFFOLD_I, SCAFFOLD_II = "SCAFFOLD I", "SCAFFOLD II"
REFERENCE = "reference"
BOTH = "equal communication and computation"
COMMUNICATION = "equal communication"
COMPUTATION = "equal computation"

#: Every method is tried at these multiples of its default step, and the best is kept. One of another
#: method's would be no fair choice; near 2/L_f a method with full gradients is still stable.
STEP_FACTORS = (0.25, 0.5, 1.0, 1.5, 1.9)
#: FedProx is tried with each of these strengths, in units of L.
PROX_STRENGTHS = (0.01, 0.1)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a method spends its budget.

    Attributes:
        method: its name.
        budget: what it shares with Local SGD: communication, computation or both.
        local_steps, rounds, batch_size, gradient: as in :func:`theory.simulation.local_sgd.run_local_sgd`.
        step_size: eta.
        gradients_per_round: sample gradients a node (the mean over nodes) a round.
        vectors_per_round: vectors of d numbers that a node sends a round.
        variants: of Local SGD, of which the best is kept; none for what is a plain schedule of it.
    """

    method: str
    budget: str
    local_steps: int
    rounds: int
    batch_size: int
    gradient: str
    step_size: float
    gradients_per_round: float
    vectors_per_round: int = 1
    variants: tuple[Variant, ...] = ()


def minibatch_step(problem: MarginProblem, batch_size: int) -> float:
    """1/(L_f + L/(n b)), or 1/L if that is more: the largest "1/L" of mini-batch SGD.

    Interpolation gives E||g||^2 <= ||grad f||^2 + (1/(n b)) mean_i E||g_i||^2 <= 2 (L_f + L/(n b)) f, so
    it may profit from its larger batch.
    """
    sample, whole = problem.smoothness, problem.global_smoothness
    return 1.0 / min(sample, whole + sample / (problem.n_nodes * batch_size))


def methods(problem: MarginProblem, local_steps: int, batch_size: int = 1) -> dict[str, Schedule]:
    """Every method with K local steps where it takes any, for one round, each with its default step.

    The default is the largest 1/L that fits the method. Local SGD, one-shot averaging: the per-sample L
    (T1-T3), also for SCAFFOLD; FedProx: its local objective's, L + mu at the largest mu. GD, also
    accelerated: L_f, the smoothness of f. Mini-batch SGD, on K b samples: :func:`minibatch_step`.
    """
    k, b, full = local_steps, batch_size, float(problem.node_sizes.mean())
    local = Schedule(
        method=LOCAL,
        budget=REFERENCE,
        local_steps=k,
        rounds=1,
        batch_size=b,
        gradient="stochastic",
        step_size=1.0 / problem.smoothness,
        gradients_per_round=float(k * b),
    )
    prox = tuple(FedProx(share * problem.smoothness) for share in PROX_STRENGTHS)
    scaffold = replace(local, method=SCAFFOLD_II, vectors_per_round=2, variants=(Scaffold(),))
    gd = replace(
        local,
        method=GD,
        local_steps=1,
        batch_size=1,
        gradient="full",
        step_size=1.0 / problem.global_smoothness,
        gradients_per_round=full,
    )
    found = [
        local,
        replace(
            local,
            method=FEDPROX,
            variants=prox,
            step_size=local.step_size / (1 + PROX_STRENGTHS[-1]),
        ),
        scaffold,
        replace(
            scaffold,
            method=SCAFFOLD_I,
            variants=(Scaffold(problem.node_gradients),),
            gradients_per_round=k * b + full,
        ),
        replace(local, method=ONE_SHOT),
        replace(
            local,
            method=MINIBATCH,
            local_steps=1,
            batch_size=k * b,
            step_size=minibatch_step(problem, k * b),
        ),
        gd,
        replace(gd, method=ACCELERATED),
    ]
    return {s.method: s for s in found}


def schedules(
    problem: MarginProblem, local_steps: int, rounds: int, batch_size: int = 1
) -> list[Schedule]:
    """Local SGD and its rivals with the budgets of :mod:`theory.verification.baselines`.

    A budget that pays for no round at all leaves one.
    """
    k, b = local_steps, batch_size
    once, twice = methods(problem, k, b), methods(problem, 2 * k, b)
    single = methods(problem, 1, b)
    spent = rounds * k * b

    def paid(schedule: Schedule) -> int:
        return max(1, int(spent // schedule.gradients_per_round))

    half = max(1, rounds // 2)
    plan = [
        (once[LOCAL], REFERENCE, rounds),
        (once[FEDPROX], BOTH, rounds),
        (twice[SCAFFOLD_II], BOTH, half),
        (once[SCAFFOLD_II], COMPUTATION, rounds),
        (once[SCAFFOLD_I], COMMUNICATION, half),
        (once[SCAFFOLD_I], COMPUTATION, paid(once[SCAFFOLD_I])),
        (methods(problem, k * rounds, b)[ONE_SHOT], COMPUTATION, 1),
        (once[MINIBATCH], BOTH, rounds),
        (single[MINIBATCH], COMPUTATION, rounds * k),
        (once[GD], COMMUNICATION, rounds),
        (once[GD], COMPUTATION, paid(once[GD])),
        (once[ACCELERATED], COMMUNICATION, rounds),
        (once[ACCELERATED], COMPUTATION, paid(once[ACCELERATED])),
    ]
    return [replace(s, budget=budget, rounds=count) for s, budget, count in plan]
