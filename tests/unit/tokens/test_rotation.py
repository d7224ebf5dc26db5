"""The issuer as control holds it, under a clock of the test's own."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from idi.declaration.types import Client
from idi.parts.clients import private_file
from idi.parts.errors import PartError, Refused
from idi.parts.tokens.embedded.http import KEYS_MAX_AGE_S
from idi.parts.tokens.embedded.issuer import OPERATOR_LIFE_LIMIT_S
from idi.parts.tokens.embedded.service import LEAD_S, ROTATE_EVERY_S, EmbeddedTokens

pytestmark = pytest.mark.requirement("S3")


class Stage:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.now = 1_800_000_000.0
        self.told: list[str] = []
        self.tokens = self.open()

    def open(self) -> EmbeddedTokens:
        return EmbeddedTokens(
            self.base / "keys",
            self.base / "issuer.sock",
            "http://127.0.0.1:8080",
            "shop",
            clients={"pilot": Client("pilot", ("a",))},
            token_life_s=300,
            keys_changed=self.told.append,
            clock=lambda: self.now,
        )

    def kids(self) -> list[str]:
        return [key["kid"] for key in json.loads(self.tokens.jwks())["keys"]]

    def signs_with(self) -> str:
        head = self.tokens.mint("operator:ann", ["a"], 60).access_token.partition(".")[0]
        return str(json.loads(base64.urlsafe_b64decode(head + "=="))["kid"])


@pytest.fixture
def on(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_nobody_who_caches_the_key_set_meets_an_unknown_key() -> None:
    assert LEAD_S >= 2 * KEYS_MAX_AGE_S


def test_a_rotation_from_end_to_end(on: Stage) -> None:
    first = on.signs_with()
    begins = on.tokens.rotate()
    assert begins == on.now + LEAD_S
    assert len(on.kids()) == 2
    assert on.told == [on.tokens.jwks()]
    assert on.signs_with() == first
    with pytest.raises(Refused):
        on.tokens.rotate()

    on.now = begins
    second = on.signs_with()
    assert second != first
    on.now += OPERATOR_LIFE_LIMIT_S  # the last token of the first key has just ended
    on.tokens.look()
    assert sorted(on.kids()) == sorted([first, second])
    on.now += 120
    on.tokens.look()
    assert on.kids() == [second]
    assert on.told[-1] == on.tokens.jwks()
    assert len(on.told) == 2
    assert first not in (on.base / "keys" / "issuer-keys.json").read_text()


def test_keys_survive_a_restart_in_the_middle_of_a_rotation(on: Stage) -> None:
    begins = on.tokens.rotate()
    before = on.tokens.jwks()
    on.tokens = on.open()
    assert on.tokens.jwks() == before
    on.now = begins
    assert on.signs_with() in on.kids()


def test_keys_rotate_by_themselves_in_time(on: Stage) -> None:
    for _ in range(3):
        on.now += ROTATE_EVERY_S + LEAD_S
        on.tokens.look()
        on.tokens.look()
    assert len(on.kids()) == 2


def test_after_a_leak_every_key_is_replaced_at_once(on: Stage) -> None:
    first = on.signs_with()
    on.tokens.rotate()
    on.tokens.replace()
    assert on.kids() == [on.signs_with()]
    assert on.signs_with() != first
    assert on.told[-1] == on.tokens.jwks()


def test_a_longer_token_life_keeps_the_keys_that_are_on_their_way_out(on: Stage) -> None:
    begins = on.tokens.rotate()
    on.tokens.declare({}, 86400.0)
    on.now = begins + 80000
    on.tokens.look()
    assert len(on.kids()) == 2


def test_a_full_disk_stops_rotation_and_not_tokens(on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(private_file, "write", full)
    first = on.signs_with()
    with pytest.raises(PartError, match="No space left"):
        on.tokens.rotate()
    with pytest.raises(PartError, match="No space left"):
        on.tokens.new_secret("pilot")
    on.now += ROTATE_EVERY_S
    on.tokens.look()
    assert "No space left" in on.tokens.warning
    assert on.kids() == [first] == [on.signs_with()]
    monkeypatch.undo()
    on.tokens.look()
    assert on.tokens.warning == ""
    assert len(on.kids()) == 2


async def test_leaving_stops_serving_and_keeps_the_bodys_own_error(on: Stage) -> None:
    async def live() -> None:
        async with on.tokens:
            assert on.tokens.socket.is_socket()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await live()
    assert not on.tokens.socket.exists()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
