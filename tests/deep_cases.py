"""Small training sets and configurations shared by the tests of `deep`."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deep.config import Config
from deep.data.cifar10 import Images

# Maps this small gain nothing from threads, and waiting for busy cores takes long.
torch.set_num_threads(1)


def random_images(count: int = 40, size: int = 8, seed: int = 0) -> Images:
    """``count`` random images with labels 0..9 in turn."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 10, "random images")


def write_class_folders(folder: Path, images: Images) -> Path:
    """Save the images losslessly, one folder a class, and return ``folder``."""
    for index, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
        place = folder / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(place / f"{index:04d}.png")
    return folder


def write_archive(path: Path, batches: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """An archive laid out as the official one, from (labels, pixels) a batch; returns its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        # Stored out of order and with a file that must be ignored.
        for number, (labels, pixels) in reversed(list(enumerate(batches, 1))):
            records = np.column_stack([labels, pixels.reshape(len(labels), -1)]).astype(np.uint8)
            add_member(archive, f"cifar-10-batches-bin/data_batch_{number}.bin", records.tobytes())
        add_member(archive, "cifar-10-batches-bin/test_batch.bin", b"\0" * 3073)
        add_member(archive, "cifar-10-batches-bin/batches.meta.txt", b"airplane\n")
    return md5_of(path)


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to an open archive."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def make_config(**changes: Any) -> Config:
    """A small configuration with some fields changed."""
    fields: dict[str, Any] = {
        "regime": "iid",
        "local_steps": 2,
        "rounds": 30,
        "target_loss": 0.0,
        "step_size": 0.05,
        "n_nodes": 3,
        "batch_size": 4,
        "width": 1,
        "subset": None,
        "seed": 0,
        "engine": "loop",
        "precision": "float64",
        "data_name": "random images",
        "data_fingerprint": "0",
    }
    return Config(**{**fields, **changes})


def tiny_options(nodes: int, batch_size: int, subset: int = 40) -> list[str]:
    """Options of `deep.reproduce` for the smallest network, by the plain loop on one thread."""
    return [
        *("--preset", "smoke", "--engine", "loop", "--width", "1", "--nodes", str(nodes)),
        *("--batch-size", str(batch_size), "--subset", str(subset), "--threads", "1", "--quiet"),
    ]


def tiny_preset(rounds: int) -> str:
    """The head of a campaign's file: a preset "tiny" for forty images."""
    return f"""
data-name = "noise"
[preset.tiny]
width = 1
subset = 40
nodes = 4
batch-size = 3
step-size = 0.05
rounds = {rounds}
engine = "loop"
"""


#: Two runs of that preset.
TWO_RUNS = """
[[run]]
preset = "tiny"
experiment = "fixed-rounds"
regime = ["iid", "shards"]
shards-per-node = 1
local-steps = 2
"""
