"""What is started ahead of a change is journalled and recorded like any other, and ended when nobody takes it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from idi.api.paths import make_private, paths_for
from idi.control.ahead import NAME, Ahead
from idi.control.settings import Settings
from idi.parts.clients.machine import this_machine
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.keys import KeyFolder, SetUp
from idi.parts.secrets.openbao.server import Places
from idi.parts.store.memory import MemoryStore
from idi.parts.targets.local.seats import Records
from tests.support.platform import alive


@dataclass
class Place:
    settings: Settings
    places: Places
    store: MemoryStore

    @property
    def records(self) -> Records:
        return Records(self.places.state / "parts", this_machine().boot())

    async def said(self) -> list[tuple[str, str]]:
        return [(entry.action, entry.subject) for entry in await self.store.entries()][1:]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A platform that was up before."""
    program = tmp_path / "bao"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o700)
    monkeypatch.setenv("IDI_BAO", str(program))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="idi-") as runtime:  # short: sockets are in it
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        paths = paths_for(tmp_path / "platform.yaml", "dev")
        for folder in (paths.state.parent, paths.state, paths.runtime, paths.logs, paths.keys):
            make_private(folder)
        places = Places(paths.state, paths.runtime, paths.keys)
        keys = KeyFolder(paths.keys)
        keys.make_seal_key()
        keys.keep_set_up(SetUp("cluster", "digest"))
        make_private(places.storage)
        (places.storage / "vault.db").write_bytes(b"")
        yield Place(Settings(paths, "dev", str(tmp_path), ahead=True), places, MemoryStore())


@pytest.mark.requirement("S5", "S6")
async def test_what_nobody_takes_is_ended(place: Place) -> None:
    async with Ahead(place.settings, place.store) as ahead:
        assert ahead.waiting
        pid = place.records.read()[NAME]["process"]["pid"]
        assert alive(pid)
        assert await place.said() == [("start", NAME)]
    assert not alive(pid)
    assert place.records.read() == {}
    assert await place.said() == [("start", NAME), ("stop", NAME)]


@pytest.mark.requirement("S5")
async def test_what_is_taken_goes_on(place: Place) -> None:
    async with Ahead(place.settings, place.store) as ahead:
        assert ahead.take()
        assert not ahead.take()
        assert not ahead.waiting
    pid = place.records.read()[NAME]["process"]["pid"]
    try:
        assert alive(pid)
        assert await place.said() == [("start", NAME)]
    finally:
        os.kill(pid, 9)


@pytest.mark.requirement("S6")
async def test_nothing_is_started_that_the_journal_does_not_take(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> int:
        raise PartError("The disk is full.")

    monkeypatch.setattr(place.store, "note", full)
    async with Ahead(place.settings, place.store) as ahead:
        assert not ahead.waiting
    assert place.records.read() == {}


@pytest.mark.requirement("S5")
async def test_only_where_it_opens_by_itself_and_nothing_is_left_over(place: Place) -> None:
    async def starts() -> bool:
        async with Ahead(place.settings, place.store) as ahead:
            return ahead.waiting

    place.records.write(NAME, {"role": "part", "process": {"pid": 1, "started": 1, "pending": False}})
    assert not await starts()  # somebody has to adopt that
    place.records.remove(NAME)
    place.places.socket.touch()
    assert not await starts()
    place.places.socket.unlink()
    (place.places.keys / "set-up.json").rename(place.places.keys / "aside")
    assert not await starts()
    (place.places.keys / "aside").rename(place.places.keys / "set-up.json")
    assert await starts()
