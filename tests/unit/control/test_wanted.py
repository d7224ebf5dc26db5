"""What is wanted survives control, and what another version wrote is refused by both versions' names."""

from __future__ import annotations

import json

import pytest

from idi.control.change.wanted import Wanted
from idi.declaration.types import ModuleName
from idi.parts.errors import Refused
from idi.parts.store.interface import Actor
from idi.parts.store.memory import MemoryStore
from idi.plan.recorded import DOCUMENT
from idi.plan.types import KeptSecret, Overlays

ME = Actor("peer", "me")


async def test_it_comes_back_as_it_was() -> None:
    store = MemoryStore()
    assert await Wanted.recall(store) == Wanted()
    cam, kept = ModuleName("cam"), {"cam/key": KeptSecret(3, 1.5)}
    wanted = Wanted(
        True, "platform: shop", "shop.yaml", "https://keys", Overlays({cam: 2}, {cam: 1}, secrets=kept)
    )
    await store.begin(ME, "up", {}, documents=wanted.documents())
    assert await Wanted.recall(store) == wanted


@pytest.mark.requirement("S5")
async def test_another_version_is_refused_by_name() -> None:
    store = MemoryStore()
    await store.begin(ME, "up", {}, documents={DOCUMENT: json.dumps({"version": 7}).encode()})
    with pytest.raises(Refused, match=r"version 7, this IDI reads 1"):
        await Wanted.recall(store)


async def test_one_from_before_there_were_secrets_has_none() -> None:
    store = MemoryStore()
    document = json.loads(Wanted(True).documents()[DOCUMENT] or b"")
    del document["secrets"]
    await store.begin(ME, "up", {}, documents={DOCUMENT: json.dumps(document).encode()})
    assert (await Wanted.recall(store)).overlays.secrets == {}
