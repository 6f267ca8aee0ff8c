"""Any options, any bytes in a file: no traceback, no other exit status, no memory above the limit.

A few dozen examples a command, always the same; ``LOCAL_SGD_RATES_FUZZ=1000`` in the environment takes as
many of each, and others every time.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from deep_cases import TWO_RUNS, tiny_options, tiny_preset
from hostile import COMMANDS, Commands
from hostile_files import write_hostile_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("LOCAL_SGD_RATES_FUZZ", "20"))
FEW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="LOCAL_SGD_RATES_FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: Small work that every example begins with; what is drawn comes after it, and then counts.
SMALL = {
    "verify": "--theorem T1 --problem I0 -K 1 -R 3 --seeds 2",
    "worst-case": "-K 1 -R 1 --step-size 1 --metric average_sync --no-pepit --no-cache --time-limit 2",
    "baselines": "--quick --heterogeneity iid -K 1 -R 2 -n 2 -d 16 --most 4 --seeds 2 --eps 0.4",
    "advise": "--quick -K 1 -R 4 -n 2 -d 32 --seeds 1",
    "claim": "L*D/(4*K*R) -K 1 -R 1 --time-limit 1",
    "energy": "--problem least-squares --heterogeneity iid -K 1 -R 3 -n 2",
    "certify": "--out certificates --most 1",
    "deep": " ".join(
        [*tiny_options(4, 4), "--regime iid -K 1 --rounds 2 --data images --out runs"]
    ),
    "campaign": "two.toml --data images --runs-folder runs --results results --threads 1 --minutes 0.01",
    "deep-energy": "run --quiet",
    "figures": "--out out",
}
THEOREM = """from dataclasses import replace
from theory.theorems import T2
MINE = replace(T2, name="mine", bound=lambda p, s, t: T2.bound(p, s, t) / 3)
"""
#: Network, compilers and everything at once, which take minutes.
LEFT_OUT = {"--download", "--compile", "--book", "--workers", "--pepit"}
OUTPUTS = {
    *("--json", "--csv", "--out", "--results", "--cache", "--runs-folder", "--write-findings"),
    "--figure",
}
PLACES = [
    "new/a.json",
    "directory",
    "locked.json",
    "/dev/null",
    "/dev/full",
    "/proc/x",
    "",
    "a" * 300,
]
NUMBERS = ["0", "1", "2", "3", "-1", "1.5", "0.5", "nan", "inf", "-inf", "1e-300", "1e300", "1e400"]
NUMBERS += [str(2**64), "1000000000", "-0", "1,2", "1,,2", ",", "0x10", "\uff11", "1_0", "9" * 5000]
WORDS = [
    "",
    " ",
    "-",
    "--",
    "x",
    "iid",
    "shards",
    "T2",
    "T5,T6",
    "squared",
    "logistic",
    "least-squares",
]
WORDS += [
    "numba",
    "exact",
    "grouped",
    "full",
    "last",
    "convex",
    "polyak",
    "cpu",
    "cuda:99",
    "float64",
]
WORDS += [
    "a\nb",
    "\u03c3 \u2264 2",
    "\U0001f600",
    "\udcff",
    "../..",
    "~",
    "%s",
    "[bold]",
    "x" * 3000,
]
FILES = [
    "images",
    "giant",
    "foreign",
    "good.npz",
    "complex.npz",
    "bomb.npz",
    "plain.csv",
    "words.csv",
]
FILES += ["mine.py:MINE", "mine.py:T2", "mine.py:", "none.py:X", "two.toml", "/dev/null"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    top = tmp_path_factory.mktemp("fuzz")
    write_hostile_files(top)
    (top / "two.toml").write_text(tiny_preset(2) + TWO_RUNS)
    (top / "mine.py").write_text(THEOREM)
    with Commands(top) as found:
        recorded = [*SMALL["deep"].split(), "--out", "made", "--energy"]
        assert found.run("deep", *recorded).status == 0
        (run,) = [path for path in (top / "made").iterdir() if path.is_dir()]
        run.rename(top / "run")
        yield found


def options_of(command: str) -> list[tuple[str, bool]]:
    """Every option, and whether it takes no value."""
    module, name = COMMANDS[command]
    found: list[tuple[str, bool]] = []
    app: Any = typer.main.get_command(getattr(importlib.import_module(module), name))
    for option in app.params:
        for names in (option.opts, option.secondary_opts):
            if names and names[-1].startswith("-"):
                found.append((names[0], bool(getattr(option, "is_flag", False))))
    return [option for option in found if option[0] not in LEFT_OUT]


def drawn_options(command: str) -> st.SearchStrategy[list[str]]:
    """One to three options with values of any kind."""

    def with_value(option: tuple[str, bool]) -> st.SearchStrategy[list[str]]:
        name, is_flag = option
        if is_flag:
            return st.just([name])
        values = PLACES if name in OUTPUTS else NUMBERS + WORDS + FILES
        return st.sampled_from(values).map(lambda value: [name, value])

    one = st.sampled_from(options_of(command)).flatmap(with_value)
    return st.lists(one, min_size=1, max_size=3).map(
        lambda found: [word for words in found for word in words]
    )


@pytest.mark.parametrize("command", COMMANDS)
@FEW
@given(data=st.data())
def test_any_options(commands: Commands, command: str, data: st.DataObject) -> None:
    more = data.draw(drawn_options(command))
    if command == "figures":
        more += data.draw(st.sampled_from([["tightness"], ["x"], ["--list"], [""], ["record"]]))
    commands.run(command, *SMALL[command].split(), *more, seconds=120).check()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("path", ["a" * 300, "b/" * 3000], ids=["name", "path"])
def test_a_path_that_is_too_long(commands: Commands, command: str, path: str) -> None:
    """Every option that takes one; pathlib raises where it answers for others that can't be."""
    # A cache that can't be kept costs time, not the run.
    taken = (OUTPUTS | {"--data"}) - {"--cache"}
    if command == "deep-energy":
        # It has its record, and refuses data whatever they are called.
        taken -= {"--data"}
    for name in sorted({name for name, _ in options_of(command)} & taken):
        # Beside some nothing, or nothing about a generated problem, is allowed.
        small = SMALL[command].split()
        if name == "--write-findings" or (name == "--data" and command in ("advise", "baselines")):
            small = []
        done = commands.run(command, *small, name, path, seconds=60)
        done.check()
        assert done.status == 2 and "too long" in done.err, (name, done.err)


