"""Memory, tables, progress and provenance: what every command shares beside files and numbers."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table

from theory.support import command as cli
from theory.support import memory, progress, provenance
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# ---- memory --------------------------------------------------------------------------------------


def test_more_memory_than_there_is_names_the_amounts_and_the_option() -> None:
    memory.require(1e6, "this", "--dimension")
    with pytest.raises(
        UserError, match=r"^A of 10\^6 x 10\^9 needs about 8,000 TB of memory, .* lower -d$"
    ):
        memory.require(8e15, "A of 10^6 x 10^9", "-d")


def test_a_limit_on_the_address_space_counts() -> None:
    code = (
        "import resource; from theory.support import memory\n"
        "before = memory.available(); gib = 2**30\n"
        "resource.setrlimit(resource.RLIMIT_AS, (gib * 3 // 2,) * 2)\n"
        "assert memory.available() < gib * 3 // 2 < before, (before, memory.available())\n"
        "bytearray(memory.available() * 9 // 10)\n"
    )
    if (memory.available() or 0) < 3 << 30:
        pytest.skip("needs 3 GB free")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_control_group_counts_less_its_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    for folder, limit in ((group, "max"), (group.parent, "1000000")):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("700000")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 200000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    real = Path.read_text

    def read(self: Path, *a: object, **k: object) -> str:
        return "0::/a/b\n" if str(self) == "/proc/self/cgroup" else real(self)

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.available() == 500_000


# ---- tables and progress -------------------------------------------------------------------------


@pytest.mark.parametrize("width", [10, 40, 80])
def test_no_column_of_a_table_gets_the_width_zero(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table(*[f"head{i:02d}" for i in range(12)])
    table.add_row(*[f"cell{i:02d}" for i in range(12)])
    cli.console().print(table)
    shown = capsys.readouterr().out
    for i in range(12):
        assert f"head{i:02d}" in shown and f"cell{i:02d}" in shown


def test_colour_in_a_pipe_changes_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.setenv(name, "1")
        assert cli.console().width == cli.PIPE_WIDTH


def test_piped_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress("checking") as shown:
        for i in range(101):
            shown.update(i, 100)
            clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "checking: 10 of 100, 1:30 left",
        "checking: 40 of 100, 1:00 left",
        "checking: 70 of 100, 0:30 left",
        "checking: 100 of 100",
    ]


def test_time_left_is_from_work_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = progress.Progress("running")
    shown.update(500, 1000)
    assert shown.seconds_left(500, 1000) is None
    clock[0] = 10.0
    # 100 units in ten seconds: what a killed run left behind took no time.
    assert shown.seconds_left(600, 1000) == pytest.approx(40)
    assert progress.duration(40) == "0:40" and progress.duration(3723) == "1:02:03"
    assert progress.duration(math.inf) == "more than 99 hours"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress("x", quiet=True, every=0) as shown:
        shown.update(1, 2)
        shown.say("y")
    assert capsys.readouterr().err == ""


# ---- provenance ----------------------------------------------------------------------------------


def test_a_copy_inside_another_repository_never_names_its_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True
        )

    git("init")
    (tmp_path / "file").write_text("x")
    git("add", "file")
    git("commit", "-m", "x")
    copy = tmp_path / "env" / "theory"
    (copy / "support").mkdir(parents=True)
    (copy / "__init__.py").write_text("")
    for name in ("__init__", "provenance", "interrupts", "errors"):
        shutil.copy(ROOT / "theory" / "support" / f"{name}.py", copy / "support")
    code = "from theory.support.provenance import commit; print(commit())"
    for folder, same in ((copy.parent, False), (ROOT, True)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
        )
        assert (done.stdout != "unknown\n") == (same and (ROOT / ".git").exists())


def test_the_projects_own_version_is_in_the_provenance() -> None:
    versions = provenance.provenance()["versions"]
    assert versions[provenance.PROJECT] == provenance.version() != "unknown"
    assert {"python", "numpy"} <= versions.keys()


def test_work_without_news_says_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """One long step has nothing to report; a pipe still gets a line, and none once it is over."""
    with progress.Progress("checking", every=0.05) as shown:
        shown.update(0, 6)
        time.sleep(0.4)
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= 2 and all(
        re.fullmatch(r"checking: 0 of 6, at work for 0:0\d", s) for s in said
    )
    time.sleep(0.2)
    assert not capsys.readouterr().err
