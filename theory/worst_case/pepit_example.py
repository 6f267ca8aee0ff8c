"""Local SGD as a PEPit example: one function, in the form of PEPit's example files."""

import numpy as np
from PEPit import PEP
from PEPit.functions import SmoothConvexFunction

from theory.support.errors import UserError


def wc_local_sgd(
    L: float,
    gamma: float,
    n: int,
    K: int,
    R: int,
    metric: str = "average_sync",
    beta: float = 1.0,
    wrapper: str = "cvxpy",
    solver: str | None = None,
    verbose: int = 1,
) -> tuple[float, float]:
    r"""
    Consider the finite sum minimization problem

    .. math:: f_\star \triangleq \min_x \left\{f(x) \equiv \frac{1}{n} \sum_{i=1}^n f_i(x)\right\},

    where :math:`f_1, ..., f_n` are :math:`L`-smooth and convex, function :math:`f_i` being held by
    node :math:`i`. In addition, we assume interpolation: a common point :math:`x_\star` minimizes
    every :math:`f_i`, as it happens when over-parameterized models are trained.

    This code computes a worst-case guarantee for **Local SGD** (federated averaging) with full local
    gradients. That is, it computes the smallest possible :math:`\tau(L, \gamma, n, K, R)` such that
    the guarantee

    .. math:: \frac{1}{R} \sum_{r=0}^{R-1} f(\bar{x}_r) - f_\star
              \leqslant \tau(L, \gamma, n, K, R) \|x_0 - x_\star\|^2

    is valid, where :math:`\bar{x}_r` is the model that all nodes hold at the beginning of round
    :math:`r`; or the same for the metrics

        - "average_local": :math:`\frac{1}{KR} \sum_{t=0}^{KR-1} \frac{1}{n} \sum_i
          f_i(x_i^t) - f_\star`,
        - "last": :math:`f(\bar{x}_R) - f_\star`,
        - "best": :math:`\min_{0 \leqslant r \leqslant R} f(\bar{x}_r) - f_\star`.

    **Algorithm**: Each of the :math:`R` rounds consists of :math:`K` local steps at every node,

    .. math:: x_i^{t+1} = x_i^t - \gamma \nabla f_i(x_i^t),

    started at the common model :math:`\bar{x}_r`, after which all models are replaced by
    :math:`\bar{x}_{r+1} = \bar{x}_r + \beta (\frac{1}{n} \sum_i x_i - \bar{x}_r)`: by their mean over
    the nodes for the outer step :math:`\beta = 1`.

    **Theoretical guarantee**: Let :math:`\phi = \min(1, 2 - \gamma L)`, :math:`0 < \gamma < 2 / L`.
    An **upper** guarantee, **tight** at :math:`\gamma = 1/L`, is

    .. math:: \frac{1}{R} \sum_{r=0}^{R-1} f(\bar{x}_r) - f_\star
              \leqslant \frac{1}{2 \phi \gamma R} \|x_0 - x_\star\|^2,

    for :math:`\beta = 1`, and it bounds the "best" metric too. For other :math:`\beta` the theoretical
    value returned is that of :math:`\beta = 1`. For "average_local" the **upper** guarantee, **tight** at
    :math:`\gamma = 1/L`, is the same with :math:`KR` in place of :math:`R`. For "last" no guarantee is
    known; the value returned is a **lower** bound, the worst value of quadratics in two dimensions,
    :math:`f_i(x) = \frac{L}{2} (a_i^T x)^2`, of Huber functions and of :math:`\frac{L}{2} x^2`.

    Proof. With :math:`f_\star = 0`, interpolation gives :math:`\|x - \gamma \nabla f_i(x) -
    x_\star\|^2 \leqslant \|x - x_\star\|^2 - 2 \gamma \phi f_i(x)`; averaging over nodes and averaging
    the models do not increase the mean squared distance; sum over the steps.

    **References**: Local SGD was proposed in [1] and, in the over-parameterized setting, analyzed
    in [2]. The guarantee above has the proof above and is not quoted from [2].

    `[1] H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas (2017).
    Communication-efficient learning of deep networks from decentralized data.
    International Conference on Artificial Intelligence and Statistics (AISTATS).
    <https://arxiv.org/pdf/1602.05629.pdf>`_

    `[2] T. Qin, S. R. Etesami, C. A. Uribe (2024).
    Faster convergence of Local SGD for over-parameterized models.
    Transactions on Machine Learning Research (TMLR).
    <https://arxiv.org/pdf/2201.12719.pdf>`_

    Args:
        L (float): the smoothness parameter.
        gamma (float): the step-size, between 0 and 2 / L.
        n (int): number of nodes.
        K (int): number of local steps in a round.
        R (int): number of rounds.
        metric (str): "average_sync", "average_local", "last" or "best".
        beta (float): the outer step, above 0.
        wrapper (str): the name of the wrapper to be used.
        solver (str): the name of the solver the wrapper should use.
        verbose (int): level of information details to print.

                        - -1: No verbose at all.
                        - 0: This example's output.
                        - 1: This example's output + PEPit information.
                        - 2: This example's output + PEPit information + solver details.

    Returns:
        pepit_tau (float): worst-case value
        theoretical_tau (float): theoretical value

    Raises:
        UserError: an unknown metric, or an outer step that is not above 0.
        RuntimeError: the solver did not report an optimal solution.

    Example:
        >>> pepit_tau, theoretical_tau = wc_local_sgd(L=1, gamma=1, n=2, K=2, R=2, solver="CLARABEL", verbose=0)
        *** Example file: worst-case performance of Local SGD under interpolation ***
                PEPit guarantee:	 average_sync <= 0.25 ||x_0 - x_*||^2
                Theoretical guarantee:	 average_sync <= 0.25 ||x_0 - x_*||^2

    """
    if metric not in ("average_sync", "average_local", "last", "best"):
        raise UserError(f"metric is {metric!r}, allowed: average_sync, average_local, last, best")
    if not beta > 0:
        raise UserError(f"beta is {beta}, allowed: above 0")

    # Instantiate PEP
    problem = PEP()

    # Declare n smooth convex functions and their average
    fn = [problem.declare_function(SmoothConvexFunction, L=L) for _ in range(n)]
    func = np.mean(fn)

    # Start by defining the common optimal point xs = x_*, where every f_i has its minimum 0
    xs = fn[0].stationary_point()
    problem.add_constraint(fn[0](xs) == 0)
    for f in fn[1:]:
        f.add_point((xs, 0 * xs, fn[0](xs)))

    # Then define the starting point x0 of the algorithm
    x0 = problem.set_initial_point()

    # Set the initial constraint that is the distance between x0 and x^*
    problem.set_initial_condition((x0 - xs) ** 2 <= 1)

    # Run R rounds of K local steps
    mean = x0
    at_rounds = [func(mean)]
    local = []
    for _ in range(R):
        x = [mean] * n
        for _ in range(K):
            oracles = [f.oracle(xi) for f, xi in zip(fn, x, strict=True)]
            local.append(np.mean([value for _, value in oracles]))
            x = [xi - gamma * gradient for xi, (gradient, _) in zip(x, oracles, strict=True)]
        mean = mean + beta * (np.mean(x) - mean)
        if len(at_rounds) < R or metric in ("last", "best"):
            at_rounds.append(func(mean))

    # Set the performance metric
    if metric == "average_sync":
        problem.set_performance_metric(np.mean(at_rounds[:R]))
    elif metric == "average_local":
        problem.set_performance_metric(np.mean(local))
    elif metric == "last":
        problem.set_performance_metric(at_rounds[-1])
    else:
        for value in at_rounds:
            problem.set_performance_metric(value)

    # Solve the PEP
    pepit_verbose = max(verbose, 0)
    pepit_tau = problem.solve(wrapper=wrapper, solver=solver, verbose=pepit_verbose)
    status = getattr(getattr(problem.wrapper, "prob", None), "status", "optimal")
    if status != "optimal":
        raise RuntimeError(f"the solver reported {status}")

    # Theoretical guarantee (for comparison)
    phi = min(1, 2 - gamma * L)
    if metric in ("average_sync", "best"):
        theoretical_tau = 1 / (2 * phi * gamma * R)
    elif metric == "average_local":
        theoretical_tau = 1 / (2 * phi * gamma * K * R)
    else:
        contraction = 1 - (1 - gamma * L) ** K if n > 1 else 1 - (1 - gamma * L)
        s = min(1, 1 / (contraction * (2 * R + 1))) if n > 1 else 1
        theoretical_tau = max(
            L / (4 * K * R * gamma * L + 2),
            L / 2 * (1 - gamma * L) ** (2 * K * R),
            L / 2 * s * (1 - contraction * s) ** (2 * R) if n > 1 else 0,
        )

    # Print conclusion if required
    if verbose != -1:
        print("*** Example file: worst-case performance of Local SGD under interpolation ***")
        print(f"\tPEPit guarantee:\t {metric} <= {pepit_tau:.6} ||x_0 - x_*||^2")
        print(f"\tTheoretical guarantee:\t {metric} <= {theoretical_tau:.6} ||x_0 - x_*||^2")

    # Return the worst-case guarantee of the evaluated method (and the reference theoretical value)
    return pepit_tau, theoretical_tau


if __name__ == "__main__":
    pepit_tau, theoretical_tau = wc_local_sgd(
        L=1, gamma=1, n=2, K=2, R=2, wrapper="cvxpy", solver="CLARABEL", verbose=1
    )
