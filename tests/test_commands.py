"""Running a command: streams, signals, workers, mistakes, and options."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from theory.support import command as cli
from theory.support import interrupts, numbers, provenance

ROOT = Path(__file__).resolve().parents[1]

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


def test_an_option_of_typer_takes_the_commas(capsys: pytest.CaptureFixture[str]) -> None:
    app = cli.make_app()

    @app.command()
    def main(local_steps: list[str] = typer.Option(["1"], "-K")) -> None:  # noqa: B008
        print(numbers.whole_numbers("-K", local_steps, 1))

    assert cli.run_command(app, "x", ["-K", "1,5", "-K", "20"]) == 0
    assert capsys.readouterr().out == "[1, 5, 20]\n"
    assert cli.run_command(app, "x", ["-K", ""]) == cli.BAD_INPUT
