"""What broke the commands when tried as hostile users would: one row a case, each refused on one line.

Every command runs in a process whose memory is limited (see :mod:`hostile`), so that an explosion fails
the test. What broke the Python interface is in ``test_defects_api.py``, interrupted and doubled runs in
``test_kills.py``.

What has its test elsewhere:
  tables, colours, ASCII, readers that leave      test_terminals, test_verify_report, test_commands
  links, FIFOs, full disks, half-written files    test_output_files
  medians; --data or --theorem alone; no caps     test_verify_report, test_verify_rates
  time left; signals during imports; workers      test_support, test_commands, test_worst_case_command
  progress in a pipe; SIGTERM; damaged folders    test_deep_command, test_deep_local_sgd, test_deep_campaign
  the cache, downloads, archives                  test_deep_cifar10, test_defects_api
  pictures and page that stay; damaged results    test_figure_files
  order of rows; damaged cells                    test_worst_case_sweep
  joblib backends; processes; Python; wheels      test_scale_out, test_deep_distributed, test_wheel
  whose commit; the version                       test_support
  layouts of own data; labels nothing separates   test_user_data, test_verify_rates
  own theorems, variants, grids                   test_verify_rates, test_variants, test_check
  longer runs, renamed data, names of runs        test_deep_local_sgd, test_deep_plan
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from deep_cases import tiny_options
from hostile import Commands
from hostile_files import write_hostile_files

BIG = str(2**64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile files, by the names that the rows below use."""
    top = tmp_path_factory.mktemp("hostile")
    write_hostile_files(top)
    return top


@pytest.fixture(scope="module")
def commands(folder: Path) -> Iterator[Commands]:
    with Commands(folder) as found:
        yield found


VERIFY = ["verify", "--theorem", "T1", "-K", "1", "-R", "3", "--seeds", "2"]
I0 = [*VERIFY, "--problem", "I0"]
LEAST = [*VERIFY, "--problem", "least-squares", "--heterogeneity", "iid"]
DATA = [*VERIFY, "--data"]
WORST = ["worst-case", "--no-cache", "--no-pepit", "--quick"]
DEEP = ["deep", *tiny_options(4, 4), "--regime", "iid", "--data", "images"]

