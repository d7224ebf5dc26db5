"""The API's server: what it answers at once, and who can reach it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from idi.api.client import Answered, Client
from idi.api.server import serve
from idi.api.types import ChangeRequest, LogsRequest, LogView, Progress, SecretsView
from idi.parts.clients.machine import Peer
from idi.parts.errors import Refused


class Slow:
    """A control whose changes wait for their turn; `down` it refuses."""

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self.asked: LogsRequest | None = None

    async def change(self, request: ChangeRequest, peer: Peer) -> AsyncIterator[Progress]:
        if request["action"] == "down":
            raise Refused("Not now.", "Later.")
        return self._progress()

    async def list_secrets(self) -> SecretsView:
        return {"secrets": []}

    async def logs(self, request: LogsRequest) -> AsyncGenerator[LogView | None]:
        if request["sources"] == ["nobody"]:
            raise Refused("Nobody is there.")
        return self._lines(request)

    async def _lines(self, request: LogsRequest) -> AsyncGenerator[LogView | None]:
        self.asked = request
        try:
            yield {"type": "line", "time": "", "source": "jede-1", "module": "jede", "line": "hello"}
            while request["follow"]:
                await asyncio.sleep(0.01)
                yield None
        finally:
            self.turn.set()

    async def _progress(self) -> AsyncIterator[Progress]:
        await self.turn.wait()
        yield {"type": "done", "ok": True}


async def test_a_change_that_has_to_wait_is_answered_at_once(tmp_path: Path) -> None:
    control, path = Slow(), tmp_path / "control"
    async with serve(control, path):  # type: ignore[arg-type]
        client = Client(str(path), timeout=5.0)
        stream = await asyncio.to_thread(client.change, {"action": "restart", "modules": ["cam"]})
        control.turn.set()
        assert await asyncio.to_thread(list, stream) == [{"type": "done", "ok": True}]
        stream.close()
        with pytest.raises(Answered, match="Not now"):
            await asyncio.to_thread(client.change, {"action": "down"})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokens", {"ttl_s": "soon"}),
        ("/v1/tokens", {"scopes": "jede.read"}),
        ("/v1/tokens", {"scopes": [["jede.read"]]}),
        ("/v1/tokens", {"client": 7}),
        ("/v1/changes", {"action": "restart", "modules": [["cam"]]}),
        ("/v1/changes", {"action": "scale", "modules": [1]}),
        ("/v1/changes", {"action": "config", "module": "cam", "set": {"A": None}, "unset": [], "expect": 0}),
        ("/v1/changes", {"action": "config", "module": "cam", "set": {}, "unset": [1], "expect": 0}),
        ("/v1/changes", {"action": "config", "module": "cam", "set": {"A": "b"}, "unset": []}),
        ("/v1/changes", {"action": ["down"]}),
        ("/v1/changes", ["down"]),
        ("/v1/changes", {"action": "secret", "path": ["jede"]}),
        ("/v1/changes", {"action": "secret", "path": "jede", "value": 7}),
    ],
)
async def test_what_is_no_request_is_said_to_be_none(tmp_path: Path, path: str, body: object) -> None:
    async with serve(Slow(), tmp_path / "control"):  # type: ignore[arg-type]
        client = Client(str(tmp_path / "control"), timeout=5.0)
        with pytest.raises(Answered) as caught:
            await asyncio.to_thread(client.ask, "POST", path, body)
        assert caught.value.problem["status"] == 400


@pytest.mark.requirement("T4")
async def test_what_is_about_secrets_is_kept_by_nobody(tmp_path: Path) -> None:
    control = Slow()
    control.turn.set()
    secret = {"action": "secret", "path": "jede/key", "value": "eA=="}
    async with serve(control, tmp_path / "control"):  # type: ignore[arg-type]
        connector = aiohttp.UnixConnector(str(tmp_path / "control"))
        async with aiohttp.ClientSession("http://control", connector=connector) as client:
            for answer in (await client.get("/v1/secrets"), await client.post("/v1/changes", json=secret)):
                assert answer.status == 200
                assert answer.headers["cache-control"] == "no-store"


@pytest.mark.requirement("S4")
async def test_the_socket_is_its_owners_alone_and_making_it_disturbs_nobody(tmp_path: Path) -> None:
    """The mask of a process is everybody's: a folder that is made meanwhile must come out right."""
    before = os.umask(0o022)
    made: list[int] = []

    async def others() -> None:
        for number in range(1000):
            folder = tmp_path / str(number)
            folder.mkdir(mode=0o755)
            made.append(stat.S_IMODE(folder.stat().st_mode))
            await asyncio.sleep(0)

    try:
        async with asyncio.TaskGroup() as tasks:
            other = tasks.create_task(others())
            await asyncio.sleep(0)
            async with serve(Slow(), tmp_path / "control"):  # type: ignore[arg-type]
                assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o600
            other.cancel()
    finally:
        os.umask(before)
    assert set(made) == {0o755}
    assert not (tmp_path / "control").exists()


@pytest.mark.requirement("O2")
async def test_logs_are_asked_for_in_numbers_and_a_follower_that_goes_is_noticed(tmp_path: Path) -> None:
    control = Slow()
    async with serve(control, tmp_path / "control"):  # type: ignore[arg-type]
        client = Client(str(tmp_path / "control"), timeout=5.0)
        for wrong in ("tail=-1", "tail=x", "since=nan", "since=1e300", "&".join(["source=a"] * 101)):
            with pytest.raises(Answered) as caught:
                await asyncio.to_thread(client.stream, "GET", f"/v1/logs?{wrong}")
            assert caught.value.problem["status"] == 400
        with pytest.raises(Answered, match="Nobody is there"):
            await asyncio.to_thread(client.stream, "GET", "/v1/logs?source=nobody")
        asked = "/v1/logs?source=jede&source=cam&tail=3&since=1.5"
        stream = await asyncio.to_thread(client.stream, "GET", asked)
        assert [line["line"] for line in await asyncio.to_thread(list, stream)] == ["hello"]
        assert control.asked == {"sources": ["jede", "cam"], "tail": 3, "since": 1.5, "follow": False}
        control.turn.clear()
        stream = await asyncio.to_thread(client.stream, "GET", "/v1/logs?follow=1")
        await asyncio.sleep(0.05)
        assert not control.turn.is_set()
        stream.close()
        async with asyncio.timeout(5):
            await control.turn.wait()
