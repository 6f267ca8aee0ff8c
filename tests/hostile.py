"""A process with a limit on its memory that runs our commands one after another, for hostile tests.

One process for many commands, as importing a command takes a hundred times as long as refusing an option;
what is to be killed runs in a fork of it. Run as a script it is that process: a request a line on standard
input, an answer a line on the descriptor that the parent kept for it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
#: Command -> the module that holds its typer app, and the app's name there.
COMMANDS = {
    "verify": ("theory.verify_rates", "app"),
    "worst-case": ("theory.worst_case.__main__", "app"),
    "baselines": ("theory.baselines", "app"),
    "advise": ("theory.advise.__main__", "app"),
    "claim": ("theory.claim.__main__", "app"),
    "energy": ("theory.energy", "app"),
    "certify": ("theory.worst_case.certify", "app"),
    "deep": ("deep.reproduce", "app"),
    "campaign": ("deep.campaign", "app"),
    "deep-energy": ("deep.energy", "app"),
    "figures": ("figures.__main__", "app"),
}
STATUSES = {0, 1, 2, 3, 130}
MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Done:
    """What became of a command; ``bug`` is the traceback of what it should not have raised."""

    status: int
    out: str
    err: str
    bug: str

    @property
    def refused(self) -> bool:
        """Whether it ended as bad input should: status 2 and one line on standard error."""
        return self.status == 2 and not self.bug and self.err.count("\n") == 1

    def check(self) -> None:
        """Assert what holds for any input whatever."""
        assert not self.bug, self.bug
        assert self.status in STATUSES
        assert "Traceback" not in self.err
        if self.status == 2:
            # A line says what was wrong, below what was said of progress.
            assert self.err.splitlines()[-1].startswith(("error: ", "missing: ")), self.err
            assert len(self.err.splitlines()[-1]) < 1000


class Commands:
    """The process; use as a context manager.

    Args:
        folder: that the commands run in.
        memory: bytes that a command may take beyond its imports.
    """

    def __init__(self, folder: Path, memory: int = MEMORY) -> None:
        self.folder, self.memory = folder, memory
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def run(self, command: str, *arguments: str, seconds: float = 240) -> Done:
        """Run a command; one that takes longer than ``seconds`` fails the test."""
        return Done(**self._ask("run", seconds, command, *arguments))

    @contextlib.contextmanager
    def environment(self, **values: str) -> Iterator[None]:
        """Inside, the process has these in its environment."""
        before = self._ask("environment", 10, "set", *(f"{k}={v}" for k, v in values.items()))
        try:
            yield
        finally:
            kept = [f"{k}={v}" for k, v in before.items()]
            self._ask("environment", 10, "set", *kept, *(k for k in values if k not in before))

    def start(self, command: str, *arguments: str) -> Child:
        """Start a command in a process of its own, without its output."""
        return Child(self, self._ask("start", 60, command, *arguments)["process"])

    def start_unread(self, command: str, *arguments: str) -> Child:
        """Start a command whose standard output is a pipe that nobody reads any more."""
        return Child(self, self._ask("start unread", 60, command, *arguments)["process"])

    def _ask(self, what: str, seconds: float, *words: str) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self.memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([what, *words]) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        answer = process.stdout.readline() if ready else ""
        if not answer:
            self.__exit__()
            how = f"died with {process.returncode}" if ready else f"ran over {seconds} s"
            raise AssertionError(f"{' '.join(words)} {how}")
        found: dict[str, Any] = json.loads(answer)
        return found


@dataclass(frozen=True)
class Child:
    """A command that is at work."""

    commands: Commands
    process: int

    def wait(self, seconds: float = 600) -> int:
        """Its exit status, or less the number of the signal that ended it; fails after ``seconds``."""
        found: int = self.commands._ask("wait", seconds, str(self.process))["status"]
        return found

    def kill(self) -> bool:
        """Whether kill -9 came before its end."""
        os.kill(self.process, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def serve(memory: int) -> None:
    """Answer requests until standard input ends."""
    # Answers go to a descriptor of their own: commands may write to 1 past sys.stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    apps: dict[str, Any] = {}
    for line in sys.stdin:
        what, command, *arguments = json.loads(line)
        if what == "wait":
            # Until then a child that has ended keeps its number, which a kill may still reach.
            _, status = os.waitpid(int(command), 0)
            answer: dict[str, Any] = {"status": os.waitstatus_to_exitcode(status)}
        elif what == "environment":
            answer = _environment(arguments)
        else:
            if command not in apps:
                # Libraries are mapped without a limit: PyTorch's for GPUs take more than ours.
                _limit(None)
                module, name = COMMANDS[command]
                apps[command] = getattr(importlib.import_module(module), name)
                _limit(memory)
            app = apps[command]
            act = {"run": _run, "start": _start, "start unread": _start_unread}[what]
            answer = act(app, command, arguments)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _limit(memory: int | None) -> None:
    """Allow so many bytes beyond what is mapped now, or any number."""
    most = resource.RLIM_INFINITY
    if memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _environment(changes: list[str]) -> dict[str, str]:
    """Set NAME=VALUE, remove NAME; what those that were there had before."""
    before = {}
    for change in changes:
        name, found, value = change.partition("=")
        if name in os.environ:
            before[name] = os.environ.pop(name)
        if found:
            os.environ[name] = value
    return before


def _run(app: Any, command: str, arguments: list[str]) -> dict[str, Any]:
    from theory.support import command as cli

    buffers = [io.BytesIO(), io.BytesIO()]
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    out, err = (io.TextIOWrapper(b, encoding, write_through=True) for b in buffers)
    status, bug = -1, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.run_command(app, command, list(arguments))
        except BaseException:
            bug = traceback.format_exc()
    texts = [buffer.getvalue().decode() for buffer in buffers]
    return {"status": status, "out": texts[0], "err": texts[1], "bug": bug}


def _start(app: Any, command: str, arguments: list[str]) -> dict[str, Any]:
    process = os.fork()
    if process:
        return {"process": process}
    status = 70
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(nowhere, descriptor)
        done = _run(app, command, arguments)
        os.write(2, (done["err"] + done["bug"]).encode())
        status = 70 if done["bug"] else done["status"]
    finally:
        os._exit(status)


def _start_unread(app: Any, command: str, arguments: list[str]) -> dict[str, Any]:
    from theory.support import command as cli

    process = os.fork()
    if process:
        return {"process": process}
    status = 70
    try:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        status = cli.run_command(app, command, arguments)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
