"""The AsyncAPI document says what the declaration says, and every reference in it leads somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.plan.asyncapi import asyncapi

ROOT = Path(__file__).resolve().parents[3]


def nine() -> Platform:
    loaded = load((ROOT / "platform.yaml").read_text(), file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded)
    return loaded.platform


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


@pytest.mark.requirement("B1")
def test_every_module_sends_and_receives_what_it_declares() -> None:
    document = asyncapi(nine())
    assert document["asyncapi"] == "3.0.0"
    assert {channel["address"] for channel in document["channels"].values()} == {
        "jede.decided", "cam.changed", "dere.learned",
    }  # fmt: skip
    actions = {name: one["action"] for name, one in document["operations"].items()}
    assert actions == {
        "jede-publishes-jede_decided": "send",
        "jede-handles-cam_changed": "receive",
        "dere-publishes-dere_learned": "send",
        "dere-handles-cam_changed": "receive",
        "eat-handles-dere_learned": "receive",
        "cam-publishes-cam_changed": "send",
        "cam-handles-jede_decided": "receive",
    }


def test_one_modules_view_is_its_own() -> None:
    platform = nine()
    document = asyncapi(platform, platform.modules[ModuleName("eat")])
    assert list(document["channels"]) == ["dere_learned"]
    assert list(document["operations"]) == ["handles-dere_learned"]


def test_every_reference_leads_somewhere() -> None:
    document = asyncapi(nine())
    found = list(references(document))
    assert found
    for reference in found:
        value: Any = document
        for step in reference.removeprefix("#/").split("/"):
            value = value[step]
