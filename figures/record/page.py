"""``figures/report.html``: one self-contained page with every figure and table.

No script, no font, style sheet or picture from elsewhere: it opens from a disk without a network.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

from figures.analysis.places import ROOT
from figures.analysis.sources import MissingResult, Sources
from figures.drawing.rendering import DRAWN, Outcome
from figures.record import theory_tables
from figures.record.blocks import make_tables
from figures.record.claims import TITLE as CLAIMS
from figures.record.story import GALLERY, LEAD, STORY, TITLE, Section
from figures.record.table import Table
from theory.support.files import write_atomically, write_text
from theory.support.provenance import commit

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
main, header { max-width: 76rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; padding-top: .8rem; border-top: 2px solid #0072b2; }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { max-width: 46rem; }
nav { margin: 1rem 0; } nav a { display: inline-block; margin: 0 1rem .3rem 0; }
a { color: #005a8e; }
.figures { display: grid; gap: 2rem; grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; }
figure.narrow img { max-width: 36rem; }
figcaption { max-width: 46rem; font-size: .9rem; color: #3d4650; margin-top: .3rem; }
@media (max-width: 45rem) {
  .picture { overflow-x: auto; } figure.wide img { width: 44rem; max-width: none; }
}
.scroll { overflow-x: auto; margin: 1.4rem 0 .3rem; }
table { border-collapse: collapse; font-size: .85rem; line-height: 1.35; min-width: 36rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .35rem; }
th, td { text-align: left; vertical-align: top; padding: .28rem .7rem .28rem 0;
         border-bottom: 1px solid #dde2e7; }
th { border-bottom: 2px solid #8a949e; }
code { font-size: .92em; overflow-wrap: anywhere; }
table.prose td { min-width: 7rem; max-width: 30rem; }
@media (max-width: 45rem) {
  table.prose { min-width: 0; } table.prose thead { display: none; }
  table.prose tr { display: block; border-bottom: 2px solid #8a949e; padding: .4rem 0; }
  table.prose td { display: block; border: 0; max-width: none; padding: .12rem 0; }
  table.prose td::before { content: attr(data-head) ": "; color: #5b6670; }
  table.prose td:first-child { font-weight: 600; } table.prose td:first-child::before { content: none; }
}
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.good { color: #00694d; } .bad { color: #b03a00; font-weight: 700; } .so-so { color: #7a5200; }
.note { font-size: .85rem; color: #3d4650; margin: .2rem 0 0; }
.missing { border-left: 4px solid #e69f00; padding: .3rem .8rem; background: #fff8e8; }
details { margin: .5rem 0; } details caption { display: none; }
summary { cursor: pointer; color: #005a8e; padding: .15rem 0; }
details .scroll { margin: .4rem 0 .3rem; } details .figures { margin: 1rem 0; }
@media print { body { font-size: 11px; } figure, table { break-inside: avoid; } }
"""


#: A picture on a page: the fingerprint of what it shows, and its source with its size.
_PICTURE = re.compile(r'<img data-drawn="([0-9a-f]+)" (src="data:[^"]*" width=\d+ height=\d+)')
_FOOT = re.compile(r"<p class=note>Made by python -m figures at commit [^<]*</p>")


def write_report(path: Path, outcomes: Sequence[Outcome], root: Path = ROOT) -> bool:
    """Write the page from the figures just made and from the result files.

    A picture of the page that is there stays as it is while it shows the same, and the whole page
    while nothing on it changes but the commit that made it.

    Returns:
        Whether the page was written.

    Raises:
        UserError: the page can't be written, or a result file is not what it should be.
    """
    tables = make_tables(root)
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    pictures = dict(_PICTURE.findall(before))
    by_name = {outcome.entry.name: outcome for outcome in outcomes}
    body = [_section(section, by_name, pictures, tables) for section in STORY]
    links = "".join(
        f"<a href=#{_slug(section.heading)}>{html.escape(section.heading)}</a>" for section in STORY
    )
    page = (
        "<!doctype html>\n<html lang=en-GB>\n<head>\n<meta charset=utf-8>\n"
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(TITLE)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{html.escape(TITLE)}</h1>\n<p>{html.escape(LEAD)}</p>\n"
        f"<nav>{links}</nav></header>\n<main>\n"
        + "\n".join(body)
        + _every_check(root)
        + f"\n<p class=note>Made by python -m figures at commit {html.escape(commit())}.</p>\n"
        "</main>\n</body>\n</html>\n"
    )
    if _FOOT.sub("", page) == _FOOT.sub("", before):
        return False
    write_text(path, page)
    return True


