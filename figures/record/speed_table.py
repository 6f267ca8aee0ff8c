"""Measured ratios of the two speed benchmarks, as a table for the record and the README."""

from __future__ import annotations

from typing import Any

from figures.analysis.sources import Sources
from figures.record.table import Table

THEORY_PATH, DEEP_PATH = "theory/results/speed.json", "deep/results/speed.json"
THEORY_COMMAND = f"python benchmarks/theory_speed.py --json {THEORY_PATH}"
DEEP_COMMAND = f"python benchmarks/deep_speed.py --json {DEEP_PATH}"
_OURS = ("numba", "margin")


def speed(sources: Sources) -> Table:
    """Our default engines against the alternatives that were timed in the same run."""
    theory = sources.read(THEORY_PATH, THEORY_COMMAND)
    deep = sources.read(DEEP_PATH, DEEP_COMMAND)
    rows = [_theory_row(comparison["timings"]) for comparison in theory["comparisons"]]
    rows += [
        _deep_row(deep["rows"], width) for width in dict.fromkeys(r["width"] for r in deep["rows"])
    ]
    hardware = deep["hardware"]
    return Table(
        "Speed: times slower than ours, medians of one run",
        ("problem", "ours", "takes", "the alternatives take times as long"),
        rows,
        f"{hardware['processor']}, {hardware['cores']} cores. {THEORY_COMMAND}; {DEEP_COMMAND}."
        + _floor(theory["comparisons"]),
    )


def _floor(comparisons: list[dict[str, Any]]) -> str:
    """How much of the margin engine's least time its measured floor is, and what the floor forgets."""
    shares = [
        f"{t['floor_share']:.0%} at d = {t['size']['dimension']:,}"
        for comparison in comparisons
        for t in comparison["timings"]
        if t["method"] == "margin" and t["floor_share"] is not None
    ]
    if not shares:
        return ""
    # benchmarks/machine_floor.py beside margin_rounds.py and MarginEngine.mean_models.
    return (
        f" The floor measured for the margin engine is {' and '.join(shares)} of its least time: it forgets "
        "how random words become sample numbers, the list of samples that a round touches, and, which "
        "counts at large d, the flops of every seed's last model from the features and its writing."
    )


def _theory_row(timings: list[dict[str, Any]]) -> tuple[str, str, str, str]:
    size = timings[0]["size"]
    ours = min((t for t in timings if t["method"] in _OURS), key=lambda t: float(t["scaled"]))
    others = ", ".join(
        f"{t['method']} {t['scaled'] / ours['scaled']:.3g}"
        for t in timings
        if t["method"] != ours["method"]
    )
    return (
        f"least squares, n = {size['n_nodes']}, d = {size['dimension']:,}, K = {size['local_steps']}, "
        f"{size['seeds']} seeds, T = {size['iterations']:,}",
        ours["method"],
        f"{ours['scaled']:.3g} s",
        others,
    )


def _deep_row(rows: list[dict[str, Any]], width: int) -> tuple[str, str, str, str]:
    mine = {r["engine"]: r for r in rows if r["width"] == width}
    ours = mine["simd"]
    others = ", ".join(
        f"{name} {row['simd_speedup']:.3g}" for name, row in mine.items() if name != "simd"
    )
    return (
        f"ResNet18 width {width}, 20 nodes, batch 8",
        "simd",
        f"{1e3 / ours['images_per_second']:.3g} ms an image",
        others,
    )
