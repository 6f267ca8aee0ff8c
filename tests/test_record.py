"""The reproduction record says what the committed results say, and its verdicts can go either way."""

from __future__ import annotations

import glob
import json
import math
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_data import KS, check, deep_result, write_deep, write_theory

from figures.analysis.deep_runs import RoundsOrder, Runs, describe, load_runs, rounds_orders
from figures.analysis.places import ROOT
from figures.analysis.sources import Sources
from figures.analysis.verification import VERIFY_PATH
from figures.analysis.worst_cases import WORST_CASE_PATH, least_bound
from figures.record import blocks as record
from figures.record import claims, speed_table, theory_tables
from figures.record.table import Table
from figures.record.worst_case_tables import verdict_text, worst_case_summary
from theory.claim.book import read_book
from theory.support.verdicts import FAILED, HOLDS, OBSERVED

RECORD = ROOT / "paper_repro.md"
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the committed result files only: an uncommitted one is no source of a claim."""
    git = ["git", "-C", str(ROOT), "ls-files", "theory/results", "deep/results"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return ROOT  # not a checkout: all files came with it
    root = tmp_path_factory.mktemp("committed")
    for path in listed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / path)
    return root


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    write_deep(root)
    write_theory(root)
    return root


def block(name: str) -> list[list[str]]:
    """The cells of a table of the record, without its head."""
    text = RECORD.read_text()
    body = text.split(f"<!-- begin {name} -->")[1].split(f"<!-- end {name} -->")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def shown_results(committed: Path) -> str:
    """What the paths of the rung's results begin with; seed 0 without options has nothing after K."""
    width = re.search(r"\| deep: .* width (\d+), ", RECORD.read_text())
    assert width is not None
    return f"{committed}/deep/results/ladder/width{width[1]}_to-loss"


def result_of(committed: Path, regime: str, k: str) -> Any:
    in_name = {"one shard": "shards1", "two shards": "shards2"}.get(regime, regime)
    return json.loads(Path(f"{shown_results(committed)}_{in_name}_K{int(k):02d}.json").read_text())


# ---- the committed record ------------------------------------------------------------------------


def test_the_record_is_what_the_committed_results_give(committed: Path) -> None:
    tables = record.make_tables(committed)
    for path in (RECORD, README):
        text = path.read_text()
        assert record.fill(text, tables) == text, (
            f"{path.name} differs from the committed results: run python -m figures record"
        )