def _section(
    section: Section,
    outcomes: dict[str, Outcome],
    pictures: dict[str, str],
    tables: dict[str, Table | str],
) -> str:
    """Heading, paragraphs and figures; below them, folded, more figures and the tables."""

    def figures(names: Sequence[str]) -> str:
        shown = [_figure(outcomes[name], pictures) for name in names if name in outcomes]
        return f"<div class=figures>{''.join(shown)}</div>" if shown else ""

    parts = [f"<h2 id={_slug(section.heading)}>{html.escape(section.heading)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.text]
    if "claims" in section.tables:
        parts.append(_verdicts(tables["claims"]))
    parts.append(figures(section.figures))
    folded = figures(section.more)
    if folded:
        parts.append(f"<details><summary>More figures</summary>{folded}</details>")
    parts += [_table(tables[name]) for name in section.tables]
    return "\n".join(part for part in parts if part)


def _verdicts(claims: Table | str) -> str:
    """Claim and verdict alone; the folded table has the rest."""
    if isinstance(claims, str):
        return ""
    short = Table(claims.title, claims.head[:2], [row[:2] for row in claims.rows])
    return short.html()


def _slug(heading: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in heading.lower())


def _figure(outcome: Outcome, pictures: dict[str, str]) -> str:
    """A figure's place on the page; ``pictures`` are those there already, by what they show."""
    entry = outcome.entry
    head = f"<h3>{html.escape(entry.title)}</h3>"
    if outcome.png is None:
        return f"<figure>{head}<p class=missing>{html.escape(outcome.missing)}</p></figure>"
    source = pictures.get(outcome.drawn)
    if source is None:
        data, (width, height) = small_png(outcome.png)
        code = base64.b64encode(data).decode()
        source = f'src="data:image/png;base64,{code}" width={width} height={height}'
    kind = "wide" if int(source.rsplit("width=", 1)[1].split()[0]) > 1000 else "narrow"
    return (
        f'<figure class={kind} id="{entry.name}">{head}<div class=picture><img '
        f'data-drawn="{outcome.drawn}" {source} alt="{html.escape(entry.text, quote=True)}"></div>'
        f"<figcaption>{html.escape(entry.text)}</figcaption></figure>\n"
    )


def small_png(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The picture with 256 colours, a third of the size at no visible cost, and its size in pixels."""
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        texts = PngImagePlugin.PngInfo()
        texts.add_text(DRAWN, shown_by(path))
        reduced.save(buffer, "png", optimize=True, pnginfo=texts)
        return buffer.getvalue(), image.size


def shown_by(path: Path) -> str:
    """The fingerprint in a PNG of what it shows; empty without one, or without a PNG there."""
    try:
        with Image.open(path) as image:
            return str(image.info.get(DRAWN, ""))
    except (OSError, SyntaxError, ValueError):
        return ""


def write_gallery(folder: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """The pictures that the README shows, small, from the figures just made.

    Returns:
        The files written: one that shows the same already is kept.

    Raises:
        UserError: a file can't be written.
    """
    written = []
    for outcome in outcomes:
        if outcome.png is not None and outcome.entry.name in GALLERY:
            path = folder / outcome.png.name
            if shown_by(path) != outcome.drawn:
                write_atomically(path, small_png(outcome.png)[0])
                written.append(path)
    return written


def _table(table: Table | str) -> str:
    """A table, folded under its title."""
    if isinstance(table, str):
        return f"<p class=missing>No result yet: {html.escape(table)}</p>"
    if not table.rows:
        return table.html()
    title = html.escape(table.title if table.title != CLAIMS else f"{CLAIMS}: results and commands")
    return f"<details><summary>{title}</summary>{table.html()}</details>"


def _every_check(root: Path) -> str:
    try:
        table = theory_tables.all_checks(Sources(root))
    except MissingResult:
        return ""
    return _table(table)
