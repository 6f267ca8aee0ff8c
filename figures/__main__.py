"""``python -m figures``: every figure, the page with all of them, and the record's tables.

Exit status: 0 when everything asked for was made, 1 when a result was missing (the rest is made),
2 on bad input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from figures.analysis.sources import ROOT
from figures.drawing import rendering
from figures.drawing.catalogue import FIGURES, find
from figures.record.blocks import RECORDS, update_record
from figures.record.page import GALLERY, write_gallery, write_report
from theory.support import command as cli

app = typer.Typer(add_completion=False, rich_markup_mode=None)
PAGE, RECORD, PICTURES = "report", "record", "gallery"
SPECIAL = (PAGE, RECORD, PICTURES)


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Figures, or {', '.join(SPECIAL)}; all figures and the report if none."
        ),
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="Name the figures and stop.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Computed data at a small scale, into OUT/quick.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the files.")] = None,
) -> int:
    """Make figures from the results as PDF and PNG, each with a JSON that names its data.

    "report" writes one self-contained page with all figures and tables, and makes the figures for it;
    "record" writes the tables of paper_repro.md and README.md from the result files; "gallery" makes
    the README's pictures.
    """
    console = Console(highlight=False, soft_wrap=True)
    if list_names:
        width = max(len(entry.name) for entry in FIGURES)
        for entry in FIGURES:
            console.print(f"{entry.name:{width}}  {escape(entry.title)}", highlight=False)
        return 0
    chosen = list(names or [])
    wants_report = not chosen or PAGE in chosen
    named = [name for name in chosen if name not in SPECIAL]
    entries = find(named) if named or not chosen else []
    if wants_report:
        entries = list(FIGURES)
    elif PICTURES in chosen:
        entries = find([*named, *GALLERY])
    folder = out or rendering.OUT
    # Small-scale figures never replace the real ones.
    folder = folder / "quick" if quick else folder
    made = 0

    def tell(outcome: rendering.Outcome) -> None:
        nonlocal made
        made += 1
        head = f"[{made}/{len(entries)}] {outcome.entry.name}"
        what = f"missing: {outcome.missing}" if outcome.missing else str(_short(outcome.png))
        what += ", unchanged" if outcome.unchanged else ""
        console.print(escape(f"{head}: {what} ({outcome.seconds:.1f} s)"))

    outcomes = rendering.make_figures(entries, folder, quick=quick, report=tell)
    missing = any(outcome.missing for outcome in outcomes)
    if wants_report:
        # The page is kept beside the package; one from another folder or scale stays there.
        page = ROOT / "figures" / "report.html" if out is None and not quick else None
        path = write_report(page or folder / "report.html", outcomes)
        console.print(escape(str(_short(path))))
    if PICTURES in chosen:
        kept = ROOT / "figures" if out is None and not quick else folder
        for picture in write_gallery(kept / "gallery", outcomes):
            console.print(escape(str(_short(picture))))
    if RECORD in chosen:
        absent: dict[str, None] = {}
        for name in RECORDS:
            absent |= dict.fromkeys(update_record(ROOT / name))
            console.print(name)
        for message in absent:
            console.print(escape(f"missing: {message}"))
        missing = missing or bool(absent)
    return 1 if missing else 0


def _short(path: Path | None) -> Path | None:
    """Relative to the folder one is in, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path and path.is_relative_to(here) else path


if __name__ == "__main__":
    cli.run(app, "python -m figures")
