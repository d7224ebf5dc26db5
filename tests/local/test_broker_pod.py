"""The broker's accounts as they come into its pod: a real NATS server, whose file a played kubelet writes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error

from idi.control.bus.pod import BrokerPod
from idi.control.trust.caller import Caller
from idi.parts.bus.nats.config import Login, render
from idi.parts.clients.kubernetes import Kubernetes
from idi.parts.errors import PartError
from idi.world.events import InstanceSeen
from idi.world.fold import fold
from idi.world.types import World
from tests.support.buses import NatsStage
from tests.support.worlds import instance

pytestmark = [pytest.mark.requirement("B1", "K1"), pytest.mark.asyncio]

BUS = instance("bus", 1, "aaaa")
ORDERS = Login("orders", (("orders", "of-orders"),), ("order.placed",))
WEB = Login("web", (("web", "of-web"),), ("web.seen",))
LOOKS_AFTER_S = 0.4


class Kubelet:
    """The API server and the kubelet of one pod: a Secret comes into it once the pod was touched."""

    def __init__(self, file: Path) -> None:
        self.file, self.secret, self.touched, self.down = file, "", 0, ""

    async def apply(self, _path: str, document: dict[str, Any], *, force: bool) -> None:
        assert force
        if self.down:
            raise PartError(self.down)
        self.secret = base64.b64decode(document["data"]["nats.conf"]).decode()

    async def patch(self, path: str, changes: dict[str, Any]) -> None:
        assert path.endswith("/pods/bus-1")
        assert changes["metadata"]["annotations"]
        self.touched += 1
        asyncio.get_running_loop().call_later(LOOKS_AFTER_S, self.file.write_text, self.secret)


class Here(BrokerPod):
    """Without the mesh between the two."""

    port = 0

    def reach(self) -> tuple[str, Any]:
        return f"nats://127.0.0.1:{self.port}", None


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[tuple[Here, Kubelet, NatsStage]]:
    async with NatsStage(folder, {"orders": ORDERS}) as stage:
        kubelet = Kubelet(folder / "nats.conf")
        world, _ = fold(World(), InstanceSeen(BUS))
        pod = Here(
            cast(Kubernetes, kubelet),
            "shop",
            lambda: world,
            Caller(),
            lambda: "spiffe://bus",
            "watch-password",
        )
        pod.port = stage.port
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(pod.keep())
            yield pod, kubelet, stage
            keeping.cancel()


def text(*logins: Login) -> str:
    return render((("idi", "idi-password"),), "watch-password", {one.module: one for one in logins})


async def logs_in(stage: NatsStage, login: Login, **more: Any) -> Client:
    user, password = login.users[0]
    return await nats.connect(
        f"nats://127.0.0.1:{stage.port}", user=user, password=password, allow_reconnect=False, **more
    )


async def test_a_login_is_good_once_it_is_taken_and_nobody_else_is_disconnected(tmp_path: Path) -> None:
    lost: list[str] = []

    async def gone() -> None:
        lost.append("gone")

    async with staged(tmp_path) as (pod, kubelet, stage):
        mine = await logs_in(stage, ORDERS, disconnected_cb=gone)
        with pytest.raises(Error):
            await logs_in(stage, WEB, max_reconnect_attempts=0)
        pod.take(text(ORDERS, WEB))
        async with asyncio.timeout(5):
            await pod.taken()
        assert '"user": "web"' in kubelet.secret
        await (await logs_in(stage, WEB)).close()
        pod.take(text(ORDERS, WEB))
        await pod.taken()
        assert (kubelet.touched, lost) == (1, []), "the same again is nothing to do"
        pod.take(text(ORDERS))
        async with asyncio.timeout(5):
            await pod.taken()
        with pytest.raises(Error):
            await logs_in(stage, WEB, max_reconnect_attempts=0)
        assert lost == []
        await mine.close()


async def test_what_comes_meanwhile_is_what_holds(tmp_path: Path) -> None:
    async with staged(tmp_path) as (pod, _, stage):
        pod.take(text(ORDERS))
        await asyncio.sleep(LOOKS_AFTER_S / 2)
        pod.take(text(WEB))
        async with asyncio.timeout(10):
            await pod.taken()
        await (await logs_in(stage, WEB)).close()
        with pytest.raises(Error):
            await logs_in(stage, ORDERS, max_reconnect_attempts=0)


async def test_an_api_server_that_is_away_is_tried_again(tmp_path: Path) -> None:
    async with staged(tmp_path) as (pod, kubelet, _):
        kubelet.down = "The API server does not answer."
        pod.take(text(ORDERS, WEB))
        await asyncio.sleep(0.3)
        assert not kubelet.secret
        kubelet.down = ""
        async with asyncio.timeout(5):
            await pod.taken()
        assert '"user": "web"' in kubelet.secret


async def test_a_bus_that_comes_back_is_asked_to_read_once_more_and_needs_no_touch(tmp_path: Path) -> None:
    async with staged(tmp_path) as (pod, kubelet, stage):
        pod.take(text(ORDERS, WEB))
        async with asyncio.timeout(5):
            await pod.taken()
        read = (stage.folder / "log").read_text().count("Reloaded server configuration")
        pod.hear(InstanceSeen(replace(BUS, state="starting")))
        pod.hear(InstanceSeen(BUS))
        for _ in range(100):
            if (stage.folder / "log").read_text().count("Reloaded server configuration") > read:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("not asked again")
        assert kubelet.touched == 1
