"""``python -m figures``: every figure, the page with all of them, and the record's tables.

Exit status: 0 when everything asked for was made, 2 when a result is missing (the rest is made) or on
bad input, 130 when interrupted: what is made by then stays, and the next call goes on from there.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from figures.analysis.places import ROOT, is_checkout, output_folder
from figures.drawing import rendering
from figures.drawing.catalogue import FIGURES, find
from figures.record.blocks import RECORDS, update_record
from figures.record.page import write_gallery, write_report
from figures.record.story import GALLERY
from theory.support import command as cli
from theory.support.errors import UserError
from theory.support.files import check_folder, check_made, check_outputs

app = cli.make_app()
PAGE, RECORD, PICTURES = "report", "record", "gallery"
SPECIAL = (PAGE, RECORD, PICTURES)


@app.command()
def main(
    names: Annotated[
        list[str] | None,
        typer.Argument(help=f"Figures, or {', '.join(SPECIAL)}; everything if none."),
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="Name the figures and stop.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Computed data at a small scale, into OUT/quick.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the files; default: figures/out of the checkout, else ./figures. With it "
            "nothing outside it is written."
        ),
    ] = None,
    version: cli.Version = False,
) -> int:
    """Make figures from the results as PDF and PNG, each with a JSON that names its data.

    "report" writes one self-contained page with all figures and tables, and makes the figures for it;
    "record" writes the tables of paper_repro.md and README.md from the result files; "gallery" makes
    the README's pictures. Page, record and pictures are rewritten only where what they show changed.
    """
    console = Console(highlight=False, soft_wrap=True, width=cli.console().width)
    if list_names:
        width = max(len(entry.name) for entry in FIGURES) + 2
        for entry in FIGURES:
            text = f"{entry.name:{width}}{entry.title}"
            console.print(escape(textwrap.fill(text, 80, subsequent_indent=" " * width)))
        return cli.DONE
    named = [name for name in names or [] if name not in SPECIAL]
    asked = set(names or []) & set(SPECIAL)
    # Small-scale figures, and those of another folder, never replace what the checkout keeps.
    keeps = is_checkout() and out is None and not quick
    if not names:
        asked = set(SPECIAL) if keeps else {PAGE}
    if RECORD in asked and not keeps:
        raise UserError("record is written in a checkout only, allowed: without --out and --quick")
    entries = find(named) if named else []
    if PAGE in asked:
        entries = list(FIGURES)
    elif PICTURES in asked:
        entries = find([*named, *GALLERY])
    folder = out or output_folder()
    folder = folder / "quick" if quick else folder
    kept = ROOT / "figures" if keeps else folder
    if entries:
        check_folder("--out", folder)
        check_outputs({"the page": kept / "report.html" if PAGE in asked else None})
        for entry in entries:
            for kind in ("pdf", "png", "json"):
                check_made("--out", folder / f"{entry.name}.{kind}")
    outcomes = _make(console, entries, folder, quick)
    absent = dict.fromkeys(outcome.missing for outcome in outcomes if outcome.missing)
    if PAGE in asked:
        page = kept / "report.html"
        _tell(console, page, write_report(page, outcomes))
    if PICTURES in asked:
        written = write_gallery(kept / "gallery", outcomes)
        for name in GALLERY:
            picture = kept / "gallery" / f"{name}.png"
            if picture.is_file():
                _tell(console, picture, picture in written)
    if RECORD in asked:
        for name in RECORDS:
            changed, missing = update_record(ROOT / name)
            absent |= dict.fromkeys(missing)
            _tell(console, ROOT / name, changed)
    for message in absent:
        print(f"missing: {message}", file=sys.stderr)
    return cli.BAD_INPUT if absent else cli.DONE


def _make(
    console: Console, entries: list[rendering.Entry], folder: Path, quick: bool
) -> list[rendering.Outcome]:
    made = 0

    def tell(outcome: rendering.Outcome) -> None:
        nonlocal made
        made += 1
        what = "missing" if outcome.png is None else str(_short(outcome.png))
        what += ", unchanged" if outcome.unchanged else ""
        head = f"[{made}/{len(entries)}] {outcome.entry.name}"
        console.print(escape(f"{head}: {what} ({outcome.seconds:.1f} s)"))

    return rendering.make_figures(entries, folder, quick=quick, report=tell)


def _tell(console: Console, path: Path, changed: bool) -> None:
    console.print(escape(f"{_short(path)}{'' if changed else ', unchanged'}"))


def _short(path: Path) -> Path:
    """Relative to the folder one is in, where it lies below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def script() -> NoReturn:
    """The command, as a console script."""
    cli.run(app, "python -m figures")


if __name__ == "__main__":
    script()
