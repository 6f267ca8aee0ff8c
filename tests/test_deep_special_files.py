"""FIFOs and devices where a file is read: one line and status 2, never a command that waits for ever."""

from __future__ import annotations

import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from deep_cases import (
    TWO_RUNS,
    md5_of,
    random_images,
    tiny_options,
    tiny_preset,
    write_class_folders,
)

from deep import campaign, energy, reproduce
from deep.data.cifar10 import ARCHIVE, download_archive, load_images
from deep.energy_record import BALANCE, MODELS
from theory.problems.files import load_problem
from theory.support.errors import UserError
from theory.support.files import write_json
from theory.support.loading import load_module

ROUNDS = [*tiny_options(4, 4), "-K", "2", "--rounds", "2", "--regime", "iid", "--device", "cpu"]
RUN_FILES = (
    "config.json",
    "metrics.jsonl",
    "summary.json",
    "checkpoint.bin",
    "checkpoint.previous.bin",
    "checkpoint.bin.next",
    "lock",
    MODELS,
    BALANCE,
)


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """A test that waits, or reads more than 2 GB, fails; a wait passes every ``except Exception``."""

    def fail(number: int, frame: FrameType | None) -> None:
        pytest.fail("it waits for ever")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (pages * resource.getpagesize() + 2_000_000_000, limit[1])
    )
    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    resource.setrlimit(resource.RLIMIT_AS, limit)


def zeros(path: Path) -> None:
    """A link to a file without end."""
    path.symlink_to("/dev/zero")


