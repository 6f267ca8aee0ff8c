"""Loading training images: the official archive, class folders, the cache, what is broken."""

from __future__ import annotations

import pickle
import stat
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_cases import add_member, md5_of, random_images, write_archive, write_class_folders

from deep.data import cifar10
from deep.data.cifar10 import ARCHIVE, download_archive, load_images, load_test_images
from theory.support.errors import UserError


def random_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Three batches of two records each."""
    rng = np.random.default_rng(1)
    return [
        (rng.integers(0, 10, 2), rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8))
        for _ in range(3)
    ]


@pytest.mark.parametrize("give_folder", [True, False])
def test_archive_is_read_in_the_order_of_its_batches(tmp_path: Path, give_folder: bool) -> None:
    batches = random_batches()
    md5 = write_archive(tmp_path / ARCHIVE, batches)
    images = load_images(tmp_path if give_folder else tmp_path / ARCHIVE, md5=md5)
    assert images.name == "CIFAR-10, official archive"
    assert images.images.dtype == np.uint8 and images.labels.dtype == np.int64
    assert (images.images == np.concatenate([pixels for _, pixels in batches])).all()
    assert (images.labels == np.concatenate([labels for labels, _ in batches])).all()


def test_wrong_md5_is_refused_with_both_sums(tmp_path: Path) -> None:
    md5 = write_archive(tmp_path / ARCHIVE, random_batches())
    with pytest.raises(UserError, match=f"has MD5 {md5}, expected {cifar10.MD5}"):
        load_images(tmp_path)


@pytest.mark.parametrize("content", ["folder", "short record", "nothing"])
def test_archive_of_another_layout_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        if content == "folder":
            entry = tarfile.TarInfo("x/data_batch_1.bin")
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        elif content == "short record":
            add_member(archive, "x/data_batch_1.bin", b"\1" * 3000)
    md5 = md5_of(path)
    with pytest.raises(UserError, match="is not the CIFAR-10 binary archive"):
        load_images(path, md5=md5)


def test_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ARCHIVE
    write_archive(path, random_batches())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="is not the CIFAR-10 binary archive"):
        load_images(path, md5=md5_of(path))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    md5 = write_archive(tmp_path / ARCHIVE, random_batches())
    assert len(load_images(tmp_path, md5=md5)) == 6
    folder = write_class_folders(tmp_path / "own", random_images(10))
    load_images(folder, cache=tmp_path / "cache")
    # An object array in the cache could carry a pickle: it is decoded anew instead.
    (cache,) = (tmp_path / "cache").iterdir()
    np.savez(cache, images=np.array([{}], object), listing="", digest="")
    found = load_images(folder, cache=tmp_path / "cache")
    assert (found.images == random_images(10).images).all()


def test_missing_data_names_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected {ARCHIVE} or class folders"):
        load_images(tmp_path / "nowhere")


@pytest.mark.parametrize("below_train", [True, False])
def test_class_folders_give_pixels_and_sorted_labels(tmp_path: Path, below_train: bool) -> None:
    expected = random_images(20, 16)
    write_class_folders(tmp_path / "set" / ("train" if below_train else ""), expected)
    found = load_images(tmp_path / "set", name="mine")
    order = np.argsort(expected.labels, kind="stable")
    assert found.name == "mine"
    assert (found.labels == expected.labels[order]).all()
    assert (found.images == expected.images[order]).all()


def test_cache_is_used_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_class_folders(tmp_path / "own", random_images(10))
    place = tmp_path / "cache"
    first = load_images(folder, cache=place)
    (cache,) = place.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) & 0o044
    decoded: list[int] = []
    genuine = cifar10._decode

    def decode(files: Any, progress: Any) -> Any:
        decoded.append(len(files))
        return genuine(files, progress)

    monkeypatch.setattr(cifar10, "_decode", decode)
    assert load_images(folder, cache=place).fingerprint == first.fingerprint and not decoded
    # A flipped byte of the pixels, a torn file, and a changed image each cost a decoding.
    damaged = bytearray(cache.read_bytes())
    damaged[500] ^= 1
    cache.write_bytes(damaged)
    assert load_images(folder, cache=place).fingerprint == first.fingerprint and len(decoded) == 1
    cache.write_bytes(cache.read_bytes()[:700])
    assert load_images(folder, cache=place).fingerprint == first.fingerprint and len(decoded) == 2
    write_class_folders(folder, random_images(10, seed=1))
    assert load_images(folder, cache=place).fingerprint != first.fingerprint and len(decoded) == 3


def test_the_cache_lies_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_SGD_RATES_CACHE", str(tmp_path / "own"))
    assert cifar10.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("LOCAL_SGD_RATES_CACHE")
    monkeypatch.setattr(cifar10.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cifar10.cache_folder() == tmp_path / "xdg" / "local-sgd-rates"
    folder = write_class_folders(tmp_path / "one" / "images", random_images(10))
    load_images(folder)
    assert [p.suffix for p in (tmp_path / "xdg" / "local-sgd-rates").iterdir()] == [".npz"]
    assert [p.name for p in folder.parent.iterdir()] == ["images"]
    # Without a place for it the images are decoded every time.
    (tmp_path / "file").write_text("")
    assert len(load_images(folder, cache=tmp_path / "file")) == 10


def test_the_test_set_is_read_like_the_training_set(tmp_path: Path) -> None:
    md5 = write_archive(tmp_path / ARCHIVE, random_batches())
    test = load_test_images(tmp_path, md5=md5)
    assert test is not None and len(test) == 1 and test.images.shape[1:] == (3, 32, 32)
    expected = random_images(20, 16)
    write_class_folders(tmp_path / "set" / "train", random_images(30, 16))
    assert load_test_images(tmp_path / "set") is None
    write_class_folders(tmp_path / "set" / "test", expected)
    found = load_test_images(tmp_path / "set", name="mine")
    order = np.argsort(expected.labels, kind="stable")
    assert found is not None and found.name == "mine"
    assert (found.labels == expected.labels[order]).all()
    assert (found.images == expected.images[order]).all()
    # A folder of class folders has no test set, and other classes would be other labels.
    assert load_test_images(tmp_path / "set" / "train") is None
    (tmp_path / "set" / "test" / "class3").rename(tmp_path / "set" / "test" / "other")
    with pytest.raises(UserError, match="test has other class folders than"):
        load_test_images(tmp_path / "set")


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_broken_image_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write_class_folders(tmp_path / "own", random_images(10))
    (folder / "class3" / "broken.png").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read the image .*broken\.png"):
        load_images(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["own"]


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "own", random_images(10, 8))
    write_class_folders(folder, random_images(20, 16).take(np.array([19])))
    with pytest.raises(UserError, match=r"0000\.png is 16 x 16 pixels: all images must be square"):
        load_images(folder)


def test_download_appears_only_when_its_md5_is_right(tmp_path: Path) -> None:
    source = tmp_path / "source.tar.gz"
    md5 = write_archive(source, random_batches())
    steps: list[tuple[int, int]] = []
    images = load_images(
        tmp_path / "data",
        download=True,
        md5=md5,
        url=source.as_uri(),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert len(images) == 6 and (tmp_path / "data" / ARCHIVE).is_file()
    assert steps[-1] == (source.stat().st_size, source.stat().st_size)
    with pytest.raises(UserError, match=r"the download .* try again"):
        download_archive(tmp_path / "other" / ARCHIVE, source.as_uri(), "0" * 32)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("url", ["file:///nowhere/at/all", "no url"])
def test_failed_download_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=f"cannot download {url}.*give a copy with --data"):
        download_archive(tmp_path / "data" / ARCHIVE, url)
    assert list(tmp_path.iterdir()) == []


def test_centred_pixels_lie_in_minus_one_to_one() -> None:
    images = random_images(30)
    assert images.pixels == "centred" and images.take(np.arange(3)).pixels == "centred"
    table = images.normalisation()
    assert table.shape == (3, 256)
    for channel in table:
        assert channel == pytest.approx((np.arange(256) / 255 - 0.5) / 0.5, abs=1e-15)
        assert (channel[0], channel[255]) == (-1, 1)


def test_unknown_pixels_are_refused() -> None:
    with pytest.raises(UserError, match="--pixels is 'raw', allowed: centred, standardised"):
        replace(random_images(3), pixels="raw")


def test_standardised_pixels_have_mean_zero_and_deviation_one() -> None:
    images = replace(random_images(30), pixels="standardised")
    assert images.take(np.arange(3)).pixels == "standardised"
    table = images.normalisation()
    for channel in range(3):
        values = table[channel][images.images[:, channel]]
        assert values.mean() == pytest.approx(0, abs=1e-12)
        assert values.std() == pytest.approx(1, rel=1e-12)


def test_fingerprint_depends_on_pixels_and_labels() -> None:
    images = random_images(10)
    pixels = images.images.copy()
    pixels[3, 1, 2, 2] ^= 1
    labels = images.labels.copy()
    labels[0] += 1
    prints = {
        images.fingerprint,
        cifar10.Images(pixels, images.labels, "x").fingerprint,
        cifar10.Images(images.images, labels, "x").fingerprint,
    }
    assert len(prints) == 3
    assert cifar10.Images(images.images, images.labels, "other").fingerprint == images.fingerprint
