"""The map of fixed steps shows the worst cases of the record, and none below I6."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from figure_data import write_outer_steps

from figures.analysis.outer_map import OUTER_COMMAND, OUTER_PATH, load_outer_steps, outer_maps
from figures.analysis.sources import MissingResult, Sources
from figures.drawing import outer_map as drawing
from figures.drawing import style
from figures.record.worst_case_tables import outer_steps


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outer")
    write_outer_steps(folder)
    return folder


def test_maps_hold_every_point_in_its_place(root: Path) -> None:
    record = load_outer_steps(Sources(root))
    maps = {(m.local_steps, m.rounds): m for m in outer_maps(record)}
    assert list(maps) == [(2, 1), (2, 2)]
    for point in record["maps"]:
        found = maps[point["local_steps"], point["rounds"]]
        i = list(found.outer_steps).index(point["outer_step"])
        j = list(found.step_sizes).index(point["step_size"])
        assert found.values[i, j] == point["value"]
    for (_, rounds), found in maps.items():
        assert found.lower_bound == pytest.approx(1 / (4 * math.e * (2 * rounds + 1)))
        assert (found.values >= found.lower_bound).all()
        eta, beta = found.best
        least = [p["value"] for p in record["maps"] if p["rounds"] == rounds]
        at = [
            p["value"]
            for p in record["maps"]
            if (p["rounds"], p["step_size"], p["outer_step"]) == (rounds, eta, beta)
        ]
        assert at == [min(least)]


def test_a_pair_that_is_not_on_file_is_a_hole(root: Path) -> None:
    record = load_outer_steps(Sources(root))
    record["maps"] = record["maps"][1:]
    assert np.isnan(outer_maps(record)[0].values).sum() == 1


def test_panels_are_multiples_of_their_least(root: Path) -> None:
    with style.house_style():
        figure = drawing.outer_map(Sources(root))
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == 2
    for ax in panels:
        shades = np.asarray(ax.collections[0].get_array(), float)
        assert shades.min() == 1
        (star,) = [line for line in ax.lines if line.get_label() == "least"]
        assert len(np.asarray(star.get_xdata())) == 1 and "times I6" in ax.get_title()


def test_the_table_names_gain_and_distance_to_i6(root: Path) -> None:
    rows = outer_steps(Sources(root)).rows
    pairs = json.loads((root / OUTER_PATH).read_text())["pairs"]
    assert len(rows) == len(pairs) == 2
    for row, pair in zip(rows, pairs, strict=True):
        # K = 1 has nothing to gain: only the product of the two steps counts.
        assert row[:3] == ("last iterate", "1", str(pair["rounds"])) and row[6] == "0.0%"
        assert float(row[7]) == pytest.approx(pair["value"] / pair["lower_bound"], abs=6e-3)
        assert float(row[8]) == pytest.approx(pair["rounds"], abs=6e-3)


def test_without_the_record_the_command_is_named() -> None:
    with pytest.raises(MissingResult, match=OUTER_COMMAND.split(" --json", maxsplit=1)[0]):
        drawing.outer_map(Sources(Path("/nonexistent")))