#: Command line, and what its one line on standard error must say.
REFUSED: list[tuple[list[str], str]] = [
    # Numbers.
    ([*I0, "--seed", BIG], "seed is 18446744073709551616, allowed: integers from 0 to"),
    ([*I0, "--problem-seed", BIG], "seed is 18446744073709551616, allowed: integers from 0 to"),
    ([*DEEP, "--seed", BIG], "seed is 18446744073709551616, allowed: integers from 0 to"),
    ([*I0, "--nodes", "0"], "n (nodes) is 0, allowed"),
    ([*I0, "-K", "1000000000"], "K R (all iterations) is 3000000000, allowed"),
    ([*I0, "-R", "1000000000"], "K R (all iterations) is 1000000000, allowed"),
    ([*LEAST, "-n", "1000000"], "lower n_nodes, samples_per_node or dimension"),
    ([*LEAST, "-n", "3000"], "lower n_nodes, samples_per_node or dimension"),
    ([*LEAST, "-d", "1000000000"], "lower n_nodes, samples_per_node or dimension"),
    ([*I0, "--seeds", "1000000000"], "seeds is 1000000000, allowed"),
    ([*I0, "--workers", "1000000"], "workers is 1000000, allowed: integers from -1 to 1024"),
    ([*I0, "--workers", "0"], "workers is 0, allowed"),
    ([*I0, "--step-size", "nan"], "is nan, allowed: finite numbers above 0"),
    ([*I0, "-K", ""], "K (local steps) is '1,', allowed"),
    (["worst-case", "-K", ""], "--local-steps is '', allowed"),
    (["worst-case", "-R", "1,,2"], "--rounds is '1,,2', allowed"),
    ([*WORST, "-K", "3000", "--time-limit", "5"], "lower -K or -R"),
    ([*WORST, "-K", "100000"], "lower -K or -R"),
    ([*WORST, "--growth", "nan"], "--growth is nan, allowed: finite numbers of at least 1e-09"),
    (["claim", "L*D", "-K", "0"], "is 0, allowed"),
    (["claim", "L**"], "allowed"),
    ([*DEEP, "--device", "cpu:3"], "the device 'cpu:3' is not supported"),
    ([*DEEP, "--width", "2000"], "GB of memory"),
    ([*DEEP, "-K", "1000000000"], "a round of 1,000,000,000 local steps needs about"),
    ([*DEEP, "--batch-size", "10000000"], "--batch-size is 10000000, allowed: 1 to 10"),
    ([*DEEP, "--batch-size", "10000000", "--batches", "with-replacement"], "lower --width"),
    ([*DEEP, "--checkpoint-minutes", "nan"], "--checkpoint-minutes is nan, allowed"),
    # Words and options that would have been ignored.
    ([*I0, "--loss", "foo"], "--loss is foo, allowed with --data only"),
    ([*VERIFY, "--problem", "logistic", "--engine", "exact"], "engine is exact, allowed for"),
    ([*DEEP, "--engine", "simd", "--compile"], "--compile is set, allowed"),
    ([*DEEP, "--engine", "simd", "--cuda-graphs"], "--cuda-graphs is set, allowed"),
    (["worst-case", "--outer-steps", "--metric", "last"], "--metric is given with --outer-steps"),
    (
        ["worst-case", "--write-findings", "f.md", "--json", "f.json"],
        "--json is given with --write-findings, which does not use it; allowed: nothing else",
    ),
    (["claim", "L*D", "--lower", "--time-limit", "9"], "--time-limit is given with --lower"),
    (["claim", "L*D", "--kappa", "9"], "--kappa is given with a claim from above"),
    (["claim", "--book", "-K", "3"], "allowed: --time-limit, --seed, --json"),
    (["claim", "--theorem", "mine.py:MINE", "--metric", "best"], "--metric is given with --theor"),
    (["claim", "L*D", "--growth", "0.5"], "--growth is given with --class convex"),
    ([*WORST, "--cache", "c"], "--cache is given with --no-cache, which does not use it"),
    ([*WORST, "--metric", "last", "--growth", "0.7"], "allowed with the metric distance only"),
    ([*I0, "--dimension", "300"], "--dimension is given with instances, which does not use it"),
    ([*DATA, "good.npz", "--heterogeneity", "iid"], "--heterogeneity is given with --data"),
    (
        [*LEAST, "--engine", "exact", "--break", "greedy-server"],
        "engine is exact, allowed without --break greedy-server",
    ),
    (
        ["advise", "--data", "good.npz", "-n", "3"],
        "--nodes is given with --data, which does not use",
    ),
    (["baselines", "--data", "good.npz", "--problem", "I0"], "--problem is given with --data"),
    (["advise", "--problem", "I0", "-d", "99"], "--dimension is given with --problem I0"),
    # An output that another option is about to make a folder.
    (
        ["worst-case", "--quick", "--no-pepit", "--cache", "kept", "--json", "kept"],
        "--json is kept: is a directory",
    ),
    (["claim", "L*D", "--out", "shown", "--json", "shown"], "--json is shown: is a directory"),
    # Ends of a range where double precision solves nothing.
    ([*WORST, "--step-size", "1.99999999999"], "--step-size is 1.99999999999, allowed"),
    ([*WORST, "--step-size", "1e-320"], "allowed: finite numbers of at least 1e-06"),
    ([*WORST, "--growth", "1e-300"], "--growth is 1e-300, allowed"),
    # Work for hours, which no time limit would end.
    (["claim", "L*D", "-K", "1000", "-R", "11"], "K R (all iterations) is 11000, allowed"),
    ([*DATA, "good.npz", "--participants", "9"], "participants of good.npz is 9, allowed"),
    # Outputs.
    ([*I0, "--json", "/dev/fd/99"], "--json is /dev/fd/99: Bad file descriptor"),
    ([*I0, "--json", "directory"], "--json is directory: is a directory"),
    ([*I0, "--json", "locked.json"], "--json is locked.json: is read-only"),
    ([*I0, "--json", "x", "--csv", "x"], "--json and --csv are both x, allowed: one file each"),
    ([*DATA, "good.npz", "--json", "good.npz"], "are both good.npz, allowed: one file each"),
    ([*WORST, "--json", "directory"], "--json is directory: is a directory"),
    ([*DEEP, "--results", "locked.json"], "locked.json"),
    # Own data.
    ([*DATA, "truncated.npz"], "truncated.npz is not a readable .npz"),
    ([*DATA, "flipped.npz"], "flipped.npz"),
    ([*DATA, "empty.npz"], "empty.npz is not a readable .npz"),
    ([*DATA, "nothing.npz"], "nothing.npz has arrays [], allowed: A0, b0"),
    ([*DATA, "array.npz"], "array.npz is not a readable .npz"),
    ([*DATA, "no-rows.npz"], "every node needs at least 1"),
    ([*DATA, "no-columns.npz"], "allowed: (m, d) and (m,)"),
    ([*DATA, "tiny.npz"], "the features are all 0"),
    ([*DATA, "0-d.npz"], "allowed: (m, d) and (m,)"),
    ([*DATA, "complex.npz"], "A0 holds complex numbers, allowed: real numbers"),
    ([*DATA, "objects.npz"], "A0 holds Python objects, allowed: real numbers"),
    ([*DATA, "nan.npz"], "every number must be finite"),
    ([*DATA, "node.npz"], "node"),
    ([*DATA, "negative.npz"], "node"),
    ([*DATA, "bomb.npz"], "bomb.npz"),
    ([*DATA, "headless.csv"], "headless.csv"),
    ([*DATA, "header-only.csv"], "header-only.csv"),
    ([*DATA, "nothing.csv"], "nothing.csv"),
    ([*DATA, "words.csv"], "words.csv"),
    ([*DATA, "ragged.csv"], "ragged.csv"),
    ([*DATA, "data.txt"], "data.txt ends in '.txt', allowed: .npz, .csv"),
    ([*DATA, "directory"], "allowed: an existing .npz or .csv file"),
    # Images and campaigns.
    ([*DEEP, "--data", "huge"], "9999.png is 12000 x 12000 pixels: all images must be square"),
    (
        [*DEEP, "--data", "giant"],
        "of 12,000 x 12,000 pixels such as giant/class0/9999.png needs about",
    ),
    ([*DEEP, "--data", "foreign"], "\\xff\\xfe.png"),
    (["campaign", "campaign.toml"], "rounds"),
    (["campaign", "directory"], "directory"),
    (["campaign", "minutes.toml"], "allowed: a number above 0, to 1e9"),
    (["campaign", "digits.toml"], "digits.toml is not TOML"),
    (["campaign", "nested.toml"], "nested.toml is not TOML"),
    (["campaign", "nul.toml"], "allowed: up to 64 letters"),
    (["campaign", "escaped.toml", "--status"], "a preset is called '../../escaped'"),
    (["campaign", "/dev/zero"], "cannot read /dev/zero: is not a regular file"),
    # One's own code is an input, which no output replaces.
    ([*I0, "--theorem", "mine.py:MINE", "--json", "mine.py"], "are both mine.py"),
    (["claim", "--theorem", "mine.py:MINE", "--json", "mine.py"], "are both mine.py"),
    (
        ["claim", "L*D/9/R", "--out", "co", "--json", "co/counterexample.py"],
        "are both co/counterexample.py",
    ),
    # More than any machine has.
    ([*DEEP, "--threads", "1000000"], "--threads is 1000000, allowed: integers from 1 to 1024"),
    ([*WORST, "-n", "30000"], "--nodes is 30000, allowed: integers from 2 to 100"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), REFUSED, ids=[" ".join(a)[-60:] or "empty" for a, _ in REFUSED]
)
def test_bad_input_is_one_line_and_status_2(
    commands: Commands, arguments: list[str], said: str
) -> None:
    done = commands.run(*arguments)
    done.check()
    assert done.status == 2 and done.out == "" and said in done.err, done
    assert done.refused, done.err


