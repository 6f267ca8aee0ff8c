"""Files of a figure: PDF, PNG and the JSON beside them that says what it was made from."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from figures.analysis.places import ROOT, cache_folder
from figures.analysis.sources import MissingResult, Sources, imported_modules, matching
from figures.drawing import style
from figures.drawing.catalogue import Entry
from figures.drawing.fingerprint import fingerprint
from theory.support.errors import UserError
from theory.support.files import write_atomically, write_json
from theory.support.provenance import provenance

#: The key of a PNG's text that holds the fingerprint of what it shows.
DRAWN = "Drawn"
# No time stamps: unchanged data give unchanged files.
_METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Outcome:
    """What became of a figure.

    Attributes:
        png: None where a result is missing; ``missing`` then names it and its command.
        unchanged: the files of an earlier call were made from the same data and code, and were kept.
        drawn: the fingerprint of what it shows, see :mod:`figures.drawing.fingerprint`.
    """

    entry: Entry
    png: Path | None
    missing: str
    unchanged: bool
    seconds: float
    drawn: str = ""


def make_figures(
    entries: Sequence[Entry],
    out: Path,
    *,
    root: Path = ROOT,
    cache: Path | None = None,
    quick: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Make figures one after another; a missing result costs its own figure only.

    Args:
        entries: which.
        out: folder of the files.
        root, cache, quick: as in :class:`figures.analysis.sources.Sources`; the cache is that of
            :func:`figures.analysis.places.cache_folder` if None.
        report: called after each.

    Raises:
        UserError: a result file that is not what it should be, or a file that can't be written.
    """
    origin = provenance()
    origin["versions"] |= {p: metadata.version(p) for p in ("matplotlib", "seaborn")}
    origin["code"] = code_hash(origin["versions"])
    cache = cache_folder() if cache is None else cache
    outcomes = []
    for entry in entries:
        began = time.perf_counter()
        png, missing = None, ""
        drawn = drawn_before(entry, out, root, quick, origin["code"])
        unchanged = drawn is not None
        if unchanged:
            png = out / f"{entry.name}.png"
        else:
            try:
                png, drawn = make_figure(entry, out, Sources(root, cache, quick), origin)
            except MissingResult as error:
                missing = str(error)
                _remove(entry, out)
        seconds = time.perf_counter() - began
        outcomes.append(Outcome(entry, png, missing, unchanged, seconds, drawn or ""))
        if report is not None:
            report(outcomes[-1])
    return outcomes


def make_figure(
    entry: Entry, out: Path, sources: Sources, origin: dict[str, Any]
) -> tuple[Path, str]:
    """Draw one figure, write NAME.pdf, NAME.png and NAME.json; the PNG's path and what is drawn.

    The JSON comes last: without it, as after a kill, the figure counts as not made.

    Raises:
        MissingResult: a result file is not there.
        UserError: a file can't be read or written.
    """
    sidecar = out / f"{entry.name}.json"
    with style.house_style():
        figure = entry.draw(sources)
        drawn = fingerprint(figure, entry.draw)
        made = {}
        for kind, metadata_of in _METADATA.items():
            buffer = io.BytesIO()
            texts = {**metadata_of, DRAWN: drawn} if kind == "png" else metadata_of
            figure.savefig(buffer, format=kind, metadata=texts, dpi=style.PNG_DPI)
            made[kind] = buffer.getvalue()
            # The layout is a share of the figure, so one format's fits the next.
            figure.set_layout_engine("none")
    try:
        sidecar.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"can't write into {out}: {error.strerror or error}") from None
    for kind, content in made.items():
        write_atomically(out / f"{entry.name}.{kind}", content, special=False)
    write_json(
        sidecar,
        {
            "figure": entry.name,
            "title": entry.title,
            "quick": sources.quick,
            "drawn": drawn,
            "data_files": sources.files,
            "patterns": sources.patterns,
            "computed": sources.computed,
            **origin,
        },
    )
    return out / f"{entry.name}.png", drawn


def code_hash(versions: dict[str, str]) -> str:
    """SHA-256 of everything but data that a figure depends on: this package, theory, versions."""
    own = sorted((ROOT / "figures").rglob("*.py"))
    reached = sorted({path for source in own for path in imported_modules(source)})
    texts = [path.read_text() for path in [*own, *reached]]
    return hashlib.sha256("\0".join([*texts, json.dumps(versions)]).encode()).hexdigest()


def drawn_before(entry: Entry, out: Path, root: Path, quick: bool, code: str) -> str | None:
    """What the files in ``out`` show, if they were made from the present data by the present code."""
    if not all((out / f"{entry.name}.{kind}").is_file() for kind in _METADATA):
        return None
    try:
        made = json.loads((out / f"{entry.name}.json").read_text())
        same = (
            made["code"] == code
            and made["quick"] == quick
            and all(
                hashlib.sha256((root / path).read_bytes()).hexdigest() == digest
                for path, digest in made["data_files"].items()
            )
            and all(matching(root, p) == paths for p, paths in made["patterns"].items())
        )
        return str(made["drawn"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _remove(entry: Entry, out: Path) -> None:
    """A figure that can't be made now must not stay behind from other data."""
    for kind in (*_METADATA, "json"):
        (out / f"{entry.name}.{kind}").unlink(missing_ok=True)
