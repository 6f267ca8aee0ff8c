"""Numba's caches of compiled code: used again, and never when any source changed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deep.engines.simd import compiled as deep_caches
from theory.simulation import compilation as theory_caches

CASES: list[tuple[ModuleType, Callable[[Any], Any]]] = [
    (deep_caches, deep_caches.compiled),
    (theory_caches, theory_caches.compiled()),
]


@pytest.mark.parametrize(("module", "compiled"), CASES, ids=["deep", "theory"])
def test_cached_code_is_stale_once_any_source_changes(
    module: ModuleType,
    compiled: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails when Numba stops reading the stamp that `compiled` sets: then its cache lies."""
    file = tmp_path / "probe.py"
    file.write_text("def double(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("probe", file)
    assert spec is not None and spec.loader is not None
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)
    # A cached function is loaded together with its module, by name.
    monkeypatch.setitem(sys.modules, "probe", probe)

    def compiled_anew() -> bool:
        function = compiled(probe.double)
        assert function(3) == 6
        misses, hits = function.stats.cache_misses, function.stats.cache_hits
        assert sum(misses.values()) + sum(hits.values()) == 1
        return bool(sum(misses.values()))

    assert compiled_anew()
    assert not compiled_anew()
    monkeypatch.setattr(module, "SOURCES", "those of another version")
    assert compiled_anew()
