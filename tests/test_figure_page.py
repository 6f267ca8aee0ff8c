"""The page is self-contained, has every figure, and says what is missing."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_figures import Made

from figures.analysis import places
from figures.analysis.sources import MissingResult, Sources
from figures.analysis.verification import VERIFY_COMMAND, VERIFY_PATH
from figures.drawing import rendering
from figures.drawing.catalogue import FIGURES, find
from figures.record import page as report


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        self.fetched += [found[a] or "" for a in ("src", "srcset", "data") if a in found]
        if "id" in found:
            self.ids.append(found["id"] or "")
        if "href" in found:
            self.links.append(found["href"] or "")


def test_the_page_is_self_contained_and_has_everything(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert report.write_report(path, made.outcomes, made.root)
    text = path.read_text()
    page = Page(text)
    # Links go to places on the page only; nothing is fetched, no style sheet or font is imported.
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in text and "url(" not in text
    assert len(set(page.ids)) == len(page.ids)
    assert len(page.images) == len(FIGURES)
    for image, entry in zip(
        page.images, sorted(FIGURES, key=lambda e: page.ids.index(e.name)), strict=True
    ):
        data = base64.b64decode((image["src"] or "").split(",", 1)[1])
        assert data.startswith(b"\x89PNG") and image["alt"] == entry.text
    assert "viewport" in text and "class=missing" not in text
    for heading in (
        "The paper&#x27;s claims",
        "Verification:",
        "Exact worst cases at",
        "every run",
    ):
        assert heading in text


def test_the_page_says_what_is_missing(tmp_path: Path) -> None:
    outcomes = [rendering.Outcome(find(["worst-case"])[0], None, "it is <missing>", False, 0.0)]
    report.write_report(tmp_path / "report.html", outcomes, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "it is &lt;missing&gt;" in text
    assert text.count("No result yet") >= 5 and VERIFY_COMMAND in text


def test_small_pngs_keep_their_size_and_look(made: Made) -> None:
    from PIL import Image, ImageChops

    path = made.out / "ratio-heatmap.png"
    data, size = report.small_png(path)
    assert len(data) < path.stat().st_size
    small = made.out / "small.png"
    small.write_bytes(data)
    with Image.open(path) as before, Image.open(small) as after:
        assert after.size == before.size == size
        difference = ImageChops.difference(before.convert("RGB"), after.convert("RGB"))
        assert np.asarray(difference).max() < 90
        assert np.asarray(difference).mean() < 2


def test_missing_results_are_value_errors_with_a_command() -> None:
    with pytest.raises(MissingResult, match="make it with: python -m theory"):
        Sources(Path("/nonexistent")).read(VERIFY_PATH, VERIFY_COMMAND)
    assert places.is_checkout() and places.ROOT.joinpath("figures").is_dir()
