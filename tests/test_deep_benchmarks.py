"""The benchmarks of the deep experiment, at a scale that a CPU does in seconds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deep_cases import random_images, write_class_folders

from deep.engines.formulations import Grouped


def load_benchmark(name: str) -> ModuleType:
    """The script ``benchmarks/<name>.py`` as a module."""
    path = Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def gpu_arguments(tmp_path: Path, minutes: float) -> list[str]:
    """Arguments of deep_gpu on the CPU."""
    data = tmp_path / "data"
    if not data.exists():
        write_class_folders(data, random_images(40))
    return [
        "--device",
        "cpu",
        "--data",
        str(data),
        "--width",
        "1",
        "--subset",
        "40",
        "--nodes",
        "4",
        "--batch-size",
        "2",
        "--rounds",
        "4",
        "--timed-steps",
        "1",
        "--repeats",
        "1",
        "--no-compile",
        "--minutes",
        str(minutes),
        "--out",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "results"),
    ]


def test_gpu_benchmark_runs_on_a_cpu_and_goes_on_over_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load_benchmark("deep_gpu")
    # Out of time at once: the loop engine alone is timed, and no run may choose its engine yet.
    assert gpu.main(gpu_arguments(tmp_path, 0)) == 0
    assert "the next call times the rest" in capsys.readouterr().out
    stored = json.loads((tmp_path / "out" / "engines.json").read_text())
    assert [row["variant"] for row in stored["rows"]] == ["loop, float32"]
    assert not [p for p in (tmp_path / "out").iterdir() if p.is_dir()]
    assert gpu.main(gpu_arguments(tmp_path, 2)) == 0
    stored = json.loads((tmp_path / "results" / "trial_engines.json").read_text())
    rows = {row["variant"]: row for row in stored["rows"]}
    assert len(rows) == 10 and all(row["right"] for row in rows.values())
    assert rows["loop, float32"]["times_the_loop"] == 1.0
    assert rows["im2col, float32"]["distance"] < 1e-3 < rows["im2col, bf16"]["distance"]
    for row in rows.values():
        assert 0 < row["of_ceiling"] < 1 and row["slowest"] <= row["fastest"]
    best = max(
        (r for r in rows.values() if r["engine"] != "loop"), key=lambda r: r["images_per_second"]
    )
    assert stored["fastest"] == best["variant"]
    results = [
        json.loads(path.read_text()) for path in (tmp_path / "results").glob("paper_to-loss_*.json")
    ]
    found = {(r["config"]["regime"], r["config"]["local_steps"]) for r in results}
    assert len(results) == len(gpu.RUNS) and found == {(run[0], run[2]) for run in gpu.RUNS}
    for result in results:
        assert result["summary"]["status"] == "round_limit" and result["summary"]["rounds"] == 4
        assert result["config"]["engine"] == best["engine"]
        assert result["config"]["precision"] == best["precision"]

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("measured or trained again")

    # All is done: a further call only prints.
    monkeypatch.setattr(gpu, "time_variant", refuse)
    monkeypatch.setattr("deep.experiment.run", refuse)
    capsys.readouterr()
    assert gpu.main(gpu_arguments(tmp_path, 2)) == 0
    assert "paper_to-loss_shards2_K01" in capsys.readouterr().out.replace("\n", "")


def test_a_variant_that_fails_is_a_row_and_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load_benchmark("deep_gpu")

    def broken(self: Grouped, *arguments: Any) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(Grouped, "conv", broken)
    assert gpu.main(gpu_arguments(tmp_path, 2)) == 0
    stored = json.loads((tmp_path / "results" / "trial_engines.json").read_text())
    rows = {row["variant"]: row for row in stored["rows"]}
    assert rows["grouped, bf16"]["error"] == "RuntimeError: no kernel for this"
    assert not stored["fastest"].startswith("grouped")


def test_gpu_benchmark_without_its_device_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = load_benchmark("deep_gpu")
    assert gpu.main([*gpu_arguments(tmp_path, 1), "--device", "cuda:77"]) == 2
    error = capsys.readouterr().err
    assert "cuda:77 is not there" in error and error.count("\n") == 1
    assert gpu.main(["--minutes", "soon"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_speed_benchmark_compares_equal_trajectories() -> None:
    speed = load_benchmark("deep_speed")
    rows = speed.measure(
        2, n_nodes=2, batch_size=8, local_steps=1, repeats=1, threads=1, image_size=8
    )
    assert [row["engine"] for row in rows] == list(speed.ENGINES)
    for row in rows:
        assert row["agrees"] and 0 < row["distance"] < 1e-3 and row["gflops"] > 0
        assert row["images_per_second"] == pytest.approx(16 / row["seconds"])
        assert row["simd_speedup"] == pytest.approx(row["seconds"] / rows[0]["seconds"])
