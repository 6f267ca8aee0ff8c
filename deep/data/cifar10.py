"""CIFAR-10 in memory: the official binary archive, or any folder of class folders of images.

The archive's 3,073-byte records (a label, then 3 x 32 x 32 bytes) are parsed as they are; nothing
is ever unpickled. Folders of images are decoded once into a checked cache file.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

import numpy as np

from theory.support.errors import UserError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_RECORD = 1 + 3 * 32 * 32
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm"}
#: How bytes become numbers, see `Images.normalisation`.
PIXELS = ("centred", "standardised")
#: Called with (bytes or images so far, total) while something long goes on.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Images:
    """Images of one set: ``images`` uint8 [M, 3, S, S], ``labels`` int64 [M], and its name.

    ``pixels`` says how bytes become numbers, see `normalisation`. Raises `UserError` for a value
    that is not in `PIXELS`.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    pixels: str = "centred"

    def __post_init__(self) -> None:
        if self.pixels not in PIXELS:
            raise UserError(f"--pixels is {self.pixels!r}, allowed: {', '.join(PIXELS)}")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> Images:
        """The images with the given indices, in that order."""
        return replace(
            self, images=np.ascontiguousarray(self.images[chosen]), labels=self.labels[chosen]
        )

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of a hash of all images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()[:12]

    def normalisation(self) -> np.ndarray:
        """Value of every byte in every channel after normalisation, float64 [3, 256].

        ``centred``: (byte/255 - 0.5)/0.5, as in the repository of the paper's first author.
        ``standardised``: every channel gets mean 0 and standard deviation 1 over this set.
        """
        if self.pixels == "centred":
            return np.tile((np.arange(256) / 255.0 - 0.5) / 0.5, (3, 1))
        table = np.empty((3, 256))
        for channel in range(3):
            counts = np.bincount(self.images[:, channel].reshape(-1), minlength=256)
            values = np.arange(256) / 255.0
            mean = (counts * values).sum() / counts.sum()
            deviation = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
            table[channel] = (values - mean) / max(deviation, 1e-12)
        return table


def load_images(
    path: Path,
    *,
    name: str | None = None,
    download: bool = False,
    md5: str = MD5,
    url: str = URL,
    progress: Progress | None = None,
) -> Images:
    """The training set found at ``path``.

    ``path`` is the archive, a folder that holds it, a folder of class folders, or a folder whose
    ``train`` holds them. With ``download`` a missing archive is fetched to ``path``/`ARCHIVE`.
    Raises `UserError` when nothing is there or can be read, the MD5 is wrong or an image is broken.
    """
    try:
        return _load(path, name, download, md5, url, progress)
    except OSError as error:
        raise UserError(f"cannot read the training images at {path}: {error}") from error


def _load(
    path: Path,
    name: str | None,
    download: bool,
    md5: str,
    url: str,
    progress: Progress | None,
) -> Images:
    if path.is_file():
        return _read_archive(path, name or "CIFAR-10, official archive", md5)
    if (path / ARCHIVE).is_file():
        return _read_archive(path / ARCHIVE, name or "CIFAR-10, official archive", md5)
    for folder in (path / "train", path):
        if _class_folders(folder):
            return _read_class_folders(folder, name or path.resolve().name, progress)
    if not download:
        raise UserError(
            f"no training images at {path}: expected {ARCHIVE} or class folders of images; "
            "--download fetches the archive"
        )
    download_archive(path / ARCHIVE, url, md5, progress)
    return _read_archive(path / ARCHIVE, name or "CIFAR-10, official archive", md5)


