"""kill -9 at random moments of every command that takes long, and two processes at the same work.

Twenty moments in all, drawn from a seed; with ``LOCAL_SGD_RATES_KILLS=20`` in the environment twenty a
command, on larger work. Afterwards the results are those of an undisturbed run, to the bit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deep_cases import (
    TWO_RUNS,
    random_images,
    tiny_options,
    tiny_preset,
    write_class_folders,
)
from hostile import Commands

from deep.checkpoint import CURRENT, load_checkpoint
from deep.run_folder import in_use, read_config

KILLS = int(os.environ.get("LOCAL_SGD_RATES_KILLS", "5"))
LARGE = "LOCAL_SGD_RATES_KILLS" in os.environ
#: What a clock decides, or who commits meanwhile.
CLOCKS = {
    "commit",
    "command",
    "evaluation_share",
    "images_per_second",
    "seconds",
    "wall_seconds",
}
DEEP = [
    *("deep", *tiny_options(4, 3), "--experiment", "fixed-rounds", "--regime", "shards"),
    *("--shards-per-node", "1", "--participants", "2", "--outer-step", "extrapolated"),
    *("--device", "cpu", "--checkpoint-minutes", "0"),
]


@dataclass(frozen=True)
class Work:
    """A command that leaves its results in a folder, and what they are beside clocks."""

    name: str
    command: Callable[[str], list[str]]
    read: Callable[[Path], Any]


def _deep(place: str) -> list[str]:
    places = ["--data", "images", "--out", f"{place}/runs", "--results", f"{place}/results"]
    return [*DEEP, "--rounds", "100" if LARGE else "16", "-K", "2", *places]


def _campaign(place: str) -> list[str]:
    places = ["--data", "images", "--runs-folder", f"{place}/runs", "--results", f"{place}/results"]
    how = ["--checkpoint-minutes", "0", "--threads", "1", "--device", "cpu", "--quiet"]
    return ["campaign", "two.toml", *places, *how]


def _worst_case(place: str) -> list[str]:
    grid = ["-K", "1,2,3,4", "-R", "1,2,3"] if LARGE else ["-K", "1,2", "-R", "1,2"]
    where = ["--no-pepit", "--cache", f"{place}/cache", "--json", f"{place}/w.json"]
    return ["worst-case", *grid, "--step-size", "0.5,1", "--metric", "average_sync", *where]


def _figures(place: str) -> list[str]:
    names = ["rounds-to-loss", "consensus-distance", "tightness"] if LARGE else ["rounds-to-loss"]
    return ["figures", *names, "--out", f"{place}/out"]


def without_clocks(value: Any) -> Any:
    """Less what a clock or a folder's name decides."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if k not in CLOCKS}
    return [without_clocks(v) for v in value] if isinstance(value, list) else value


def texts(folder: Path) -> dict[str, Any]:
    """Every JSON file, and every line of metrics."""
    found = {}
    for path in folder.rglob("*.json*"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        content = [without_clocks(json.loads(line)) for line in lines]
        found[str(path.relative_to(folder))] = content
    return found


def training(folder: Path) -> Any:
    """Models, rows and results of all runs."""
    models = {
        path.parent.name: path.read_bytes().split(b"\n", 2)[2] for path in folder.rglob(CURRENT)
    }
    return models, texts(folder)


def pictures(folder: Path) -> Any:
    """Every picture, to the bit, and what is said of it."""
    drawn = [p for p in folder.rglob("*") if p.suffix in (".png", ".pdf")]
    return {p.name: p.read_bytes() for p in drawn}, texts(folder)


WORKS = [
    Work("deep run", _deep, training),
    Work("campaign", _campaign, training),
    Work("worst cases", _worst_case, texts),
    Work("figures", _figures, pictures),
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    top = tmp_path_factory.mktemp("kills")
    write_class_folders(top / "images", random_images(40))
    (top / "two.toml").write_text(tiny_preset(50 if LARGE else 9) + TWO_RUNS)
    with Commands(top) as found:
        yield found


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_killed_at_random_moments_it_ends_with_the_same_results(
    commands: Commands, work: Work
) -> None:
    def undisturbed(place: str) -> float:
        began = time.monotonic()
        assert commands.start(*work.command(place)).wait() == 0
        return time.monotonic() - began

    whole = commands.folder / work.name.replace(" ", "-")
    taken = undisturbed(whole.name)
    expected = work.read(whole)
    assert expected and all(expected)
    chance = random.Random(work.name)
    place = commands.folder / f"{whole.name}-killed"
    kills = attempts = 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 20 * KILLS, "it ends before it can be killed"
        child = commands.start(*work.command(place.name))
        time.sleep(chance.random() * taken)
        if child.kill():
            kills += 1
        else:
            # It had ended: another one, and from now on sooner.
            assert work.read(place) == expected
            shutil.rmtree(place)
            taken *= 0.8
    assert commands.start(*work.command(place.name)).wait() == 0
    assert work.read(place) == expected
    assert not list(place.rglob("*.part")), "half-written files are left"


def test_of_two_processes_on_one_run_the_second_is_refused(commands: Commands) -> None:
    """While the first is at work; a lock that a killed process held is nobody's."""
    command = _deep("doubled")
    first = commands.start(*command, "--rounds", "99999")
    runs = commands.folder / "doubled" / "runs"
    try:
        deadline = time.monotonic() + 120
        while not any(in_use(folder) for folder in runs.glob("*")):
            assert time.monotonic() < deadline, "the first process never began"
            time.sleep(0.01)
        (folder,) = runs.iterdir()
        second = commands.run(*command, "--rounds", "99999")
        assert in_use(folder), "the first process ended too soon"
    finally:
        assert first.kill()
    assert second.refused and second.err.startswith("error: another process is at work in ")
    state = load_checkpoint(folder, read_config(folder))
    rounds = 5 + (state.round if state else 0)
    assert commands.run(*command, "--rounds", str(rounds)).status == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    written = [json.loads(line)["round"] for line in lines]
    assert written == sorted(set(written)) and written[-1] == rounds


def test_two_sweeps_with_one_cache_agree(commands: Commands) -> None:
    found = [commands.start(*_worst_case("shared")) for _ in range(2)]
    assert [child.wait() for child in found] == [0, 0]
    assert commands.start(*_worst_case("alone")).wait() == 0
    assert texts(commands.folder / "shared") == texts(commands.folder / "alone")
