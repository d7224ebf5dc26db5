"""Pages whose blocks are done as a reader does them: files are written, commands run, outputs compared.

```python prices.py    the file of that name, as it stands
```sh                  run in one shell, one block after the other; a block that fails fails the test
```text                what the block before must have printed: `…` stands for anything within a line, and as
                       a whole line for any lines
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
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


def pattern(expected: str) -> re.Pattern[str]:
    lines = []
    for line in expected.splitlines():
        if line.strip() == "…":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            pieces = (re.escape(piece.strip(" ")) for piece in line.split("…"))
            lines.append(r" *" + r"[^\n]*?".join(pieces) + r" *\n")
    return re.compile("".join(lines))
