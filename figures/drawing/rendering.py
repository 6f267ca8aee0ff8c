"""Files of a figure: PDF, PNG and the JSON beside them that says what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from figures.analysis.sources import CACHE, ROOT, MissingResult, Sources, imported_modules, matching
from figures.drawing import style
from figures.drawing.catalogue import Entry
from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.provenance import provenance

OUT = ROOT / "figures" / "out"
# No time stamps: unchanged data give unchanged files.
_METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Outcome:
    """What became of a figure.

    Attributes:
        png: None where a result is missing; ``missing`` then names it and its command.
        unchanged: the files of an earlier call were made from the same data and code, and were kept.
    """

    entry: Entry
    png: Path | None
    missing: str
    unchanged: bool
    seconds: float


def make_figures(
    entries: Sequence[Entry],
    out: Path,
    *,
    root: Path = ROOT,
    cache: Path = CACHE,
    quick: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Make figures one after another; a missing result costs its own figure only.

    Args:
        entries: which.
        out: folder of the files.
        root, cache, quick: as in :class:`figures.analysis.sources.Sources`.
        report: called after each.

    Raises:
        UserError: a result file that is no JSON, or a file that can't be written.
    """
    origin = provenance()
    origin["versions"] |= {p: metadata.version(p) for p in ("matplotlib", "seaborn")}
    origin["code"] = code_hash(origin["versions"])
    outcomes = []
    for entry in entries:
        began = time.perf_counter()
        png, missing = None, ""
        unchanged = is_unchanged(entry, out, root, quick, origin["code"])
        if unchanged:
            png = out / f"{entry.name}.png"
        else:
            try:
                png = make_figure(entry, out, Sources(root, cache, quick), origin)
            except MissingResult as error:
                missing = str(error)
                _remove(entry, out)
        seconds = time.perf_counter() - began
        outcomes.append(Outcome(entry, png, missing, unchanged, seconds))
        if report is not None:
            report(outcomes[-1])
    return outcomes


def make_figure(entry: Entry, out: Path, sources: Sources, origin: dict[str, Any]) -> Path:
    """Draw one figure, write NAME.pdf, NAME.png and NAME.json; returns the PNG's path.

    Raises:
        MissingResult: a result file is not there.
        UserError: a file can't be read or written.
    """
    files = {kind: out / f"{entry.name}.{kind}" for kind in _METADATA}
    with style.house_style():
        figure = entry.draw(sources)
        try:
            out.mkdir(parents=True, exist_ok=True)
            for kind, path in files.items():
                part = path.with_name(path.name + ".part")
                figure.savefig(part, format=kind, metadata=_METADATA[kind], dpi=style.PNG_DPI)
                os.replace(part, path)
                # The layout is a share of the figure, so one format's fits the next.
                figure.set_layout_engine("none")
        except OSError as error:
            raise UserError(f"can't write into {out}: {error.strerror or error}") from None
    write_json(
        out / f"{entry.name}.json",
        {
            "figure": entry.name,
            "title": entry.title,
            "quick": sources.quick,
            "data_files": sources.files,
            "patterns": sources.patterns,
            "computed": sources.computed,
            **origin,
        },
    )
    return files["png"]


def code_hash(versions: dict[str, str]) -> str:
    """SHA-256 of everything but data that a figure depends on: this package, theory, versions."""
    own = sorted((ROOT / "figures").rglob("*.py"))
    reached = sorted({path for source in own for path in imported_modules(source)})
    texts = [path.read_text() for path in [*own, *reached]]
    return hashlib.sha256("\0".join([*texts, json.dumps(versions)]).encode()).hexdigest()


def is_unchanged(entry: Entry, out: Path, root: Path, quick: bool, code: str) -> bool:
    """Whether the files in ``out`` were made from the present data by the present code."""
    if not all((out / f"{entry.name}.{kind}").is_file() for kind in _METADATA):
        return False
    try:
        made = json.loads((out / f"{entry.name}.json").read_text())
        same = (
            made["code"] == code
            and made["quick"] == quick
            and all(
                hashlib.sha256((root / path).read_bytes()).hexdigest() == digest
                for path, digest in made["data_files"].items()
            )
        )
        return same and all(matching(root, p) == paths for p, paths in made["patterns"].items())
    except (OSError, ValueError, KeyError):
        return False


def _remove(entry: Entry, out: Path) -> None:
    """A figure that can't be made now must not stay behind from other data."""
    for kind in (*_METADATA, "json"):
        (out / f"{entry.name}.{kind}").unlink(missing_ok=True)
