"""The engines' modules: no circle among their imports, wherever in a file they stand."""

from __future__ import annotations

import ast
from pathlib import Path

import deep

ROOT = Path(deep.__file__).parent


def imports_of(file: Path) -> set[str]:
    """Modules of `deep` that a file imports, in functions too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("deep"):
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("deep")}
    return found


def test_no_module_of_deep_imports_itself_through_others() -> None:
    files = {
        ".".join(("deep", *file.relative_to(ROOT).with_suffix("").parts)): file
        for file in ROOT.rglob("*.py")
        if file.name != "__init__.py"
    }
    graph = {name: imports_of(file) & files.keys() for name, file in files.items()}
    assert graph["deep.engines.make"] >= {"deep.engines.base", "deep.engines.simd.engine"}
    # Take away what imports nothing that is left, until nothing can be taken away.
    while ready := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in ready}
    assert not graph, f"a circle among {sorted(graph)}"
