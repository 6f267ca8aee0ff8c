"""``python -m theory.worst_case.certify``: rational certificates of the standard grid's cells.

One file a metric, a certificate a line. A certificate that is there already is kept, so a killed run
goes on where it was; ``python theory/worst_case/verify.py FILE`` checks them without any of this.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from theory.support import command
from theory.support.errors import UserError
from theory.support.files import check_folder, write_text
from theory.support.locks import lock
from theory.support.progress import Progress
from theory.support.reading import read_text
from theory.worst_case.cells import Cell, standard_grid
from theory.worst_case.certificate import certify, head_of, width
from theory.worst_case.constraints import SolverError

FOLDER = Path(__file__).resolve().parents[1] / "results" / "certificates"
app = command.make_app()


def certifiable(most: int, growth: float = 0.1) -> list[Cell]:
    """The standard grid's cells with K R <= ``most``, less those of A4', whose values are upper ones."""
    cells = [c for c in standard_grid(growth) if c.local_steps * c.rounds <= most]
    return [c for c in cells if not (c.growth and c.growth_of == "mean")]


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The certificates of a file by their cell; none where there is no file.

    Raises:
        UserError: a line is no certificate.
    """
    try:
        lines = read_text(path).splitlines() if path.exists() else []
        found = {key(line["cell"]): line for line in map(json.loads, lines)}
        for certificate in found.values():
            width(certificate)
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} holds no certificates ({error}): delete it or name another --out"
        ) from None


def key(cell: dict[str, Any]) -> str:
    """What tells cells apart."""
    return json.dumps(cell, sort_keys=True)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder of the files, one a metric.")] = FOLDER,
    most: Annotated[int, typer.Option(help="The largest K R.", min=1, max=64)] = 16,
    version: command.Version = False,
) -> None:
    """Certify the cells of the standard grid, exactly, in rational numbers."""
    check_folder("--out", out)
    busy = f"another process certifies into {out}: wait for it, or name another --out"
    with lock(out / "certify.lock", busy):
        skipped = _certify(certifiable(most), out)
    if skipped:
        raise typer.Exit(command.UNDECIDED)


def _certify(cells: list[Cell], out: Path) -> int:
    """How many of the cells could not be certified."""
    files = {metric: out / f"{metric}.jsonl" for metric in sorted({c.metric for c in cells})}
    kept = {metric: read(path) for metric, path in files.items()}
    skipped, widest, saved = 0, 0.0, time.perf_counter()
    # Time goes with about the fourth power of the number of points.
    done, total = 0, sum(c.points**4 for c in cells)
    try:
        with Progress("certifying") as progress:
            for cell in cells:
                name = key(head_of(cell))
                if name not in kept[cell.metric]:
                    try:
                        kept[cell.metric][name] = certify(cell)
                    except SolverError as error:
                        skipped += 1
                        print(f"not certified, {cell}: {error}", file=sys.stderr)
                if name in kept[cell.metric]:
                    widest = max(widest, width(kept[cell.metric][name]))
                if time.perf_counter() - saved > 20:
                    _write(files, kept)
                    saved = time.perf_counter()
                done += cell.points**4
                progress.update(done, total, str(cell))
    finally:
        # Ctrl-C and SIGTERM too: what is certified is kept.
        _write(files, kept)
    count = sum(len(found) for found in kept.values())
    print(f"{count} certificates in {out}, widest enclosure {widest:.1e}; {skipped} not certified")
    return skipped


def _write(files: dict[str, Path], kept: dict[str, dict[str, Any]]) -> None:
    for metric, path in files.items():
        lines = [json.dumps(found, separators=(",", ":")) for found in kept[metric].values()]
        if lines:
            write_text(path, "\n".join(lines) + "\n", special=False)


if __name__ == "__main__":
    command.one_blas_thread()
    command.run(app, "python -m theory.worst_case.certify")
