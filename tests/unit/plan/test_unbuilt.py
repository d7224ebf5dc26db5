"""What cannot be done yet is refused with its place, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from idi.declaration.load import Loaded, load
from idi.plan.unbuilt import SECRETS, unbuilt

ROOT = Path(__file__).resolve().parents[3]


def found(text: str) -> list[str]:
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded), loaded
    return unbuilt(loaded.platform)


@pytest.mark.parametrize(
    ("line", "key", "what"),
    [
        ("secrets: {DATABASE_PASSWORD: shop/database}", "secrets", SECRETS),
    ],
)
def test_what_a_module_would_miss(line: str, key: str, what: str) -> None:
    sentences = found(f"platform: shop\nmodules:\n  web:\n    run: serve\n    {line}\n")
    assert [each.partition(": ")[2] for each in sentences] == [f"web has {key}: {what}."]
    assert sentences[0].startswith("platform.yaml:5:")


def test_the_projects_own_declaration_can_be_done() -> None:
    assert found((ROOT / "platform.yaml").read_text()) == []