def test_communication_read_another_way(committed: Path) -> None:
    families = json.loads((committed / VERIFY_PATH).read_text())["communication"]
    for row, family in zip(block("communication"), families, strict=True):
        assert row[0] == family["family"]
        found = [re.findall(r"[\d,]+", cell) for cell in row[2:-3]]
        assert [int(m.replace(",", "")) for m, _ in found] == family["rounds"]
        needed = [int(b.replace(",", "")) for _, b in found]
        assert needed == [-(-b // 1) for b in family["bound"]]


def test_clients_and_outer_steps_read_another_way(committed: Path) -> None:
    content = json.loads((committed / VERIFY_PATH).read_text())
    for name, kind in (("clients", "clients"), ("server-steps", "outer_steps")):
        rows = block(name)
        assert [row[0] for row in rows] == list(dict.fromkeys(r["family"] for r in content[kind]))
        cells = [cell for row in rows for cell in row[2:-1] if cell != "-"]
        found = [[float(x) for x in re.findall(r"[\d.]+", cell.replace(",", ""))] for cell in cells]
        assert [f[0] for f in found] == [r["rounds"] for r in content[kind]]
        # A bound stands in brackets wherever a theorem gives one.
        needed = [-(-r["bound"] // 1) for r in content[kind] if r["bound"] is not None]
        assert [f[1] for f in found if len(f) > 1] == needed


def test_speed_ratios_are_medians_over_medians(committed: Path) -> None:
    theory = json.loads((committed / speed_table.THEORY_PATH).read_text())
    rows = block("speed")
    for comparison, row in zip(theory["comparisons"], rows, strict=False):
        seconds = {t["method"]: t["seconds"] / t["iterations"] for t in comparison["timings"]}
        others = dict(pair.rsplit(" ", 1) for pair in row[3].split(", "))
        for method, ratio in others.items():
            assert float(ratio) == pytest.approx(seconds[method] / seconds[row[1]], rel=6e-3)
    deep = json.loads((committed / speed_table.DEEP_PATH).read_text())
    medians = {(r["width"], r["engine"]): r["seconds"] for r in deep["rows"]}
    for row in rows[len(theory["comparisons"]) :]:
        width = int(row[0].split("width ")[1].split(",")[0])
        for method, ratio in (pair.rsplit(" ", 1) for pair in row[3].split(", ")):
            expected = medians[width, method] / medians[width, "simd"]
            assert float(ratio) == pytest.approx(expected, rel=6e-3)


def test_the_speed_table_says_what_the_floor_forgets(committed: Path) -> None:
    theory = json.loads((committed / speed_table.THEORY_PATH).read_text())
    caption = speed_table.speed(Sources(committed)).note
    for comparison in theory["comparisons"]:
        margin = next(t for t in comparison["timings"] if t["method"] == "margin")
        share = sum(margin["floor_parts"].values()) / margin["low"]
        assert f"{share:.0%} at d = {margin['size']['dimension']:,}" in caption
        # Of the parts only the passes over the features know d, and they count bytes alone.
        assert set(margin["floor_parts"]) == {"rounds", "steps", "draws", "features"}
    for page in (README, RECORD):
        assert caption.split(". ")[-1] in page.read_text()


def test_the_record_has_every_table_once() -> None:
    names = re.findall(r"<!-- begin ([a-z-]+) -->", RECORD.read_text())
    assert sorted(names) == sorted(record.TABLES)


def test_deep_numbers_read_another_way(committed: Path) -> None:
    """Each row of the deep table against its file, without the code that made the table."""
    rows = block("deep-runs")
    assert len(rows) == len(glob.glob(f"{shown_results(committed)}_*_K??.json")) >= 6
    for regime, k, rounds, iterations, loss, slope, r2, _ in rows:
        result = result_of(committed, regime, k)
        if result["summary"]["reached_target"]:
            assert int(rounds.replace(",", "")) == result["summary"]["rounds_to_target"]
            # Printed to three digits, a loss just below the target is the target.
            assert float(loss) <= result["config"]["target_loss"]
        assert int(iterations.replace(",", "")) == result["metrics"][-1]["iteration"]
        assert float(loss) == pytest.approx(result["metrics"][-1]["train_loss"], rel=5e-3)
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", slope)]
        fit = result["fits"]["loglog_slope"]
        assert numbers == pytest.approx([fit["slope"], *fit["interval"]], abs=5.1e-3)
        assert float(r2) == pytest.approx(
            result["fits"]["inverse_loss_vs_iterations"]["r2"], abs=6e-4
        )


def test_where_the_rounds_go_read_another_way(committed: Path) -> None:
    runs = [row for row in block("deep-phases") if row[1].isdigit()]
    assert len(runs) == len(block("deep-runs"))
    for regime, k, *rounds, tail in runs:
        metrics = result_of(committed, regime, k)["metrics"]
        for level, text in zip((1.0, 0.1, 0.01), rounds[:3], strict=True):
            before = [row for row in metrics if row["round"] < int(text.replace(",", ""))]
            assert all(row["train_loss"] >= level for row in before)
            assert metrics[len(before)]["train_loss"] < level
        if tail != "-":
            first, last = (int(text.replace(",", "")) for text in (rounds[0], rounds[-1]))
            assert int(tail.replace(",", "")) == last - first


def test_orders_in_k_read_another_way() -> None:
    runs: dict[str, list[tuple[int, int]]] = {}
    for regime, k, rounds, *_ in block("deep-runs"):
        if rounds.replace(",", "").isdigit():
            runs.setdefault(regime, []).append((int(k), int(rounds.replace(",", ""))))
    for regime, _, _, _, slope, _ in block("deep-orders"):
        points = runs[regime]
        if len(points) < 3:
            assert slope == "-"
            continue
        fitted = np.polyfit(np.log([k for k, _ in points]), np.log([r for _, r in points]), 1)[0]
        assert float(slope.split()[0]) == pytest.approx(fitted, abs=5.1e-3)


def test_worst_cases_read_another_way(committed: Path) -> None:
    path = committed / WORST_CASE_PATH
    if not path.exists():
        assert block("worst-cases") == []
        return
    cells = {
        (r["metric"], r["local_steps"], r["rounds"]): r
        for r in json.loads(path.read_text())["rows"]
        if r["step_size"] == 1.0 and r["theorem"] != "T3"
    }
    metrics = {"T1": "average_local", "T2": "average_sync", "be": "best", "la": "last"}
    rows = block("worst-cases")
    assert len(rows) >= 8
    for name, k, rounds, _, exact, bound, source, times, verdict in rows:
        metric, K, R = metrics[name[:2]], int(k), int(rounds)
        cell = cells[metric, K, R]
        assert float(exact) == pytest.approx(cell["worst_case"], abs=6e-7)
        # The least closed form for this metric at eta = 1/L, and whose it is.
        closed = {"T1": 1 / (2 * K * R), "T2": 1 / (2 * R), "Kim 2024": 1 / (4 * R + 2)}
        closed |= {"S2": 1 / 8, "S3": 1 / (4 * R)}
        one = K == 1
        proved = {
            "average_local": ["T1"],
            "average_sync": ["T2"],
            "best": ["Kim 2024"] if one else ["T2", "S2", "S3"],
            "last": ["Kim 2024"] if one else ["S2"],
        }[metric]
        least = min(proved, key=lambda name: closed[name])
        assert source == least
        assert float(bound) == pytest.approx(closed[least], abs=6e-7)
        assert float(times) == pytest.approx(closed[least] / cell["worst_case"], abs=6e-4)
        assert verdict == cell["verdict"]
    assert {row[6] for row in rows} >= {"T1", "T2", "S2", "S3", "Kim 2024"}


def test_every_limit_of_the_tightness_table_is_named_below_it(committed: Path) -> None:
    table = theory_tables.tightness(Sources(committed))
    named: dict[tuple[str, str], set[str]] = {}
    for part in table.note.removeprefix("The limits are ").rstrip(".").split("; "):
        limit, _, whose = part.partition(" for ")
        for name, of in re.findall(r"(\w+) \(([^)]*)\)", whose):
            for theorem in of.split(", "):
                named.setdefault((name, theorem.partition(" at ")[0]), set()).add(limit)
    assert len(table.rows) >= 20
    for name, theorem, _, _, _, _, limit, _ in table.rows:
        values = [
            float(text.rstrip("e")) * (math.e if text.endswith("e") else 1.0)
            for text in named[name, theorem]
        ]
        assert any(float(limit) == pytest.approx(value, rel=1e-4) for value in values)
    assert set(named) == {(row[0], row[1]) for row in table.rows}
    ones = {name for (name, _), limits in named.items() if limits == {"1"}}
    assert ones >= {"I0", "IH", "I3", "IS", "IB"}


def test_where_a_variant_is_worse_is_said_from_the_numbers(committed: Path) -> None:
    rows = json.loads((committed / VERIFY_PATH).read_text())["sharper"]
    worse = {
        r["variant"]
        for r in rows
        if r["median"] is not None and r["median_sharper"] > 1.005 * r["median"]
    }
    said = theory_tables.looser(rows)
    assert worse == set(re.findall(r"T\S+/S\S+", said)) == {"T1/S9", "T2/S9"}
    assert "smaller" in said
    better = [r for r in rows if r["variant"] not in worse]
    assert "no variant is worse" in theory_tables.looser(better)
    changed = {**better[0], "median": 2.0, "median_sharper": 3.0, "median_bounds": 1.5}
    assert f"{changed['variant']} (2 to 3), with a larger bound" in theory_tables.looser([changed])
    at = theory_tables.looser([{**changed, "step_factor": 0.5}])
    assert f"{changed['variant']} at 0.5/L (2 to 3), on the same runs" in at


def test_no_worst_case_holds_against_a_bound_that_is_not_there(committed: Path) -> None:
    path = committed / WORST_CASE_PATH
    if not path.exists():
        return
    record = json.loads(path.read_text())
    none = [r for r in record["rows"] if r["bound"] is None and r["sharper"] is None]
    assert none and {verdict_text(r) for r in none} == {OBSERVED}
    named = [r for r in record["rows"] if r not in none]
    assert {verdict_text(r) for r in named} == {HOLDS}
    for row in named:
        found = least_bound(row)
        assert found is not None and found[1] in {"T1", "T2", "T3", "T4", "T4'", row["source"]}
        values = [v for v in (row["bound"], row["sharper"]) if v is not None]
        assert found[0] == pytest.approx(min(values), rel=1e-8)
    assert verdict_text({**none[0], "verdict": FAILED}) == FAILED
    said = worst_case_summary(record)
    assert f"{len(none)} (last iterate, f(xbar_R)) have no proved bound" in said


def test_certificates_read_another_way(committed: Path) -> None:
    """Each enclosure once more, and that its ends lie in order, from the files."""
    widest: dict[int, list[float]] = {}
    for path in sorted(committed.glob("theory/results/certificates/*.jsonl")):
        found = [json.loads(text) for text in path.read_text().splitlines()]
        ends = [(Fraction(c["lower"]["value"]), Fraction(c["upper"]["bound"])) for c in found]
        assert all(low <= high for low, high in ends)
        widest.setdefault(len(found), []).append(max(float(high - low) for low, high in ends))
    rows = block("certificates")
    assert len(rows) == sum(map(len, widest.values())) == 5
    for _, cells, _, _, width in rows:
        assert any(float(width) == pytest.approx(w, rel=0.05) for w in widest[int(cells)])


def test_the_set_up_names_todays_defaults_and_the_deviations_those_of_the_files() -> None:
    ours = {row[0]: row[3] for row in block("set-up")}
    assert (
        ours["nodes n, batch a node"] == "20, 8"
        and "0.075" in ours["Experiment 2: target, limit, step size"]
    )
    assert "without scale and shift" in ours["norms"]
    text = RECORD.read_text()
    assert "no licence" in text and "2b1aa48" in text
    assert "published no code" not in text + README.read_text()
    run = dict((row[0], row[2]) for row in block("deviations"))
    assert {"norms", "pixels", "batches", "training images"} <= run.keys()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, ["norms with scale and shift", "pixels standardised", "batches with replacement"]),
        (
            {"norm_affine": False, "pixels": "centred", "batches": "without-replacement"},
            [],
        ),
    ],
)
def test_runs_are_described_by_what_is_not_the_default(
    config: dict[str, object], words: list[str]
) -> None:
    run = deep_result("iid", 5)
    run["config"] |= config
    text = describe({"iid": {5: run}})
    assert text.startswith("toy images; 200 images, width 4, step 0.3")
    assert [word for word in ("norms", "pixels", "batches") if word in text] == [
        word.split()[0] for word in words
    ]
    assert all(word in text for word in words)


def test_sources_name_committed_files_with_their_hashes(committed: Path) -> None:
    import hashlib

    for path, command, commit, digest in block("files"):
        content = (committed / path).read_bytes()
        assert hashlib.sha256(content).hexdigest()[:12] == digest
        assert command.startswith("`python ")
        if path.endswith(".json"):
            assert json.loads(content)["commit"] == commit


def test_no_verdict_without_a_result() -> None:
    for claim, verdict, result, _, _ in block("claims"):
        if (
            verdict.split()[0].rstrip(":") in ("reproduced", "partly", "not")
            and verdict != "not run"
        ):
            assert re.search(r"\d", result), claim


# ---- it can fail ---------------------------------------------------------------------------------


def test_a_changed_number_changes_the_record(toy: Path, tmp_path: Path) -> None:
    text = RECORD.read_text()
    before = record.fill(text, record.make_tables(toy))
    shutil.copytree(toy, tmp_path / "copy")
    path = tmp_path / "copy" / "deep/results/laptop_to-loss_iid_K05.json"
    path.write_text(path.read_text().replace('"slope": -1.5', '"slope": -1.49'))
    assert record.fill(text, record.make_tables(tmp_path / "copy")) != before


def test_missing_results_are_named_and_give_no_verdict(tmp_path: Path) -> None:
    path = tmp_path / "paper_repro.md"
    path.write_text(RECORD.read_text())
    _, messages = record.update_record(path, tmp_path)
    assert any("python -m theory.verify_rates" in m for m in messages)
    assert any("python -m deep.reproduce" in m for m in messages)
    table = record.make_tables(tmp_path)["claims"]
    assert isinstance(table, Table) and {row[1] for row in table.rows} == {"not run"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- begin nothing -->\n<!-- end nothing -->\n", "a block 'nothing'"),
        ("<!-- begin claims -->\n", "without the other"),
        ("<!-- begin claims -->\n<!-- end orders -->\n", "without the other"),
    ],
)
def test_broken_markers_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        record.fill(text, {"claims": "-", "orders": "-"})


