"""The result files: theory/results/worst_case.json and theory/results/outer_step.json."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.provenance import provenance
from theory.support.reading import read_text
from theory.worst_case import outer_steps
from theory.worst_case.many_local_steps import LimitRow, SpiralRow
from theory.worst_case.outer_findings import outer_findings
from theory.worst_case.outer_steps import OuterSteps
from theory.worst_case.routes import Route
from theory.worst_case.rows import Row
from theory.worst_case.statements import Finding, Where
from theory.worst_case.step_sizes import TunedStep, best_step_sizes

RESULTS = Path(__file__).resolve().parents[1] / "results"
RECORD, OUTER_RECORD = RESULTS / "worst_case.json", RESULTS / "outer_step.json"
SOLVERS = RESULTS / "solvers.json"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run found.

    Attributes:
        rows, routes, limits, spirals, tuned, findings: see the classes.
        time_limit: seconds that each cell had.
    """

    rows: list[Row]
    routes: list[Route] = field(default_factory=list)
    limits: list[LimitRow] = field(default_factory=list)
    spirals: list[SpiralRow] = field(default_factory=list)
    tuned: list[TunedStep] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    time_limit: float | None = None


def write_record(path: Path, record: Record) -> None:
    """Provenance, then "rows", "routes", "limits", "spirals", "tuned_steps", "findings" and
    "best_step_sizes"; the order depends on the cells alone."""
    content = {
        **_header(),
        "data": "worst cases of deterministic Local SGD, all smooth convex f_i with a common x*",
        "units": "values in L D (D for the distance), step sizes in 1 / L; see theory/worst_case/rows.py",
        "time_limit": record.time_limit,
        "rows": [asdict(row) for row in record.rows],
        "routes": [asdict(route) for route in record.routes],
        "limits": [asdict(row) for row in record.limits],
        "spirals": [asdict(row) for row in record.spirals],
        "tuned_steps": [asdict(step) for step in record.tuned],
        "findings": [asdict(finding) for finding in record.findings],
        "best_step_sizes": [asdict(step) for step in best_step_sizes(record.rows)],
    }
    write_json(path, content)


def write_outer_steps(path: Path, found: OuterSteps) -> None:
    """Provenance, then "pairs", "maps", "one_step_check" and "findings"."""
    content = {
        **_header(),
        "data": "worst cases with a fixed outer step: best pairs (eta, beta), and maps over both",
        "units": "values in L D, step sizes in 1 / L; see theory/worst_case/outer_steps.py",
        **outer_steps.as_json(found),
        "findings": [asdict(finding) for finding in outer_findings(found)],
    }
    write_json(path, content)


def read_record(path: Path = RECORD) -> Record:
    """What :func:`write_record` wrote.

    Raises:
        UserError: the file is missing or is not such a record.
    """
    content = _read(path, "--json")
    try:
        return Record(
            rows=[Row(**row) for row in content["rows"]],
            routes=[Route(**route) for route in content["routes"]],
            limits=[LimitRow(**row) for row in content["limits"]],
            spirals=[SpiralRow(**row) for row in content["spirals"]],
            tuned=[TunedStep(**step) for step in content["tuned_steps"]],
            findings=[as_finding(finding) for finding in content["findings"]],
            time_limit=content["time_limit"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a record of worst cases: {error}") from None


def read_outer_steps(path: Path = OUTER_RECORD) -> OuterSteps:
    """What :func:`write_outer_steps` wrote.

    Raises:
        UserError: the file is missing or is not such a record.
    """
    content = _read(path, "--outer-steps")
    try:
        return outer_steps.from_json(content)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a record of outer steps: {error}") from None


def read_solvers(path: Path = SOLVERS) -> dict[str, Any] | None:
    """What ``benchmarks/worst_case_solvers.py`` wrote; None where it was not run.

    Raises:
        UserError: the file can't be read.
    """
    return _read(path, "--json") if path.exists() else None


def as_finding(content: dict[str, Any]) -> Finding:
    """A finding from its JSON."""
    where = content["where"]
    return Finding(**{**content, "where": None if where is None else Where(**where)})


def _read(path: Path, option: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: python -m theory.worst_case {option} makes it"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a record")
    return content


def _header() -> dict[str, Any]:
    header = provenance()
    for package in ("PEPit", "cvxpy", "clarabel"):
        if importlib.util.find_spec(package):
            header["versions"][package] = metadata.version(package)
    return header


def solved(rows: Sequence[Row]) -> list[Row]:
    """Those that have a number."""
    return [row for row in rows if row.worst_case is not None]