KINDS = pytest.mark.parametrize("make", [os.mkfifo, zeros])
Make = Callable[[Path], None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Class folders of forty images."""
    return write_class_folders(tmp_path / "own", random_images(40))


def refused(capsys: pytest.CaptureFixture[str], status: int, path: Path) -> bool:
    """Whether a command said of this path, on its only line, that it is no file."""
    output = capsys.readouterr()
    said = output.err.startswith("error: ") and output.err.count("\n") == 1
    return (
        status == 2 and not output.out and said and f"{path}: is not a regular file" in output.err
    )


@KINDS
def test_data(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], make: Make) -> None:
    out = ["--out", str(tmp_path / "runs")]
    make(tmp_path / "alone")
    status = reproduce.main([*ROUNDS, "--data", str(tmp_path / "alone"), *out])
    assert refused(capsys, status, tmp_path / "alone")
    for place in (data / "class3" / "more.png", data / ARCHIVE):
        make(place)
        status = reproduce.main([*ROUNDS, "--data", str(data), *out])
        assert refused(capsys, status, place)
    assert not (tmp_path / "runs").exists()


@KINDS
def test_a_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Make) -> None:
    make(tmp_path / "queue.toml")
    for more in ([], ["--status"]):
        status = campaign.main([str(tmp_path / "queue.toml"), *more])
        assert refused(capsys, status, tmp_path / "queue.toml")


@KINDS
def test_a_run_folder(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    """Whichever of its files it is; and no other file of the folder is touched."""
    command = [*ROUNDS, "--data", str(data), "--out", str(tmp_path / "runs"), "--energy"]
    assert reproduce.main(command) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for name in RUN_FILES:
        path, aside = folder / name, tmp_path / "aside"
        if path.exists():
            path.rename(aside)
        make(path)
        before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        assert refused(capsys, reproduce.main([*command, "--rounds", "3"]), path), name
        assert refused(capsys, energy.main([str(folder)]), path), name
        assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
        path.unlink()
        if aside.exists():
            aside.rename(path)
    assert reproduce.main([*command, "--rounds", "3"]) == 0
    capsys.readouterr()
    assert energy.main([str(folder)]) == 0


def test_folders_in_place_of_a_run_folders_files(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of them it is; a folder of another name, as of an earlier damage, is let be."""
    (tmp_path / "one.toml").write_text(tiny_preset(2) + TWO_RUNS)
    places = ["--runs-folder", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    queue = [str(tmp_path / "one.toml"), "--data", str(data), *places, "--threads", "1"]
    queue += ["--device", "cpu", "--quiet"]
    assert campaign.main(queue) == 0
    folder = tmp_path / "runs" / "tiny_fixed-rounds_iid_K02"
    (folder / "damaged-1").mkdir()
    (tmp_path / "one.toml").write_text(tiny_preset(3) + TWO_RUNS)
    for name in RUN_FILES:
        path, aside = folder / name, tmp_path / "aside"
        if path.exists():
            path.rename(aside)
        path.mkdir()
        before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        for command, arguments in ((campaign.main, queue), (energy.main, [str(folder)])):
            capsys.readouterr()
            assert command(arguments) == 2, name
            error = capsys.readouterr().err
            assert error == f"error: cannot read {path}: Is a directory\n"
        assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
        path.rmdir()
        if aside.exists():
            aside.rename(path)
    assert campaign.main(queue) == 0


@KINDS
def test_the_run_folder_of_a_campaign(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    (tmp_path / "two.toml").write_text(tiny_preset(2) + TWO_RUNS)
    metrics = tmp_path / "runs" / "tiny_fixed-rounds_iid_K02" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    make(metrics)
    places = ["--runs-folder", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    options = ["--data", str(data), *places, "--threads", "1", "--device", "cpu", "--quiet"]
    assert refused(capsys, campaign.main([str(tmp_path / "two.toml"), *options]), metrics)
    assert campaign.main([str(tmp_path / "two.toml"), *places[:2], "--status"]) == 0


@KINDS
def test_an_argument_of_the_energy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    make(tmp_path / "run")
    assert refused(capsys, energy.main([str(tmp_path / "run")]), tmp_path / "run")


def endless_output(path: Path) -> None:
    """A link to a device that takes everything."""
    path.symlink_to("/dev/null")


def standard_output(path: Path) -> None:
    """A link to a descriptor, which may be a file."""
    path.symlink_to("/dev/stdout")


@pytest.mark.parametrize("make", [os.mkfifo, endless_output, standard_output, Path.mkdir])
def test_result_files_with_names_that_nobody_typed(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], make: Make
) -> None:
    (tmp_path / "two.toml").write_text(tiny_preset(2) + TWO_RUNS)
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    label = "smoke_to-loss_iid_K02_nodes-4_batch-size-4_width-1_subset-40_engine-loop"
    places = ["--data", str(data), "--results", str(results)]
    commands = {
        label: lambda: reproduce.main([*ROUNDS, *places, "--out", str(runs)]),
        "tiny_fixed-rounds_shards1_K02": lambda: campaign.main(
            [str(tmp_path / "two.toml"), *places, "--runs-folder", str(runs), "--device", "cpu"]
        ),
    }
    for name, command in commands.items():
        path = results / f"{name}.json"
        make(path)
        assert command() == 2
        output = capsys.readouterr()
        reason = "is a directory" if path.is_dir() else "is not a regular file"
        assert output.err == f"error: --results would write {path}: {reason}\n" and not output.out
        # No run has begun.
        assert not runs.exists() or not list(runs.iterdir())
        if not path.is_dir():
            with pytest.raises(UserError, match="is not a regular file"):
                write_json(path, {}, special=False)


def test_a_result_file_that_was_typed_may_be_a_fifo(tmp_path: Path, data: Path) -> None:
    command = [*ROUNDS, "--data", str(data), "--out", str(tmp_path / "runs"), "--energy"]
    assert reproduce.main(command) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    fifo, heard = tmp_path / "fifo", list[str]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: heard.append(fifo.read_text()))
    reader.start()
    assert energy.main([str(folder), "--result", str(fifo)]) == 0
    reader.join(10)
    assert json.loads(heard[0])["energy"]["windows"]


@KINDS
def test_the_cache_of_images_is_passed_over(tmp_path: Path, data: Path, make: Make) -> None:
    place = tmp_path / "cache"
    expected = load_images(data, cache=place)
    (cached,) = place.iterdir()
    cached.unlink()
    make(cached)
    assert load_images(data, cache=place).fingerprint == expected.fingerprint
    assert not cached.is_file()


def test_what_an_earlier_download_left(tmp_path: Path) -> None:
    (tmp_path / "served").write_bytes(b"served")
    os.mkfifo(tmp_path / f"{ARCHIVE}.part")
    served = tmp_path / "served"
    download_archive(tmp_path / ARCHIVE, served.as_uri(), md5_of(served))
    assert (tmp_path / ARCHIVE).read_bytes() == b"served"
    assert not (tmp_path / f"{ARCHIVE}.part").exists()


@KINDS
def test_files_of_theory(tmp_path: Path, make: Make) -> None:
    for name in ("mine.npz", "mine.csv"):
        make(tmp_path / name)
        with pytest.raises(UserError, match=f"can't read .*{name}: is not a regular file"):
            load_problem(tmp_path / name)
    make(tmp_path / "mine.py")
    with pytest.raises(UserError, match=r"mine\.py': is not a regular file"):
        load_module("--theorem", str(tmp_path / "mine.py"))
