"""The energy balance of a run as two tables of 80 columns: how steps do, and where D_0 went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table

from theory.support.energy import Array, Windows

WIDTH = 80
LEGEND = (
    "aim: <g, x - z>/l; noise: eta ||g||^2/(2 l); phi_hat = aim - noise: what own steps do; phi_total: "
    "with averaging; eta: below it phi_hat would be positive; Lambda: sum ||g||^2/(2 sum l). Shares of "
    "D_0 = ||x_0 - z||^2: averaging and progress took them, noise gave its own back."
)


def window_tables(
    title: str, windows: Windows, rows: int, measured: Mapping[str, Array] | None = None
) -> list[Table]:
    """At most ``rows`` windows of a run, and the run as a whole.

    Args:
        title: of the run.
        windows: its balance, as fine as it is kept.
        rows: joined to so many.
        measured: more numbers of every row, by heading, (``rows`` used,): what was measured at xbar.
    """
    few, whole = windows.at_most(rows), windows.whole()
    steps = _table(
        title, ("iterations", "loss", "aim", "noise", "phi_hat", "phi_total", "eta", "Lambda")
    )
    for part in (few, whole):
        counts = np.diff(part.iteration)
        for w in range(len(part)):
            values = (
                part.loss[w] / counts[w],
                part.aim[w],
                part.noise[w],
                part.phi_hat[w],
                part.phi_total[w],
                part.turning_step_size[w],
                part.smoothness[w],
            )
            steps.add_row(_until(part, w), *map(_number, values), end_section=w == len(part) - 1)
    extra = dict(measured or {})
    shares = _table("", ("iterations", "averaging", "progress", "noise", "D/D_0", *extra))
    for part in (few, whole):
        found = part.shares
        for w in range(len(part)):
            cells = [f"{found[name][w]:.1%}" for name in ("averaging", "progress", "noise")]
            more = [_number(values[w]) if part is few else "" for values in extra.values()]
            left = _number(part.distance[w + 1] / part.distance[0])
            shares.add_row(_until(part, w), *cells, left, *more, end_section=w == len(part) - 1)
    return [steps, shares]


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title or None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=WIDTH,
    )
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _until(part: Windows, w: int) -> str:
    return f"{part.iteration[w]:,}-{part.iteration[w + 1]:,}"


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"
