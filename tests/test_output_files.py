"""Output files: checked before the work, written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from theory.support import files
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to("there/real.json")
    files.write_text(link, "new")
    assert link.is_symlink() and (tmp_path / "there" / "real.json").read_text() == "new"


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    files.check_outputs({"--json": fifo})
    heard = []
    reader = threading.Thread(target=lambda: heard.append(fifo.read_text()))
    reader.start()
    files.write_text(fifo, "x" * 200_000)
    reader.join(10)
    assert heard == ["x" * 200_000] and fifo.is_fifo()


def test_dev_stdout_is_standard_output_also_when_that_is_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    code = (
        "from pathlib import Path; from theory.support.files import write_text\n"
        "print('first'); write_text(Path('/dev/stdout'), 'second\\n'); print('third')"
    )
    with out.open("w") as stream:
        stream.write("before\n")
        stream.flush()
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True, cwd=ROOT)
    assert out.read_text() == "before\nfirst\nsecond\nthird\n"


def test_outputs_are_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    (tmp_path / "kept").write_text("old")
    (tmp_path / "kept").chmod(0o444)
    (tmp_path / "alias").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    for path, reason in {
        tmp_path / "folder": "directory",
        tmp_path / "kept": "read-only",
        tmp_path / "file" / "below": "directory|exists",
        tmp_path / "loop": "symbolic",
        tmp_path / ("x" * 300): "name too long",
        Path("/proc/new.json"): "No such|denied|Read-only",
    }.items():
        with pytest.raises(UserError, match=f"--json is .*(?i:{reason})"):
            files.check_outputs({"--json": path})
    for other in ("file", "./file", "alias", "folder/../file"):
        with pytest.raises(UserError, match="--json and --csv are both"):
            files.check_outputs({"--json": tmp_path / "file", "--csv": tmp_path / other})
    with pytest.raises(UserError, match="--json and --data are both"):
        files.check_outputs({"--json": tmp_path / "alias"}, {"--data": tmp_path / "file"})
    files.check_outputs({"--json": tmp_path / "new" / "deep.json", "--csv": None})
    assert (tmp_path / "file").read_text() == "old"
    assert not list(tmp_path.rglob("*.part"))


def test_a_full_disk_is_found_before_the_work() -> None:
    small = Path("/dev/shm")
    with pytest.raises(UserError, match=r"No space left|cannot write"):
        files.write_text(Path("/dev/full"), "x")
    if not small.is_dir():
        pytest.skip("no /dev/shm")
    # A file larger than the limit stands for a disk without room.
    code = (
        "import resource, signal; from pathlib import Path; from theory.support import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "files.check_outputs({'--json': Path('/dev/shm/local-sgd-rates-test.json')})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "UserError: --json is /dev/shm/local-sgd-rates-test.json: File too large" in done.stderr
    assert not list(small.glob(".local-sgd-rates-test*"))


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.json"
    code = (
        "import os, signal, sys; from pathlib import Path; from theory.support import files\n"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_text(Path(sys.argv[1]), 'half')"
    )
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old"
    assert len(list(tmp_path.glob(".*.part"))) == 1
    living = tmp_path / files._part_name(path).name
    living.write_text("not ours to remove")
    files.write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.glob(".*.part")) == [living]


def test_permissions_of_an_old_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    path.chmod(0o640)
    files.write_text(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640