def test_an_unreadable_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't read"):
        record.update_record(tmp_path / "none.md")


def with_slopes(*slopes: tuple[float, float], reached: bool = True) -> Runs:
    """Runs whose late slopes have these intervals."""
    runs: Runs = {"iid": {}}
    for i, (low, high) in enumerate(slopes):
        run = deep_result("iid", KS[i], reached=reached)
        run["fits"]["loglog_slope"] = {
            "slope": (low + high) / 2,
            "interval": [low, high],
            "r2": 1.0,
        }
        runs["iid"][KS[i]] = run
    return runs


@pytest.mark.parametrize(
    ("runs", "verdict"),
    [
        (with_slopes((-1.1, -0.9), (-1.3, -0.8)), "reproduced"),
        (with_slopes((-1.1, -0.9), (-2.5, -1.5)), "partly"),
        (with_slopes((-1.1, -0.9), (-0.7, -0.5)), "not"),
        (with_slopes((-2.5, -1.5), reached=False), "not"),
    ],
)
def test_the_verdict_on_the_rate_follows_its_rule(runs: Runs, verdict: str) -> None:
    text, found = claims.rate_verdict(runs)
    assert found.split(":")[0] == verdict
    assert f"of {len(runs['iid'])} runs reached the target" in text


def test_a_failed_check_is_not_reproduced(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "copy")
    table = claims.claims(Sources(tmp_path / "copy"))
    verdicts = {row[0]: row[1] for row in table.rows}
    first = next(claim for claim in verdicts if "similarity" in claim)
    assert verdicts[first].startswith("reproduced")
    path = tmp_path / "copy" / VERIFY_PATH
    content = json.loads(path.read_text())
    content["checks"].append(check("T3", "UNDECIDED", 1.0))
    path.write_text(json.dumps(content))
    table = claims.claims(Sources(tmp_path / "copy"))
    (row,) = [row for row in table.rows if row[0] == first]
    assert row[1].startswith("reproduced") and "of 2 applicable checks, 1 undecided" in row[2]
    content["checks"].append(check("T3", "FAILED", 0.5))
    path.write_text(json.dumps(content))
    table = claims.claims(Sources(tmp_path / "copy"))
    assert {row[0]: row[1] for row in table.rows}[first] == "not"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [({}, "partly"), ({"high": -0.4}, "not"), ({"undercut": 0.9}, "not")],
)
def test_the_older_order_is_undercut_or_not(
    toy: Path, tmp_path: Path, change: dict[str, float], verdict: str
) -> None:
    shutil.copytree(toy, tmp_path / "copy")
    path = tmp_path / "copy" / VERIFY_PATH
    content = json.loads(path.read_text())
    content["slopes"][1] |= change
    path.write_text(json.dumps(content))
    table = claims.claims(Sources(tmp_path / "copy"))
    (row,) = [row for row in table.rows if "sqrt(nT)" in row[0]]
    assert row[1].split(":")[0] == verdict
    slopes = [f["slope"] for f in content["slopes"]]
    assert f"{max(slopes):.3f} to {min(slopes):.3f}" in row[2] and "says nothing" in row[2]


