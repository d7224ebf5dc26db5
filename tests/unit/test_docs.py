"""The pages do not rot: links lead somewhere, tests that are named exist, declarations that are shown are valid."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from idi.declaration.load import Loaded, load
from idi.plan.unbuilt import unbuilt

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")])

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(?:tests/)?([\w/]+\.py)::(\w+)`")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", text_of(page)))
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_something_that_is_kept(page: Path) -> None:
    kept = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\0")
    for link in _LINK.findall(_FENCE.sub("", text_of(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        # Without Git (an unpacked archive) there is nothing to compare with.
        assert kept == [""] or target.is_dir() or name(target) in kept, f"{link} is not in the repository"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for path, function in _TEST.findall(text_of(page)):
        source = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(async )?def {function}\(", source, re.MULTILINE), f"{path}::{function}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_declaration_that_a_page_shows_is_valid_and_can_be_run(page: Path) -> None:
    for language, text in _FENCE.findall(text_of(page)):
        if language == "yaml" and text.startswith("platform:"):
            loaded = load(text, file=name(page), environment="dev")
            assert isinstance(loaded, Loaded), loaded
            assert not loaded.warnings, loaded.warnings
            assert unbuilt(loaded.platform) == ("", "")


def test_no_page_is_an_orphan() -> None:
    """The index names every page below docs/."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(text_of(page))
        if "://" not in link
    }
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {ROOT / "docs" / "README.md"}
    assert not [name(page) for page in pages if page.resolve() not in linked]
