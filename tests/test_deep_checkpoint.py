"""Checkpoints: atomic, checked, kept twice, refused for another configuration."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import make_config

from deep import checkpoint
from deep.checkpoint import (
    CURRENT,
    PREVIOUS,
    Checkpoint,
    append_line,
    load_checkpoint,
    save_checkpoint,
    set_aside_damaged,
    write_atomically,
)
from deep.run_folder import read_metrics, read_summary, seconds_spent
from theory.support.errors import UserError

IDENTITY = asdict(make_config())


def state_after(round_: int) -> Checkpoint:
    """A state whose every number depends on the round."""
    model = np.random.default_rng(round_).normal(size=50)
    # Bytes that look like the end of a line must survive.
    model[:2] = np.frombuffer(b"\n" * 16)
    metrics: list[dict[str, Any]] = [{"round": round_, "train_loss": 1 / (round_ + 3)}]
    return Checkpoint(round_, model, metrics, 1.5 * round_, 0.1)


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    """Whether two states are the same to the bit."""
    return (
        a is not None
        and a.round == b.round
        and a.metrics == b.metrics
        and a.seconds == b.seconds
        and a.model.tobytes() == b.model.tobytes()
        and a.model.dtype == b.model.dtype
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder with checkpoints of rounds 1 and 2."""
    for round_ in (1, 2):
        save_checkpoint(tmp_path, IDENTITY, state_after(round_))
    return tmp_path


def test_the_newest_comes_back_to_the_bit(folder: Path) -> None:
    assert same(load_checkpoint(folder, IDENTITY), state_after(2))
    assert sorted(p.name for p in folder.iterdir()) == [CURRENT, PREVIOUS]


def test_no_folder_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", IDENTITY) is None


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "header", "absent", "text"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder: Path, damage: str) -> None:
    path = folder / CURRENT
    content = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "text":
        path.write_text("not a checkpoint")
    else:
        if damage == "flipped":
            content[-100] ^= 1
        elif damage == "header":
            content[100] ^= 1
        kept = {"empty": 0, "truncated": len(content) - 8}.get(damage, len(content))
        path.write_bytes(content[:kept])
    assert same(load_checkpoint(folder, IDENTITY), state_after(1))


def test_every_truncation_is_noticed(folder: Path) -> None:
    content = (folder / CURRENT).read_bytes()
    for kept in range(0, len(content), 7):
        (folder / CURRENT).write_bytes(content[:kept])
        assert same(load_checkpoint(folder, IDENTITY), state_after(1)), kept


def test_both_damaged_is_a_fresh_start(folder: Path) -> None:
    for name in (CURRENT, PREVIOUS):
        (folder / name).write_bytes(b"torn")
    assert load_checkpoint(folder, IDENTITY) is None


@pytest.mark.parametrize("killed_at", [1, 2])
def test_killed_between_the_renames_the_newest_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """After the write of round 3: before its first and before its second rename in the folder."""
    genuine, calls = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        # The first call puts the fresh file whole into the folder.
        if calls == 1 + killed_at:
            raise KeyboardInterrupt
        genuine(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, IDENTITY, state_after(3))
    monkeypatch.undo()
    assert same(load_checkpoint(folder, IDENTITY), state_after(3))
    save_checkpoint(folder, IDENTITY, state_after(4))
    assert same(load_checkpoint(folder, IDENTITY), state_after(4))
    (folder / CURRENT).unlink()
    assert same(load_checkpoint(folder, IDENTITY), state_after(2))


def test_another_configuration_is_refused_and_named(folder: Path) -> None:
    other = asdict(make_config(seed=9, step_size=0.1))
    with pytest.raises(UserError) as refusal:
        load_checkpoint(folder, other)
    assert "step_size was 0.05, now 0.1, seed was 0, now 9" in str(refusal.value)
    assert "n_nodes" not in str(refusal.value)


def test_config_file_alone_is_enough_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"config": IDENTITY}))
    with pytest.raises(UserError, match="regime was 'iid', now 'sorted'"):
        load_checkpoint(tmp_path, asdict(make_config(regime="sorted")))


@pytest.mark.parametrize("content", ["{torn", "[]", "{}", '{"config": 3}'])
def test_a_damaged_config_file_is_refused_before_training(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json is damaged: restore it, or remove"):
        load_checkpoint(tmp_path, IDENTITY)


@pytest.mark.parametrize("content", ['"status"', '{"status": "reached"}', "5", "[" * 100_000, "{"])
def test_a_damaged_summary_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    assert read_summary(tmp_path) is None
    assert seconds_spent(tmp_path) == 0.0


@pytest.mark.parametrize("line", ["5", "{}", '{"round": 1}', "[" * 100_000, "{"])
def test_metrics_are_read_up_to_a_damaged_row(tmp_path: Path, line: str) -> None:
    row = dict.fromkeys(
        ("round", "iteration", "train_loss", "wall_seconds", "images_per_second"), 1
    )
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(row)}\n{line}\n{json.dumps(row)}\n")
    assert read_metrics(tmp_path) == [row]
    assert seconds_spent(tmp_path) == 1


def test_the_end_and_the_name_of_the_data_may_change(folder: Path) -> None:
    other = asdict(make_config(rounds=99, target_loss=0.1, data_name="renamed"))
    assert same(load_checkpoint(folder, other), state_after(2))


def test_damaged_checkpoints_and_their_metrics_are_moved_aside(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text("many rows")
    assert set_aside_damaged(folder) is None
    (folder / CURRENT).write_bytes(b"torn")
    assert set_aside_damaged(folder) is None
    (folder / PREVIOUS).write_bytes(b"torn too")
    assert set_aside_damaged(folder) == folder / "damaged-1"
    moved = {p.name: p.read_bytes() for p in (folder / "damaged-1").iterdir()}
    assert moved == {CURRENT: b"torn", PREVIOUS: b"torn too", "metrics.jsonl": b"many rows"}
    (folder / CURRENT).write_bytes(b"torn again")
    assert set_aside_damaged(folder) == folder / "damaged-2"


def test_another_version_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 999)
    assert load_checkpoint(folder, IDENTITY) is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_folder_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.os, call, full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        save_checkpoint(folder, IDENTITY, state_after(3))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_failing_rename_of_checkpoints_is_a_user_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == PREVIOUS:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        genuine(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", refuse)
    with pytest.raises(UserError, match="cannot rename the checkpoint"):
        save_checkpoint(folder, IDENTITY, state_after(3))
    assert same(load_checkpoint(folder, IDENTITY), state_after(3))


def test_unwritable_places_are_user_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", b"x")
    with pytest.raises(UserError, match="cannot write"):
        append_line(tmp_path / "none" / "file", "x")
