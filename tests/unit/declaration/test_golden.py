"""Every golden file gives exactly the messages beside it; the first line may name the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from idi.declaration import compose
from idi.declaration.load import Loaded, load

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.yaml"))


def messages(content: bytes) -> str:
    """What a person sees for a file: its mistakes and warnings, or that it is fine."""
    first = content.split(b"\n", 1)[0].decode("utf-8", "replace")
    environment = (
        first.removeprefix("# environment: ").strip() if first.startswith("# environment: ") else "dev"
    )
    result = load(content, file="platform.yaml", environment=environment)
    if isinstance(result, Loaded):
        lines = [f"warning: {warning}" for warning in result.warnings]
    else:
        lines = [str(mistake) for mistake in result.mistakes]
    return "\n".join(lines or ["fine"]) + "\n"


@pytest.mark.requirement("S1")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_messages(path: Path) -> None:
    assert messages(path.read_bytes()) == path.with_suffix(".expected").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_parser_in_python_says_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML without libyaml reads every file too; what is no syntax mistake, it reports in the same words."""
    parser: Any = yaml.SafeLoader
    with_c = messages(path.read_bytes())
    monkeypatch.setattr(compose, "PARSER", parser)
    with_python = messages(path.read_bytes())
    if path.stem in {"yaml-percent-line", "yaml-bad-escape", "yaml-tab-inside", "yaml-block-scalar"}:
        assert with_python.startswith("platform.yaml:")
    else:
        assert with_python == with_c


def test_there_are_no_leftovers() -> None:
    expected = {path.stem for path in GOLDEN.glob("*.expected")}
    assert expected == {path.stem for path in FILES}
    assert len(FILES) >= 60


def test_many_mistakes_are_told_at_once_and_in_order() -> None:
    lines = (GOLDEN / "meaning-many-at-once.expected").read_text().splitlines()
    places = [tuple(int(part) for part in line.split(":")[1:3]) for line in lines]
    assert len(lines) >= 6
    assert places == sorted(places)
