"""The tutorials do what they say: their files are written, their commands run, their outputs compared.

```python prices.py    the file of that name, as it stands
```sh                  run in one shell, one block after the other; a block that fails fails the test
```text                what the block before must have printed: `…` stands for anything within a line, and as
                       a whole line for any lines
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.platform import ROOT, Platform, platform
from tests.support.scale import need_part

DOCS = ROOT / "docs"
WITHIN_S = 60.0
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """`place` is where it begins in the page."""

    place: str
    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(f"{page.name}:{text[: found.start()].count(chr(10)) + 1}", found[1], found[2] or "", found[3])
        for found in _BLOCK.finditer(text)
    ]


class Shell:
    """One bash for the whole page, so that what a block sets is there for the next."""

    def __init__(self, one: Platform) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=one.folder,
            env=one.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: Block, script: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Each line must succeed, as it would for somebody who stops at the first that does not.
        self._process.stdin.write(f"set -e\n{script}\nset +e\necho '--end--'\n")
        self._process.stdin.flush()
        printed = ""
        for line in self._process.stdout:
            if line == "--end--\n":
                return printed
            printed += line
        raise AssertionError(f"{block.place}: a command failed after printing:\n{printed}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


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
    shell = Shell(one)
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


def pattern(expected: str) -> re.Pattern[str]:
    lines = []
    for line in expected.splitlines():
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            pieces = (re.escape(piece.strip(" ")) for piece in line.split("…"))
            lines.append(r" *" + r"[^\n]*?".join(pieces) + r" *\n")
    return re.compile("".join(lines))
