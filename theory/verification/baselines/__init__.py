"""Local SGD beside its rivals, each at its best step of a stated grid, on the same axes.

Local SGD with K local steps and batch b spends one communication a round and K b sample gradients a
node. A communication is a vector of d numbers that a node sends; a rival is run with as many of them
(equal communication), with as many sample gradients (equal computation), or with both:

* mini-batch SGD, equal both: one step a round, on K b samples a node;
* mini-batch SGD, equal computation: one step on b samples, and a communication, where Local SGD takes a
  local step: K times the communication;
* GD, equal communication: one full gradient a round, however many samples a node holds;
* GD, equal computation: as many full gradients as the same number of sample gradients pays for;
* accelerated GD (:mod:`.accelerated`), in the same two ways;
* one-shot averaging, equal computation: all K R local steps first, then the only communication;
* FedProx (:mod:`.fedprox`), equal both: K steps a round, each pulled back to where the round began;
* SCAFFOLD (:mod:`.scaffold`) sends two vectors a round, a model and a control variate. Option II: half
  the rounds of 2K steps (equal both), or all R rounds of K steps (equal computation, twice the
  communication). Option I adds a pass over the node's samples to every round: half the rounds (equal
  communication), or as many rounds as the same number of sample gradients pays for (equal computation).

:mod:`.schedules` writes these budgets down, :mod:`.compare` runs them to the end of their budget and
:mod:`.rounds_to` to an accuracy.

References:
    Yu. Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)"
    (1983); A. Beck, M. Teboulle, "A fast iterative shrinkage-thresholding algorithm" (SIAM J. Imaging
    Sciences 2009), Theorem 4.4; K. K. Patel et al., "The limits and potentials of Local SGD for
    distributed heterogeneous learning with intermittent communication" (COLT 2024); S. P. Karimireddy
    et al., "SCAFFOLD: stochastic controlled averaging for federated learning" (ICML 2020); T. Li et
    al., "Federated optimization in heterogeneous networks" (MLSys 2020); T.-M. H. Hsu, H. Qi, M. Brown,
    "Measuring the effects of non-identical data distribution for federated visual classification"
    (2019).
"""
