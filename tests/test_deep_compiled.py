"""Numba's cache of compiled code: used again, and never when any source changed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from deep.engines.simd import compiled as module


def test_cached_code_is_stale_once_any_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when Numba stops reading the stamp that `compiled` sets: then its cache lies."""
    file = tmp_path / "probe.py"
    file.write_text("def double(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("probe", file)
    assert spec is not None and spec.loader is not None
    probe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probe)

    def compiled_anew() -> bool:
        function = module.compiled(probe.double)
        assert function(3) == 6
        misses, hits = function.stats.cache_misses, function.stats.cache_hits
        assert sum(misses.values()) + sum(hits.values()) == 1
        return bool(sum(misses.values()))

    assert compiled_anew()
    assert not compiled_anew()
    monkeypatch.setattr(module, "SOURCES", "those of another version")
    assert compiled_anew()
