"""What every command shares: numbers, output files, memory, streams, signals, progress, provenance."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from theory.support import command as cli
from theory.support import files, interrupts, memory, numbers, progress, provenance
from theory.support.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


# ---- numbers -------------------------------------------------------------------------------------


@given(st.integers())
def test_a_seed_is_an_unsigned_64_bit_integer(value: int) -> None:
    if 0 <= value < 2**64:
        assert numbers.seed("seed", value) == value
    else:
        with pytest.raises(
            UserError, match=r"seed is .*, allowed: integers from 0 to 1844674407370955"
        ):
            numbers.seed("seed", value)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_numpy_integers_are_integers(kind: type[np.integer]) -> None:
    found = numbers.seed("seed", kind(3))
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    "value", [1.5, 2.0, math.nan, math.inf, True, np.bool_(True), "3", None, 3 + 0j, [3]]
)
def test_nothing_else_is_an_integer(value: object) -> None:
    with pytest.raises(UserError, match=r"^rounds is .*, allowed: integers of at least 1$"):
        numbers.whole("rounds", value, 1)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, "1", 1j, None, 10**400, np.array([1.0]), 2.0, 0]
)
def test_a_real_number_is_finite_and_in_its_range(value: object) -> None:
    with pytest.raises(UserError, match=r"allowed: finite numbers above 0 and below 2$"):
        numbers.real("step size", value, above=0, below=2)
    assert numbers.real("step size", np.float32(0.5), above=0, below=2) == 0.5
    assert numbers.real("step size", 1, least=1, most=1) == 1.0


@given(st.lists(st.integers(1, 50), min_size=1), st.data())
def test_a_list_means_the_same_with_commas_as_repeated(
    values: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(values) - 1))
    texts = [",".join(map(str, part)) for part in (values[:cut], values[cut:]) if part]
    expected = list(dict.fromkeys(values))
    assert numbers.whole_numbers("-K", texts, 1) == expected
    assert numbers.real_numbers("-K", texts, above=0) == expected


@pytest.mark.parametrize("texts", ["", [], [""], "1,,2", ",", "1,a", "1.5", "0", "9" * 5000])
def test_an_empty_or_malformed_list_is_refused(texts: str | list[str]) -> None:
    with pytest.raises(UserError, match=r"-K is .*, allowed: integers") as error:
        numbers.whole_numbers("-K", texts, 1, 100)
    assert len(str(error.value)) < 200


def test_seeds_are_a_number_of_them_or_a_list() -> None:
    assert numbers.seeds("seeds", np.int64(3)) == [0, 1, 2]
    assert numbers.seeds("seeds", np.array([5, 2**63], np.uint64)) == [5, 2**63]
    for bad in (0, 1.5, True, [1, 1], [], [2**64], "3", None):
        with pytest.raises(UserError, match="allowed"):
            numbers.seeds("seeds", bad)


# ---- output files --------------------------------------------------------------------------------


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


# ---- commands ------------------------------------------------------------------------------------

#: A command that writes its result, prints for a while, and can be interrupted.
SCRIPT = """
import sys, time, types
# The package without its public names, whose import takes longer than all the rest.
sys.modules["theory"] = types.ModuleType("theory")
sys.modules["theory"].__path__ = [sys.path[1] + "/theory"]
from pathlib import Path
from typing import Annotated
import typer
from theory.support import command as cli, files
from theory.support.errors import UserError
app = cli.make_app()

def work(seconds):
    import time
    time.sleep(seconds)

@app.command()
def main(
    how: str,
    json: Annotated[Path | None, typer.Option()] = None,
    version: cli.Version = False,
) -> int:
    files.check_outputs({"--json": json})
    console = cli.console()
    if how == "long":
        for i in range(20000):
            console.print(f"line {i} of many")
    if how == "unicode":
        console.print("σ ≤ 2 – “naïve” ∞ \\udcff")
    if how == "memory":
        raise MemoryError
    if how == "bug":
        raise ValueError("ours")
    if how == "user":
        raise UserError("n is 0, allowed: at least 1 \\udcff")
    if how == "workers":
        import joblib
        print("begun", flush=True)
        joblib.Parallel(n_jobs=2)(joblib.delayed(work)(60) for _ in range(2))
    if how == "sleep":
        try:
            print("begun", flush=True)
            time.sleep(60)
        finally:
            files.write_text(json, "saved")
    if json:
        files.write_text(json, "result")
    return 0

cli.run(app, "lsgd-test")
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("benchmarks") / "lsgd-test"
    path.write_text(SCRIPT)
    return [sys.executable, str(path)]


def environment(**changes: str) -> dict[str, str]:
    dropped = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "PYTHONIOENCODING")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def test_a_reader_that_leaves_costs_neither_the_result_nor_the_status(
    script: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    line = f"{' '.join(script)} long --json {path} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0 of many\n", "")
    assert path.read_text() == "result"


