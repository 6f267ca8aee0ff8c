"""What the page tells, in its order: headings, paragraphs, and which figures and tables back them.

Paragraphs state theorems and how to read a figure; what was measured stands in figures and tables, which
come from result files.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Local SGD under interpolation: what holds, how tightly, and when local steps pay"
LEAD = (
    "Local SGD (FedAvg) lets n nodes take K steps each between two rounds of communication. For models "
    "that can fit all data, T. Qin, S. R. Etesami and C. A. Uribe (“Faster Convergence of Local SGD for "
    "Over-Parameterized Models”, TMLR 2024) give rates of it. Here every rate is stated with its constants, "
    "proved, measured, and set against the worst case; and the experiment of the paper is run at small "
    "scale. Theorems, instances, constants and proofs are this project’s own; the rates are those of "
    "the paper’s abstract. paper_repro.md is the full record."
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        heading: of the part.
        text: paragraphs above the figures.
        figures: names of the catalogue, shown.
        more: names of the catalogue, folded.
        tables: names of the record's blocks, folded.
    """

    heading: str
    text: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


STORY: tuple[Section, ...] = (
    Section(
        heading="What was found",
        text=(
            "Each claim of the paper’s abstract and experiments, and the verdict that its rule gives on "
            "the results kept in the repository. “Reproduced” for a theorem means: our own "
            "statement with that rate is proved, every check that applies holds, and an instance shows "
            "its order.",
        ),
        tables=("claims",),
    ),
    Section(
        heading="When do local steps pay?",
        text=(
            "It depends on one number, c in [0, 1], which says how alike the nodes are: f_i ≥ c f. In "
            "the worst case local steps save nothing until K is about 1/c; from there on K local steps save "
            "a factor of about c K in rounds. Equal nodes have c = 1 and save from the first step on; nodes "
            "with nothing in common have c = 0 and never do.",
            "Both sides are theorems. No convex problem with interpolation needs more rounds than the "
            "dashed line, and for every c and K there is one (instance I5) that needs the solid one.",
        ),
        figures=("bend", "rounds-to-eps"),
        tables=("communication",),
    ),
    Section(
        heading="Does a network behave as if it were convex?",
        text=(
            "A network has no convexity, but every run has an energy balance: what the nodes' own steps and "
            "their averaging do to the squared distance to the model at which the run ends. Where phi_hat, "
            "the part of the steps, is 1 or more, training is as good as convex towards its end; below 0 the "
            "steps lead away from it, and it is the averaging that converges. The first columns are the "
            "control, convex problems; the others a ResNet18 on twenty nodes (see below).",
        ),
        figures=("energy",),
        tables=("energy-questions", "energy-phases", "energy"),
    ),
    Section(
        heading="FedAvg as it is run, and its rivals",
        text=(
            "Nobody takes a plain mean of all nodes. Drawing a few clients a round costs nothing in any "
            "of the bounds. Nor does a longer step of the server: when the nodes’ movements point apart, "
            "their mean is short, and P/Q, the mean of their squares over the square of their mean, says "
            "by how much it may be stretched. On the instance on which plain averaging is slowest, "
            "that ends in one round; no fixed step does. What fixed steps can do is the second figure: "
            "the exact worst case over both of them.",
            "The last figure sets Local SGD beside mini-batch SGD, gradient descent and its acceleration, "
            "one-shot averaging, FedProx and SCAFFOLD, at equal communication and at equal computation, each "
            "at the best of its step sizes. SCAFFOLD removes a bias that there is none of when the nodes "
            "share a minimiser; it can gain on the way there only, and sends twice as much.",
        ),
        figures=("outer-steps", "outer-map", "bend-participants", "baselines"),
        tables=("rounds-to-eps", "equal-budgets", "clients", "server-steps", "outer-steps"),
    ),
    Section(
        heading="Claims that were tried, and those that broke",
        text=(
            "A claim is a formula with a class of problems. Known instances, exact worst cases and an "
            "adversary try to break it; what breaks comes with the problem that does it. "
            "python -m theory.claim takes any formula.",
        ),
        tables=("book",),
    ),
    Section(
        heading="Do the bounds hold, and how much of them is real?",
        text=(
            "Every left side is measured on problems that meet, or violate, the assumptions, and has to "
            "stay at or below its bound; a check that breaks a hypothesis on purpose has to fail.",
            "How much of a bound is real is a question of the worst case. It can be computed exactly: over "
            "all convex smooth problems with a common minimiser, for any number of nodes. Two rational "
            "numbers enclose each worst case, and a program of 200 lines checks them with fractions alone.",
        ),
        figures=("bound-vs-measured", "worst-case", "tightness"),
        more=("ratio-heatmap", "step-size", "separable-logistic"),
        tables=("verification", "sharper", "tightness", "orders", "worst-cases", "certificates"),
    ),
    Section(
        heading="On CIFAR-10",
        text=(
            "Twenty nodes train a ResNet18 each and average after every K local steps; the three regimes "
            "differ in how the labels are spread over the nodes. The cross-entropy of a network that "
            "fits every image has no minimiser, so no theorem above covers it: this is an experiment. The "
            "rules by which it is read were written down before its results.",
        ),
        figures=("loss-vs-rounds", "ladder", "ladder-variants"),
        more=(
            "rounds-to-loss",
            "loss-fixed-rounds",
            "inverse-loss",
            "consensus-distance",
            "ladder-assumptions",
            "ladder-ends",
        ),
        tables=(
            "deep-orders",
            "deep-phases",
            "deep-runs",
            "deep-fixed",
            "ladder-heterogeneity",
            "ladder-exponents",
            "ladder-steps",
            "ladder-variants",
            "ladder",
            "set-up",
            "deviations",
        ),
    ),
    Section(
        heading="Where the numbers come from",
        text=(
            "Every table is made from result files that name the command, the commit and the machine that "
            "made them.",
        ),
        tables=("speed", "files"),
    ),
)
#: The figures kept in the repository for the README.
GALLERY = (
    "bend",
    "outer-steps",
    "loss-vs-rounds",
    "bound-vs-measured",
    "rounds-to-loss",
    "worst-case",
)