@pytest.mark.parametrize("name", ["plain.csv", "pandas.csv", "quoted.csv", "PLAIN.CSV"])
def test_a_csv_is_read_by_its_header(commands: Commands, name: str) -> None:
    """pandas' index column is left out, quotes are quotes, and case does not matter in a suffix."""
    done = commands.run(*DATA, name)
    assert done.status in (0, 3) and not done.bug, done
    assert "n = 2 nodes, N = 6 samples (3 a node), d = 3" in done.out


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        # Nothing could be decided: no theorem applies, or no cell was solved in its time.
        ([*VERIFY[:2], "T5", *VERIFY[3:], "--problem", "I0"], 3),
        ([*WORST, "-K", "2", "-R", "1", "--time-limit", "1e-9"], 3),
        # A broken hypothesis is FAILED, a claim that is false REFUTED.
        (["verify", "--break", "no-averaging", "--quick", "-K", "5", "--theorem", "T2"], 1),
        (["claim", "L*D/(100*K*R)", "-K", "2", "-R", "1"], 1),
        ([*DEEP, "-K", "1", "--rounds", "3", "--step-size", "1e30", "--out", "diverged"], 1),
        ([*I0], 0),
    ],
)
def test_an_outcome_is_never_a_silent_success(
    commands: Commands, arguments: list[str], status: int
) -> None:
    done = commands.run(*arguments)
    done.check()
    assert done.status == status, done


def test_both_step_sizes_are_run_and_only_what_was_asked(commands: Commands) -> None:
    done = commands.run(*LEAST, "--step-size", "0.1", "--step-size", "1.9", "--json", "two.json")
    assert done.status == 0, done
    checks = json.loads((commands.folder / "two.json").read_text())["checks"]
    assert {c["theorem"] for c in checks} == {"T1"}
    assert len({c["step_size"] for c in checks}) == 2
    assert "communication" not in done.out.lower()


def test_what_double_precision_does_not_resolve_is_undecided(commands: Commands) -> None:
    arguments = ["--problem", "logistic", "--heterogeneity", "identical", "-K", "20", "-R", "2000"]
    done = commands.run("verify", "--theorem", "T4", *arguments, "--gradient", "full", "--details")
    done.check()
    assert "UNDECIDED" in done.out and "precision" in done.out


def test_every_command_says_its_version_and_help(commands: Commands) -> None:
    for command in ("verify", "worst-case", "claim", "deep", "campaign", "figures"):
        version = commands.run(command, "--version")
        assert version.status == 0 and version.out.startswith("local-sgd-rates "), version
        for option in ("-h", "--help"):
            shown = commands.run(command, option)
            assert shown.status == 0 and "--version" in shown.out
            assert max(map(len, shown.out.splitlines())) <= 80


def test_the_layout_of_own_data_stands_in_the_help(commands: Commands) -> None:
    shown = " ".join(commands.run("verify", "--help").out.split())
    assert "A0 (m, d), b0 (m,)" in shown and "columns node, target" in shown
