"""The tutorials do what they say: files are written, commands run, outputs compared (tests/support/pages.py)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pages import Shell, blocks, pattern
from tests.support.platform import ROOT, Platform, platform
from tests.support.scale import need_part

DOCS = ROOT / "docs"
WITHIN_S = 60.0


@pytest.fixture
def one() -> Iterator[Platform]:
    with platform("") as found:
        found.file.unlink()
        yield found


@pytest.mark.requirement("G1", "G2", "S3", "S5", "D1")
def test_every_step_of_the_tutorial_does_what_it_says(one: Platform) -> None:
    need_part("curl", shutil.which("curl"), "install curl")
    follow(DOCS / "tutorial.md", one)


@pytest.mark.requirement("B1", "S1", "S2", "G2")
def test_so_does_the_one_for_python(one: Platform) -> None:
    follow(DOCS / "tutorial-python.md", one)


@pytest.mark.requirement("B1", "S1", "S2", "G2")
def test_so_does_the_one_for_node(one: Platform) -> None:
    need_part("Node", shutil.which("node"), "https://nodejs.org, 20 or newer")
    follow(DOCS / "tutorial-node.md", one)


def follow(page: Path, one: Platform) -> None:
    shell = Shell(one.folder, one.environment())
    begun = time.monotonic()
    printed = ""
    for block in blocks(page):
        match block.language:
            case "sh":
                printed = shell.run(block, with_ports(block.text, one))
            case "text":
                expected = with_ports(block.text, one)
                assert pattern(expected).fullmatch(printed), (
                    f"{block.place} promises\n{expected}\nbut there came\n{printed}"
                )
            case _:
                (one.folder / block.file).write_text(block.text)
    shell.close()
    took = time.monotonic() - begun
    assert took < WITHIN_S, f"{page.name} took {took:.0f} s"
    assert not one.processes()


def with_ports(text: str, one: Platform) -> str:
    """The same with this test's ports. Another port is as much said to `up` as anywhere else."""
    text = text.replace("idi up --detach", f"idi up --detach {' '.join(one.ports)}")
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{one.gateway_port}")