def test_a_full_disk_behind_standard_output_is_said_after_the_result(
    script: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*script, "long", "--json", str(path)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
    assert done.returncode == cli.BAD_INPUT and path.read_text() == "result"
    assert done.stderr == "error: cannot write standard output: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_terminal_is_too_plain(script: list[str], encoding: str) -> None:
    env = environment(PYTHONIOENCODING=encoding)
    done = subprocess.run([*script, "unicode"], capture_output=True, env=env)
    assert done.returncode == 0 and done.stderr == b""
    if encoding == "ascii":
        assert done.stdout == b'? <= 2 - "naive" inf \\xff\n'
    bad = subprocess.run([*script, "user"], capture_output=True, env=env)
    assert bad.returncode == 2 and bad.stderr.startswith(b"error: n is 0, allowed: at least 1")


def test_closed_streams_are_nobodys_loss(script: list[str], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    line = f"{' '.join(script)} unicode --json {path} >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], env=environment()).returncode == 0
    assert path.read_text() == "result"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_after_it_has_saved(
    script: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "r.json"
    with subprocess.Popen(
        [*script, "sleep", "--json", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.wait(20) == cli.INTERRUPTED
        assert process.stderr.read() == "interrupted\n"
    assert path.read_text() == "saved"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_command(script: list[str], number: signal.Signals) -> None:
    with subprocess.Popen(
        [*script, "workers"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        for _ in range(200):
            if len(session_of(process.pid)) >= 3:
                break
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(20) == cli.INTERRUPTED
        for _ in range(100):
            if not session_of(process.pid):
                break
            time.sleep(0.05)
        assert session_of(process.pid) == []
        assert process.stderr.read() == "interrupted\n"


def session_of(process: int) -> list[int]:
    """The living processes of the session that a process leads."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                rest = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(rest[3]) == process and rest[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("seconds", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("module", ["theory.verify_rates", "figures"])
def test_an_interrupt_during_imports_is_no_traceback(module: str, seconds: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(module=module)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == cli.INTERRUPTED
        assert process.stderr.read().splitlines()[-1].startswith("interrupted")


#: As `python -m MODULE`, but says when our code begins, so that Python's own start is not hit.
WAITING = """
import runpy, sys
sys.orig_argv = [sys.executable, "-m", "{module}"]
sys.argv = ["{module}", "--help"]
import importlib.util
class Say:
    def find_spec(self, name, path=None, target=None):
        if name == "theory.problems":
            sys.meta_path.remove(self)
            print("begun", flush=True)
            import time
            time.sleep(0.5)
sys.meta_path.insert(0, Say())
runpy.run_module("{module}", run_name="__main__", alter_sys=True)
import time
time.sleep(30)
"""


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        ("python -m theory.verify_rates --quick", True),
        ("python -X dev -u -m figures", True),
        ("/venv/bin/python /venv/bin/lsgd-verify", True),
        ("python benchmarks/deep_speed.py", True),
        ("python -m pytest theory", False),
        ("python notebook.py -m theory", False),
        ("python", False),
    ],
)
def test_only_our_own_commands_take_over_the_signals(arguments: str, ours: bool) -> None:
    assert interrupts.is_our_command(arguments.split()) is ours


def test_mistakes_are_one_line_and_bugs_keep_their_traceback(script: list[str]) -> None:
    for how, status, said in (
        ("memory", 2, "error: out of memory\n"),
        ("user", 2, "error: n is 0, allowed: at least 1 \\xff\n"),
    ):
        done = subprocess.run([*script, how], capture_output=True, text=True, env=environment())
        assert (done.returncode, done.stderr) == (status, said)
    done = subprocess.run([*script, "bug"], capture_output=True, text=True, env=environment())
    assert done.returncode == 1 and "ValueError: ours" in done.stderr


def test_version_and_h(script: list[str]) -> None:
    done = subprocess.run([*script, "--version"], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (0, f"local-sgd-rates {provenance.version()}\n")
    done = subprocess.run([*script, "-h"], capture_output=True, text=True, env=environment())
    assert done.returncode == 0 and "--version" in done.stdout


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


def test_an_option_of_typer_takes_the_commas(capsys: pytest.CaptureFixture[str]) -> None:
    app = cli.make_app()

    @app.command()
    def main(local_steps: list[str] = typer.Option(["1"], "-K")) -> None:  # noqa: B008
        print(numbers.whole_numbers("-K", local_steps, 1))

    assert cli.run_command(app, "x", ["-K", "1,5", "-K", "20"]) == 0
    assert capsys.readouterr().out == "[1, 5, 20]\n"
    assert cli.run_command(app, "x", ["-K", ""]) == cli.BAD_INPUT
