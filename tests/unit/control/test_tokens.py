"""A client keeps the secret that it has when the journal cannot take the new one's note."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from idi.control.trust.tokens import give_token
from idi.declaration.types import Client, Gateway, LocalTarget, Platform
from idi.parts.errors import PartError
from idi.parts.store.interface import Actor
from idi.parts.store.memory import MemoryStore

SHOP = Platform("shop", "dev", LocalTarget(), {}, Gateway(clients={"pilot": Client("pilot", ())}))


class Secrets:
    def __init__(self) -> None:
        self.made = 0

    def mint(self, subject: str, scopes: Sequence[str], life_s: float) -> object:
        raise AssertionError

    mint_as = mint

    def new_secret(self, client: str) -> str:
        self.made += 1
        return "secret"


async def broken(*_: object, **__: object) -> int:
    raise PartError("The disk is gone.")


@pytest.mark.requirement("S4")
async def test_first_the_note_then_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    store, secrets = MemoryStore(), Secrets()
    ask = give_token(
        {"client": "pilot", "new_secret": True},
        Actor("peer", "me"),
        SHOP,
        secrets,  # type: ignore[arg-type]
        store,
    )
    monkeypatch.setattr(store, "note", broken)
    with pytest.raises(PartError):
        await ask
    assert secrets.made == 0
