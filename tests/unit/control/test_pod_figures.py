"""Figures asked of agents: in time, bounded, and believed only where they are figures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from idi.control.cluster import figures as module
from idi.control.cluster.figures import PodFigures
from idi.control.figures import Figures, Sample, views
from idi.declaration.types import ModuleName
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.admin import Figures as Counted
from idi.world.types import Instance, InstanceId, ModuleWorld, RevisionId, World

pytestmark = pytest.mark.requirement("O1", "K1")

POD = Instance(
    InstanceId("jede-a"),
    ModuleName("jede"),
    RevisionId("1"),
    "ready",
    "127.0.0.1",
    {},
    {},
    {},
    0.0,
    node="n1",
)
COUNTED = Counted(10, 1, 2, 1.5, 2.5, 3.5)


@asynccontextmanager
async def agent(body: str, status: int = 200, wait_s: float = 0.0) -> AsyncIterator[PodFigures]:
    async def figures(_: web.Request) -> web.Response:
        await asyncio.sleep(wait_s)
        return web.Response(text=body, status=status)

    app = web.Application()
    app.router.add_get("/figures", figures)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield PodFigures(session, port=runner.addresses[0][1], answer_s=0.5)
    finally:
        await runner.cleanup()


async def test_an_agents_figures_are_what_its_proxy_counted() -> None:
    async with agent(json.dumps(COUNTED.document())) as reading:
        assert await reading.read(POD) == COUNTED


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{}", 200),
        ("[]", 200),
        ("no", 200),
        (json.dumps(COUNTED.document()), 503),
        (json.dumps({**COUNTED.document(), "requests": None}), 200),
        (json.dumps({**COUNTED.document(), "more": "x" * 5000}), 200),
    ],
)
async def test_what_is_no_figures_is_left_out(body: str, status: int) -> None:
    async with agent(body, status) as reading:
        with pytest.raises(PartError, match="jede-a tells no figures"):
            await reading.read(POD)


async def test_a_pod_without_an_address_or_an_answer_is_left_out_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many they are: who has not answered at the end of one time is left out, asked or not."""
    monkeypatch.setattr(module, "BESIDE", 2)
    async with agent("{}", wait_s=3) as reading:
        with pytest.raises(PartError, match="no address"):
            await reading.read(replace(POD, address=""))
        pods = {InstanceId(f"jede-{n}"): replace(POD, id=InstanceId(f"jede-{n}")) for n in range(10)}
        began = time.monotonic()
        assert await Figures(reading.read).look(world(pods)) == {}
        assert time.monotonic() - began < 1.5


def world(pods: Mapping[InstanceId, Instance]) -> World:
    return World({ModuleName("jede"): ModuleWorld(instances=pods)})


def test_rates_are_of_pods_that_were_there_before_and_have_not_begun_anew() -> None:
    pods = {InstanceId(name): replace(POD, id=InstanceId(name)) for name in ("a", "b", "c")}
    before = Sample(10.0, {"a": COUNTED, "b": replace(COUNTED, requests=500)})
    after = Sample(
        12.0, {"a": replace(COUNTED, requests=30, failed=3), "b": replace(COUNTED, requests=5), "c": COUNTED}
    )
    [figures] = views(world(pods), before, after).values()
    assert (figures["requests_per_s"], figures["errors_ratio"], figures["denied"]) == (10.0, 0.1, 6)
