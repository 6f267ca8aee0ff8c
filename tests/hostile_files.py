"""Files that broke our commands, or might: what :mod:`test_defects` and :mod:`test_fuzz` read."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
from deep_cases import random_images, write_class_folders
from PIL import Image


def write_hostile_files(top: Path) -> None:
    """Into an empty folder."""
    _write_npz(top)
    _write_csv(top)
    write_class_folders(top / "images", random_images(40))
    _write_images(top)
    (top / "directory").mkdir()
    (top / "locked.json").write_text("{}")
    (top / "locked.json").chmod(0o444)
    (top / "mine.py").write_text("from theory.theorems import T2 as MINE\n")
    for name, start, end in (
        ("minutes", "small", f"minutes = 1{400 * '0'}"),
        ("digits", "small", f"rounds = {5000 * '9'}"),
        ("nested", "small", f"energy = {5000 * '['}"),
        ("nul", "a\\u0000b", ""),
        ("escaped", "../../escaped", ""),
    ):
        preset = f'[preset."{start}"]\nwidth = 2\nrounds = 2\nstep-size = 0.1\nlocal-steps = 1\n'
        (top / f"{name}.toml").write_text(f'{preset}[[run]]\npreset = "{start}"\n{end}\n')
    (top / "campaign.toml").write_text("data-name = 'x'\n[[run]]\npreset = 'smoke'\nrounds = 1.5\n")


def _write_npz(top: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 6))
    b = a @ np.ones(6)
    arrays = {"A0": a, "b0": b, "A1": a, "b1": b}

    def save(name: str, **found: np.ndarray) -> bytes:
        np.savez(top / f"{name}.npz", allow_pickle=True, **found)
        return (top / f"{name}.npz").read_bytes()

    raw = save("good", **arrays)
    (top / "truncated.npz").write_bytes(raw[: len(raw) // 2])
    flipped = bytearray(raw)
    flipped[len(raw) // 3] ^= 0x10
    (top / "flipped.npz").write_bytes(flipped)
    (top / "empty.npz").write_bytes(b"")
    save("nothing")
    np.save(top / "array.npy", a)
    (top / "array.npy").rename(top / "array.npz")
    save("no-rows", A0=np.empty((0, 6)), b0=np.empty(0))
    save("no-columns", A0=np.empty((4, 0)), b0=np.zeros(4))
    save("tiny", A0=np.zeros((4, 6)), b0=np.zeros(4))
    save("0-d", A0=np.array(1.0), b0=np.array(1.0))
    save("complex", A0=a * 1j, b0=b)
    save("objects", A0=a.astype(object), b0=b)
    save("nan", A0=a * np.nan, b0=b)
    save("node", A=a, b=b, node=np.array([0, 1, 2, 10**12]))
    save("negative", A=a, b=b, node=np.array([0, 1, 2, -1]))
    # 80 GB of zeros in a few kilobytes, as its header says; the reader must look there first.
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**5, 10**5)}
    )
    with zipfile.ZipFile(top / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("A0.npy", header.getvalue() + bytes(10**6))
        archive.writestr("b0.npy", header.getvalue() + bytes(10**6))


def _write_csv(top: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{i % 2},{x[0]},{x[0]},{x[1]},{x[2]}" for i, x in enumerate(rng.random((6, 3)))]
    head = "node,target,u,v,w"
    index = [f"{i},{line}" for i, line in enumerate(lines)]
    quoted = ['"' + line.replace(",", '","') + '"' for line in lines]
    for name, content in {
        "plain.csv": [head, *lines],
        "pandas.csv": [f",{head}", *index],
        "quoted.csv": [head, *quoted],
        "PLAIN.CSV": [head, *lines],
        "headless.csv": lines,
        "header-only.csv": [head],
        "nothing.csv": [],
        "words.csv": [head, "0,a,b,c,d"],
        "ragged.csv": [head, *lines, "0,1"],
        "data.txt": [head, *lines],
    }.items():
        (top / name).write_text("".join(line + "\n" for line in content))


def _write_images(top: Path) -> None:
    for name in ("huge", "foreign"):
        write_class_folders(top / name, random_images(10))
    # 12,000 x 12,000 pixels of one bit: 18 MB unpacked, 432 MB in colour.
    for name in ("huge", "giant"):
        (top / name / "class0").mkdir(parents=True, exist_ok=True)
        Image.new("1", (12_000, 12_000)).save(top / name / "class0" / "9999.png")
    small = (top / "foreign" / "class0" / "0000.png").read_bytes()
    (top / "foreign" / "class0" / os.fsdecode(b"\xff\xfe.png")).write_bytes(small[:40])