@FEW
@given(
    lower=st.booleans(),
    text=st.text("LDKRTmucneta0123456789.+-*/^(), sqrtlogexpminmax", max_size=20)
    | st.sampled_from(
        ["1/0", "L^L^L^9", "D^(1/0)", "9^9^9^9", "L*D/(K-1)", "0*L", "-L*D", "(" * 500]
    ),
)
def test_any_claim(commands: Commands, lower: bool, text: str) -> None:
    small = "-K 1 -R 1"
    more = ["--lower"] if lower else ["--time-limit", "1"]
    commands.run("claim", *small.split(), *more, "--", text, seconds=60).check()


def damage(content: bytes, data: st.DataObject) -> bytes:
    """Some bytes changed, cut out or put in."""
    found = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, max(0, len(found) - 1)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "end"])):
            case "change" if found:
                found[place] = data.draw(st.integers(0, 255))
            case "cut":
                del found[place : place + data.draw(st.integers(1, 40))]
            case "insert":
                found[place:place] = data.draw(st.binary(min_size=1, max_size=8))
            case "end":
                del found[place:]
    return bytes(found)


#: Name of a good file -> the command that reads the damaged one.
READERS = {
    "good.npz": "verify --theorem T1 -K 1 -R 3 --seeds 2 --data bad.npz",
    "plain.csv": "verify --theorem T1 -K 1 -R 3 --seeds 2 --data bad.csv",
    "two.toml": f"campaign bad.toml {SMALL['campaign'].split(' ', 1)[1]}",
    "mine.py": "verify --theorem bad.py:MINE --problem I0 -K 1 -R 3",
    "images/class3/0003.png": f"deep {SMALL['deep']} --data bad",
}


@pytest.mark.parametrize("name", READERS)
@FEW
@given(data=st.data())
def test_any_bytes_in_a_file(commands: Commands, name: str, data: st.DataObject) -> None:
    content = damage((commands.folder / name).read_bytes(), data)
    bad = commands.folder / f"bad{Path(name).suffix}"
    if name.startswith("images"):
        bad = commands.folder / "bad" / "class0" / "0000.png"
        bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_bytes(content)
    commands.run(*READERS[name].split(), seconds=60).check()


NAMES = st.sampled_from(["A0", "b0", "A1", "b1", "A", "b", "node", "x"])
KINDS = st.sampled_from(["f8", "f4", "i8", "u1", "c16", "?", "U3", "M8[D]"])


@FEW
@given(data=st.data())
def test_any_arrays_in_an_archive(commands: Commands, data: st.DataObject) -> None:
    """Of any names, shapes and kinds of numbers."""
    arrays = {}
    for name in data.draw(st.lists(NAMES, max_size=4, unique=True)):
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        values = data.draw(st.sampled_from([0, 1, -1, 0.5, 1e300, 1e-300, np.inf, np.nan]))
        with np.errstate(all="ignore"):
            arrays[name] = np.full(shape, values).astype(data.draw(KINDS))
    np.savez(commands.folder / "any.npz", allow_pickle=True, **arrays)
    loss = data.draw(st.sampled_from(["squared", "logistic", "sigmoid"]))
    command = "verify --theorem T1,T2,T5,T6 -K 1 -R 3 --seeds 2 --data any.npz --loss"
    commands.run(*command.split(), loss, seconds=60).check()
