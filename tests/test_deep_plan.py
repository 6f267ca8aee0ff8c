"""Options to configurations and names: what is allowed, products, and that no two runs share a folder."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from deep_cases import make_config
from hypothesis import given
from hypothesis import strategies as st

from deep.config import OUTER_STEPS
from deep.engines import base, make
from deep.plan import PRESETS, plan
from theory.support.errors import UserError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"local_steps": 0}, "--local-steps is 0, allowed: integers of at least 1"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"batch_size": -1}, "--batch-size is -1"),
        ({"n_nodes": 0}, "--nodes is 0"),
        ({"width": 0}, "--width is 0"),
        ({"subset": 0}, "--subset is 0"),
        ({"seed": -1}, "--seed is -1, allowed: integers from 0 to"),
        ({"step_size": 0.0}, "--step-size is 0.0, allowed: finite numbers above 0"),
        ({"step_size": math.nan}, "--step-size is nan"),
        ({"target_loss": -1.0}, "--target-loss is -1.0, allowed: finite numbers of at least 0"),
        ({"target_loss": math.inf}, "--target-loss is inf"),
        (
            {"similarity": 1.5},
            "--similarity is 1.5, allowed: finite numbers of at least 0 and of at most 1",
        ),
        ({"regime": "alike"}, "--regime is 'alike', allowed: iid, shards"),
        ({"pixels": "raw"}, "--pixels is 'raw', allowed: centred, standardised"),
        ({"batches": "sorted"}, "--batches is 'sorted', allowed: without-replacement"),
        ({"participants": 4}, "--participants is 4, allowed: integers from 1 to 3"),
        ({"participants": 0}, "--participants is 0"),
        ({"fixed_participants": True}, "--fixed-participants is set, allowed: only with"),
        ({"outer_step": 0.0}, "--outer-step is 0.0, allowed: finite numbers above 0"),
        ({"outer_step": math.inf}, "--outer-step is inf"),
        ({"outer_step": "best"}, "--outer-step is 'best', allowed: a positive number"),
        ({"regime": "shards", "shards_per_node": 0}, "--shards-per-node is 0"),
        (
            {"regime": "shards", "shards_per_node": 2, "subset": 40},
            "--shards-per-node is 2, allowed: what makes 6 .* divisor of the 40 images",
        ),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(make_config(), **change)


def test_the_default_is_the_set_up_of_the_first_author() -> None:
    planned = plan("paper", "to-loss", {})
    assert len(planned) == 3 * 5
    kinds = {(run.config.regime, run.config.shards_per_node) for run in planned}
    assert kinds == {("iid", None), ("shards", 2), ("shards", 1)}
    config = planned[0].config
    assert (config.n_nodes, config.batch_size, config.step_size) == (20, 8, 0.075)
    assert (config.norm_affine, config.pixels, config.batches) == (
        False,
        "centred",
        "without-replacement",
    )
    assert (config.participants, config.outer_step, config.subset) == (None, 1.0, None)
    assert plan("paper", "fixed-rounds", {})[0].config.target_loss == 0.0


def test_the_option_named_first_varies_slowest() -> None:
    options = {"local_steps": [5, 1], "regime": ["iid", "shards"], "shards_per_node": 1}
    labels = [run.label for run in plan("laptop", "to-loss", options)]
    assert labels == [
        "laptop_to-loss_iid_K05",
        "laptop_to-loss_shards1_K05",
        "laptop_to-loss_iid_K01",
        "laptop_to-loss_shards1_K01",
    ]


def test_names_tell_what_differs_from_the_preset() -> None:
    options = {
        "regime": "mixed",
        "local_steps": 2,
        "seed": 1,
        "nodes": 10,
        "width": 6,
        "subset": 400,
        "step_size": 0.25,
        "similarity": 0.3,
        "norm_affine": True,
        "participants": 5,
        "fixed_participants": True,
        "outer_step": "polyak",
    }
    (run,) = plan("laptop", "to-loss", options)
    assert run.label == (
        "laptop_to-loss_mixed_K02_step-size-0.25_nodes-10_similarity-0.3_width-6_subset-400_seed-1"
        "_norm-affine_participants-5_fixed-participants_outer-step-polyak"
    )
    # When to stop is not in a name: such a run goes on in its folder.
    (short,) = plan("laptop", "to-loss", {"regime": "iid", "local_steps": 1, "rounds": 7})
    assert short.label == "laptop_to-loss_iid_K01" and short.config.rounds == 7


CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "regime": st.sampled_from(["iid", "shards", "mixed", "sorted"]),
    "shards_per_node": st.sampled_from([1, 2]),
    "local_steps": st.sampled_from([1, 5]),
    "step_size": st.sampled_from([0.1, 0.1000001, 0.2]),
    "nodes": st.sampled_from([10, 20]),
    "batch_size": st.sampled_from([4, 8]),
    "similarity": st.sampled_from([0.5, 0.25]),
    "width": st.sampled_from([4, 8]),
    "subset": st.sampled_from([0, 200, 400]),
    "seed": st.sampled_from([0, 1]),
    "norm_affine": st.booleans(),
    "pixels": st.sampled_from(["centred", "standardised"]),
    "batches": st.sampled_from(["with-replacement", "without-replacement"]),
    "participants": st.sampled_from([None, 5, 6]),
    "outer_step": st.sampled_from([1.0, 0.5, "polyak", "extrapolated"]),
    "engine": st.sampled_from(["auto", "loop"]),
    "precision": st.sampled_from(["float32", "float64"]),
}


@given(st.fixed_dictionaries({}, optional=CHOICES), st.fixed_dictionaries({}, optional=CHOICES))
def test_two_configurations_never_share_a_name(one: dict[str, Any], other: dict[str, Any]) -> None:
    for options in (one, other):
        options.setdefault("regime", "iid")
        options.setdefault("shards_per_node", 1)
        options.setdefault("local_steps", 1)
    (first,), (second,) = plan("laptop", "to-loss", one), plan("laptop", "to-loss", other)
    assert (first.label == second.label) == (asdict(first.config) == asdict(second.config))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, "widht is no option, allowed: regime, shards-per-node"),
        ({"width": 2.5}, "--width is 2.5, allowed: integers"),
        ({"width": True}, "--width is True, allowed: integers"),
        ({"step_size": "large"}, "--step-size is 'large', allowed: numbers"),
        ({"norm_affine": 1}, "--norm-affine is 1, allowed: true or false"),
        ({"regime": ["iid", "alike"]}, "--regime is 'alike', allowed: iid"),
        ({"local_steps": []}, "--local-steps is empty, allowed: at least one value"),
        ({"outer_step": "best"}, "--outer-step is 'best'"),
        ({"engine": "fast"}, "--engine is 'fast', allowed: auto, simd"),
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan("laptop", "to-loss", options)


def test_presets_are_complete() -> None:
    for preset in PRESETS:
        for experiment in ("to-loss", "fixed-rounds"):
            assert plan(preset, experiment, {})
    with pytest.raises(UserError, match="--width is missing, and the preset bare has none"):
        plan("bare", "to-loss", {}, {"bare": {"rounds": 3}})


def test_words_of_options_are_those_of_the_engines() -> None:
    from deep.plan import KINDS

    assert KINDS["engine"] == make.ENGINES and KINDS["precision"] == tuple(base.PRECISIONS)
    assert base.OUTER_STEPS == OUTER_STEPS
