"""analysis/ computes without a picture, and nothing there or below knows what is drawn or written."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from figures.analysis.places import ROOT

PICTURES = {"matplotlib", "seaborn", "PIL"}
#: Folder -> folders of figures that it may import from, besides itself.
MAY = {"analysis": set(), "drawing": {"analysis"}, "record": {"analysis", "drawing"}}
MODULES = [path for folder in MAY for path in sorted((ROOT / "figures" / folder).glob("*.py"))]


def imported(path: Path) -> set[str]:
    """The dotted names that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_folder_imports_only_from_those_below_it(path: Path) -> None:
    parts = [name.split(".") for name in imported(path)]
    folders = {part[1] for part in parts if part[0] == "figures"} - {path.parent.name}
    assert folders <= MAY[path.parent.name]
    if path.parent.name == "analysis":
        assert not {part[0] for part in parts} & PICTURES


def test_analysis_runs_without_matplotlib() -> None:
    """Whatever else it imports, directly or not, has no need of it either."""
    names = [f"figures.analysis.{p.stem}" for p in MODULES if p.parent.name == "analysis"]
    code = f"import sys; sys.modules['matplotlib'] = None; import {', '.join(names)}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
