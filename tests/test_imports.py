"""Nothing imports upwards: the layers of the repository, by parsing every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each layer with the layers it may import, besides itself.
MAY: dict[str, set[str]] = {
    "theory.support": set(),
    "theory.problems": {"theory.support"},
    "theory.simulation": {"theory.support", "theory.problems"},
    "theory.proofs": {"theory.support"},
    "theory.theorems": {
        "theory.support",
        "theory.problems",
        "theory.simulation",
        "theory.proofs",
    },
    "theory.verification": {
        "theory.support",
        "theory.problems",
        "theory.simulation",
        "theory.theorems",
    },
    "theory.worst_case": {
        "theory.support",
        "theory.problems",
        "theory.simulation",
        "theory.theorems",
    },
    "deep": {"theory.support"},
}


def layer(name: str) -> str | None:
    """The layer that a module belongs to: its second level under theory, else its package."""
    parts = name.split(".")
    if parts[0] == "theory":
        folder = ".".join(parts[:2])
        return folder if folder in MAY else "theory"
    return parts[0] if parts[0] in ("deep", "figures", "benchmarks", "tests") else None


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            # "from theory import problems" names the layer in its second half.
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= whole if node.module == "theory" else {node.module or ""}
    return names


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = sorted(
    p for folder in ("theory", "deep", "figures") for p in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    own = layer(module_name(path))
    found = {layer(name) for name in imported(path)} - {None, own}
    if own in MAY:
        assert found <= MAY[own], f"{own} may not import {found - MAY[own]}"
    assert not found & {"figures", "benchmarks", "tests"}


def test_an_import_upwards_would_be_seen(tmp_path: Path) -> None:
    source = tmp_path / "below.py"
    source.write_text(
        "def f():\n    from theory import figures, verification\n    import deep.engines\n"
    )
    assert {layer(name) for name in imported(source)} == {"theory", "theory.verification", "deep"}
    assert not {"theory.verification", "deep"} <= MAY["theory.problems"]


def test_the_layers_are_there() -> None:
    for name in MAY:
        assert (ROOT / name.replace(".", "/")).is_dir()
    assert {layer(module_name(p)) for p in SOURCES} == {*MAY, "theory", "figures"}