def test_factors_below_the_older_order_read_another_way(committed: Path) -> None:
    families = json.loads((committed / VERIFY_PATH).read_text())["slopes"]
    for row, f in zip(block("orders"), families, strict=True):
        if f["predicted"] is None:
            assert row[4] == "-"
            continue
        curve = f["y"][0] * (f["x"][-1] / f["x"][0]) ** -0.5
        assert float(row[4]) == pytest.approx(curve / f["y"][-1], rel=6e-3)


@pytest.mark.parametrize(
    ("interval", "reading"),
    [
        ([-1.05, -0.9], "1/K lies inside the interval"),
        ([-0.8, -0.6], "falls, but slower than 1/K"),
        ([-1.4, -1.2], "falls faster than 1/K"),
        ([-0.1, 0.1], "no clear gain from local steps"),
        ([-1.4, -0.6], "the interval is too wide to tell"),
    ],
)
def test_readings_of_rounds_against_k(interval: list[float], reading: str) -> None:
    order = RoundsOrder(
        "iid", (1, 100), (20, 5), {"slope": sum(interval) / 2, "interval": interval}
    )
    assert order.reading == reading


def test_orders_leave_out_runs_that_did_not_get_there(toy: Path) -> None:
    orders = {o.regime: o for o in rounds_orders(load_runs(Sources(toy)))}
    assert orders["iid"].first == (1, 800) and orders["iid"].last == (20, 40)
    assert orders["iid"].fit is not None and orders["iid"].fit["slope"] == pytest.approx(-1)
    assert orders["pathological"].first[0] == 5 and orders["pathological"].fit is None


# ---- Markdown and HTML ---------------------------------------------------------------------------


def test_cells_survive_markdown_and_html() -> None:
    command = "python -m theory.verify_rates --json a_b.json"
    rows: list[tuple[str, ...]] = [("||grad f||^2 < *1*", "-1.50 [-1.70, -1.30]", command)]
    table = Table("A & B", ("a", "b", "c"), rows, "x < y")
    line = table.markdown().splitlines()[-3]
    assert line == f"| \\|\\|grad f\\|\\|^2 \\< \\*1\\* | -1.50 [-1.70, -1.30] | `{command}` |"
    page = table.html()
    assert "A &amp; B" in page and "x &lt; y" in page and "&lt; *1*" in page
    assert '<td class=number data-head="b">-1.50 [-1.70, -1.30]</td>' in page
    assert f"<code>{command}</code>" in page


def test_the_book_on_the_page_is_the_book_under_test() -> None:
    told = {name: verdict for name, _, _, verdict, _ in block("book")}
    assert told == {entry.name: entry.came_out for entry in read_book()}
    assert "REFUTED" in told.values()
