"""Terminals of any width and alphabet, pipes, and readers that leave: nothing is broken, nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from deep_cases import TWO_RUNS, random_images, tiny_preset, write_class_folders
from hostile import ROOT, Commands

VERIFY = "verify --theorem T1,T4 --problem least-squares,I0 -K 1,5 -R 10 --seeds 4 -n 2 -d 64"
WORST = (
    "worst-case -K 1,2 -R 1,2 --step-size 0.5,1 --metric average_sync,last --no-cache --no-pepit"
)
CLAIM = "claim L*D/(4*K*R) -K 1 -R 1 --time-limit 1"
#: The small result file of a run, whose balance has more columns than any other table.
RECORD = f"deep-energy {ROOT / 'deep/results/ladder/laptop_to-loss_iid_K20.json'}"
#: Command -> words that its output must hold in full.
TABLES = {
    VERIFY: ["T4'", "holds", "0 FAILED"],
    f"{VERIFY} --details": ["T4'", "least squares", "HOLDS", "measured"],
    WORST: ["0.166667", "HOLDS", "verdict", "ratio"],
    CLAIM: ["known problems", "exact worst cases", "HOLDS AT THESE SIZES"],
    "energy --problem least-squares,sigmoid --heterogeneity sorted -K 5 -R 9": [
        "averaging",
        "HOLDS",
    ],
    f"{RECORD}": ["phi_total", "Lambda", "closes to"],
    "certify --out certificates --most 1": ["certificates in", "0 not certified"],
    "campaign two.toml --status --runs-folder runs": ["tiny_fixed", "queued"],
    "figures --list": ["loss-vs-rounds", "tightness"],
    "verify --explain T2": ["T2:", "Proof"],
}
SETTINGS = {
    "80 columns": {"COLUMNS": "80"},
    "60 columns": {"COLUMNS": "60"},
    "ascii": {"COLUMNS": "80", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    "no colour": {"COLUMNS": "80", "NO_COLOR": "1"},
    "forced colour": {"COLUMNS": "80", "FORCE_COLOR": "1"},
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    top = tmp_path_factory.mktemp("terminals")
    write_class_folders(top / "images", random_images(40))
    (top / "two.toml").write_text(tiny_preset(2) + TWO_RUNS)
    with Commands(top) as found:
        yield found


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_table_is_whole_on_any_terminal(commands: Commands, setting: str) -> None:
    """At 80 columns no line is longer; at 60 a table that needs more takes it, and cuts nothing."""
    with commands.environment(**SETTINGS[setting]):
        for command, words in TABLES.items():
            done = commands.run(*command.split())
            assert done.status == 0 and not done.bug, (command, done)
            text = done.out
            assert ("\x1b[" in text) <= (setting == "forced colour")
            if setting == "ascii":
                # A question mark that ends no question stands for a letter that is lost.
                assert text.isascii() and not re.search(r"(?<![\w)])\?", text)
            if setting == "forced colour":
                continue
            assert "…" not in text
            assert max(map(len, text.splitlines())) <= 80, command
            for word in words:
                # A sentence may break anywhere, a cell of a table may not.
                assert word in text or word in " ".join(text.split()), (command, word)


@pytest.mark.parametrize(
    ("command", "results"),
    [
        (f"{VERIFY} --details --json v.json --csv v.csv", ["v.json", "v.csv"]),
        (f"{WORST} --json w.json", ["w.json"]),
        (f"{CLAIM} --json c.json", ["c.json"]),
        ("figures rounds-to-loss --out drawn", ["drawn/rounds-to-loss.png"]),
    ],
)
def test_a_reader_that_leaves_costs_no_result(
    commands: Commands, command: str, results: list[str]
) -> None:
    assert commands.start_unread(*command.split()).wait() == 0
    for name in results:
        path = commands.folder / name
        assert path.stat().st_size > 100
        if path.suffix == ".json":
            assert json.loads(path.read_text())["command"]
