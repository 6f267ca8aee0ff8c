"""CIFAR-10 in memory: the official binary archive, or any folder of class folders of images.

The archive's 3,073-byte records (a label, then 3 x 32 x 32 bytes) are parsed as they are; nothing
is ever unpickled. Folders of images are decoded once into a checked file in a cache folder.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import urllib.request
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

import numpy as np

from theory.support import memory
from theory.support.errors import UserError
from theory.support.files import write_atomically
from theory.support.reading import require_regular

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_OFFICIAL = "CIFAR-10, official archive"
_RECORD = 1 + 3 * 32 * 32
#: Images of the training and the test set together.
_MOST_RECORDS = 60_000
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
    cache: Path | None = None,
) -> Images:
    """The training set found at ``path``.

    ``path`` is the archive, a folder that holds it, a folder of class folders, or a folder whose
    ``train`` holds them. With ``download`` a missing archive is fetched to ``path``/`ARCHIVE`. Decoded
    folders are kept in ``cache``, by default `cache_folder`.
    Raises `UserError` when nothing is there or can be read, the MD5 is wrong or an image is broken.
    """
    try:
        archive = _archive_at(path)
        if archive is None:
            for folder in (path / "train", path):
                if classes := _class_folders(folder):
                    label = name or path.resolve().name
                    return _read_class_folders(folder, classes, label, progress, cache)
            if not download:
                raise UserError(
                    f"no training images at {path}: expected {ARCHIVE} or class folders of images; "
                    "--download fetches the archive"
                )
            archive = path / ARCHIVE
            download_archive(archive, url, md5, progress)
        return _read_archive(archive, name or _OFFICIAL, md5, "data_batch_*.bin")
    except OSError as error:
        raise UserError(
            f"cannot read the training images at {error.filename or path}: {error.strerror or error}"
        ) from error


def load_test_images(
    path: Path,
    *,
    name: str | None = None,
    md5: str = MD5,
    progress: Progress | None = None,
    cache: Path | None = None,
) -> Images | None:
    """The test set found at ``path``, as for `load_images`; None when there is none.

    Class folders are looked for in ``path``/test beside ``path``/train, and must have the same names.
    """
    try:
        archive = _archive_at(path)
        if archive is not None:
            return _read_archive(archive, name or _OFFICIAL, md5, "test_batch.bin")
        known, found = _class_folders(path / "train"), _class_folders(path / "test")
        if not known or not found:
            return None
        if [c.name for c in known] != [c.name for c in found]:
            raise UserError(f"{path / 'test'} has other class folders than {path / 'train'}")
        return _read_class_folders(
            path / "test", found, name or path.resolve().name, progress, cache
        )
    except OSError as error:
        raise UserError(
            f"cannot read the test images at {error.filename or path}: {error.strerror or error}"
        ) from error


def _archive_at(path: Path) -> Path | None:
    if path.is_file():
        return path
    for place in (path, path / ARCHIVE):
        if place.exists() and not place.is_dir():
            require_regular(place)
    return path / ARCHIVE if (path / ARCHIVE).is_file() else None


def cache_folder() -> Path:
    """Where decoded images are kept: $LOCAL_SGD_RATES_CACHE, or the platform's place for such files."""
    chosen = os.environ.get("LOCAL_SGD_RATES_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "local-sgd-rates"


def download_archive(
    target: Path, url: str = URL, md5: str = MD5, progress: Progress | None = None
) -> None:
    """Fetch the archive to ``target``; it appears there only once its MD5 is right."""
    partial = target.with_name(target.name + ".part")
    made = not target.parent.exists()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            target.parent.mkdir(parents=True, exist_ok=True)
            total = int(answer.headers.get("Content-Length") or 0)
            digest, done = hashlib.md5(usedforsecurity=False), 0
            # Of an earlier download; or a FIFO, at which opening would wait.
            partial.unlink(missing_ok=True)
            with partial.open("wb") as out:
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
        if made and not target.exists():
            with suppress(OSError):
                target.parent.rmdir()


def _read_archive(path: Path, name: str, md5: str, pattern: str) -> Images:
    """The records of the files called ``pattern`` in the official archive, after a check of its MD5."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise UserError(f"{path} has MD5 {found}, expected {md5}: delete it and download it again")
    try:
        records = _records(path, pattern)
    except (tarfile.TarError, ValueError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not the CIFAR-10 binary archive: {error}") from error
    table = np.concatenate(records)
    return Images(
        np.ascontiguousarray(table[:, 1:]).reshape(-1, 3, 32, 32),
        table[:, 0].astype(np.int64),
        name,
    )


def _records(path: Path, pattern: str) -> list[np.ndarray]:
    """uint8 [m, 3073] of every file called ``pattern`` in an archive, in the order of their names.

    Sizes are taken from the headers, so that nothing large is unpacked. Raises ValueError for files
    that are no records of CIFAR-10.
    """
    found: dict[str, np.ndarray] = {}
    count = 0
    with tarfile.open(path) as archive:
        for member in archive:
            if not Path(member.name).match(pattern):
                continue
            # A link may lead anywhere, also to itself.
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise ValueError(f"{member.name} is not a file")
            count += member.size // _RECORD
            if member.size % _RECORD or count > _MOST_RECORDS:
                raise ValueError(
                    f"{member.name} has {member.size} bytes, allowed: records of {_RECORD} bytes, "
                    f"{_MOST_RECORDS} in all"
                )
            table = np.frombuffer(content.read(), np.uint8).reshape(-1, _RECORD)
            if len(table) and table[:, 0].max() > 9:
                raise ValueError(f"{member.name} has a label {table[:, 0].max()}, allowed: 0 to 9")
            found[member.name] = table
    if not count:
        raise ValueError(f"no {pattern} in it")
    return [found[name] for name in sorted(found)]


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and any(f.suffix.lower() in _SUFFIXES for f in child.iterdir())
    )


def _read_class_folders(
    folder: Path,
    classes: list[Path],
    name: str,
    progress: Progress | None,
    cache_in: Path | None,
) -> Images:
    """Every image below the class folders; the label is the folder's place in sorted order."""
    files, labels = [], []
    for label, child in enumerate(classes):
        here = sorted(f for f in child.iterdir() if f.suffix.lower() in _SUFFIXES)
        files += here
        labels += [label] * len(here)
    place = folder.resolve()
    tag = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    cache = (cache_in or cache_folder()) / f"{place.parent.name}-{place.name}-{tag}.npz"
    # The cache holds for exactly these files: names, sizes and times of change.
    listing = hashlib.sha256()
    for file in files:
        require_regular(file)
        stat = file.stat()
        # A name may be bytes that are no text.
        listing.update(os.fsencode(file.relative_to(folder)))
        listing.update(f" {stat.st_size} {stat.st_mtime_ns}\n".encode())
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
            # Our own check of sizes, below, comes before anything is decoded.
            with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
                if images is None:
                    images = _room(len(files), image.size, file)
                if image.size != images.shape[:1:-1]:
                    raise UserError(
                        f"{file} is {image.width} x {image.height} pixels: all images must be "
                        f"square and as large as the first, {images.shape[3]} x {images.shape[2]}"
                    )
                images[index] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except UserError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot read the image {file}: {error}") from error
        if progress and (index % 500 == 499 or index + 1 == len(files)):
            progress(index + 1, len(files))
    assert images is not None
    return images


def _room(count: int, size: tuple[int, int], first: Path) -> np.ndarray:
    """An empty array for images of the size of the first, if they are square and fit into memory."""
    width, height = size
    if width != height:
        raise UserError(f"{first} is {width} x {height} pixels: all images must be square")
    # As they are, for the cache and for the run; and what decoding one takes.
    memory.require(
        (9.0 * count + 8.0) * width * height,
        f"{count:,} images of {width:,} x {height:,} pixels such as {first}",
        "the size or the number of the images",
    )
    return np.empty((count, 3, height, width), np.uint8)


def _read_cache(cache: Path, listing: str, count: int) -> np.ndarray | None:
    """The decoded images, or None when the cache is absent, stale or damaged."""
    try:
        require_regular(cache)
        with np.load(cache, allow_pickle=False) as stored:
            images = stored["images"]
            fresh = str(stored["listing"]) == listing and len(images) == count
            whole = str(stored["digest"]) == hashlib.sha256(images.tobytes()).hexdigest()
            return images if fresh and whole else None
    except Exception:
        # Whatever is wrong with a cache file, decoding again puts it right.
        return None


def _write_cache(cache: Path, listing: str, images: np.ndarray) -> None:
    """Keep the decoded images; where the cache cannot be written they are decoded anew every time."""
    content = BytesIO()
    np.savez(
        content, images=images, listing=listing, digest=hashlib.sha256(images.tobytes()).hexdigest()
    )
    with suppress(UserError):
        write_atomically(cache, content.getvalue(), special=False)
