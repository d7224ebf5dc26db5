"""The token that Envoy gets: whole, for nobody else, and the last good one where there is none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from idi.agent import token
from idi.agent.token import Token
from idi.parts.gateway.envoy.arguments import TOKEN_FILE

pytestmark = pytest.mark.requirement("S4", "K1")


def handed_on(folder: Path) -> str:
    [secret] = json.loads((folder / TOKEN_FILE).read_bytes())["resources"]
    return str(secret["generic_secret"]["secret"]["inline_string"])


def test_it_is_handed_on_when_it_changed(tmp_path: Path) -> None:
    source, made = tmp_path / "token", Token(tmp_path / "token")
    source.write_text("first\n")
    made.hand_on(tmp_path)
    assert handed_on(tmp_path) == "first"
    about = (tmp_path / TOKEN_FILE).stat()
    assert about.st_mode & 0o777 == 0o600
    made.hand_on(tmp_path)
    assert (tmp_path / TOKEN_FILE).stat().st_ino == about.st_ino, "the same is not written again"
    for nothing in (b"\xff", None):
        if nothing is None:
            source.unlink()
        else:
            source.write_bytes(nothing)
        made.hand_on(tmp_path)
        assert handed_on(tmp_path) == "first"


async def test_it_is_looked_at_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "LOOK_S", 0.01)
    source = tmp_path / "token"
    source.write_text("first")
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(Token(source).keep(tmp_path))
        for word in ("first", "second"):
            source.write_text(word)
            await asyncio.sleep(0.1)
            assert handed_on(tmp_path) == word
        keeping.cancel()