def download_archive(
    target: Path, url: str = URL, md5: str = MD5, progress: Progress | None = None
) -> None:
    """Fetch the archive to ``target``; it appears there only once its MD5 is right."""
    partial = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as out:
            total = int(answer.headers.get("Content-Length") or 0)
            digest, done = hashlib.md5(usedforsecurity=False), 0
            while chunk := answer.read(1 << 18):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
        if digest.hexdigest() != md5:
            raise UserError(
                f"the download from {url} has MD5 {digest.hexdigest()}, expected {md5}; try again"
            )
        partial.replace(target)
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"cannot download {url}: {error}; give a copy with --data") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_archive(path: Path, name: str, md5: str) -> Images:
    """The 50,000 training records of the official archive, after a check of its MD5."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise UserError(f"{path} has MD5 {found}, expected {md5}: delete it and download it again")
    records = []
    try:
        with tarfile.open(path) as archive:
            members = [m for m in archive.getmembers() if Path(m.name).match("data_batch_*.bin")]
            for member in sorted(members, key=lambda m: m.name):
                content = archive.extractfile(member)
                if content is None:
                    raise ValueError(f"{member.name} is not a file")
                records.append(np.frombuffer(content.read(), np.uint8).reshape(-1, _RECORD))
    except (tarfile.TarError, ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not the CIFAR-10 binary archive: {error}") from error
    if not records:
        raise UserError(f"{path} is not the CIFAR-10 binary archive: no data_batch_*.bin in it")
    table = np.concatenate(records)
    return Images(
        np.ascontiguousarray(table[:, 1:]).reshape(-1, 3, 32, 32),
        table[:, 0].astype(np.int64),
        name,
    )


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and any(f.suffix.lower() in _SUFFIXES for f in child.iterdir())
    )


def _read_class_folders(folder: Path, name: str, progress: Progress | None) -> Images:
    """Every image below the class folders; the label is the folder's place in sorted order."""
    files, labels = [], []
    for label, child in enumerate(_class_folders(folder)):
        here = sorted(f for f in child.iterdir() if f.suffix.lower() in _SUFFIXES)
        files += here
        labels += [label] * len(here)
    cache = folder.parent / f".{folder.name}-decoded.npz"
    # The cache holds for exactly these files: names, sizes and times of change.
    listing = hashlib.sha256()
    for file in files:
        stat = file.stat()
        listing.update(f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    images = _read_cache(cache, listing.hexdigest(), len(files))
    if images is None:
        images = _decode(files, progress)
        _write_cache(cache, listing.hexdigest(), images)
    return Images(images, np.array(labels, np.int64), name)


def _decode(files: list[Path], progress: Progress | None) -> np.ndarray:
    from PIL import Image

    images: np.ndarray | None = None
    for index, file in enumerate(files):
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot read the image {file}: {error}") from error
        if images is None:
            images = np.empty((len(files), 3, *pixels.shape[:2]), np.uint8)
        if pixels.shape[:2] != images.shape[2:] or pixels.shape[0] != pixels.shape[1]:
            raise UserError(
                f"{file} is {pixels.shape[1]} x {pixels.shape[0]} pixels: all images must be "
                f"square and as large as the first, {images.shape[3]} x {images.shape[2]}"
            )
        images[index] = pixels.transpose(2, 0, 1)
        if progress and (index % 500 == 499 or index + 1 == len(files)):
            progress(index + 1, len(files))
    assert images is not None
    return images


def _read_cache(cache: Path, listing: str, count: int) -> np.ndarray | None:
    """The decoded images, or None when the cache is absent, stale or damaged."""
    try:
        with np.load(cache, allow_pickle=False) as stored:
            images = stored["images"]
            fresh = str(stored["listing"]) == listing and len(images) == count
            whole = str(stored["digest"]) == hashlib.sha256(images.tobytes()).hexdigest()
            return images if fresh and whole else None
    except Exception:
        # Whatever is wrong with a cache file, decoding again puts it right.
        return None


def _write_cache(cache: Path, listing: str, images: np.ndarray) -> None:
    """Write beside the images, atomically; a read-only folder goes without a cache."""
    content = BytesIO()
    np.savez(
        content, images=images, listing=listing, digest=hashlib.sha256(images.tobytes()).hexdigest()
    )
    try:
        descriptor, partial = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
    except OSError:
        return
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content.getbuffer())
        os.replace(partial, cache)
    except OSError:
        Path(partial).unlink(missing_ok=True)
