"""An agent whose control goes, comes back, changes its certificate, and takes its pod out of rotation."""

import asyncio
import os
import signal
import time

import httpx
import pytest

from idi.traffic.types import GATEWAY
from tests.support.agent import cam, pod
from tests.support.envoy import Authority, mesh, until

pytestmark = pytest.mark.requirement("K1", "D1")


async def test_control_away_takes_nothing_down_and_hears_again_when_back() -> None:
    async with cam() as made:
        await made.door.close()
        await asyncio.sleep(0.5)
        assert (await made.ask("/ready"))[0] == 200
        made.kill_module()
        await until(lambda: "control: " in made.log)
        await asyncio.sleep(0.1)
        assert (await made.ask("/ready"))[0] == 503
        count = len(made.door.told)
        await made.door.open()
        began = time.monotonic()
        told = await made.door.until(ready=False, timeout_s=4)
        assert len(made.door.told) > count
        print(f"control back to report: {1000 * (told.at - began):.0f} ms")
        made.start_module()
        await made.until_ready()


async def test_a_control_that_was_restarted_hears_without_any_change() -> None:
    async with cam() as made:
        await asyncio.sleep(1.2)
        count = len(made.door.told)
        await made.door.close()
        await made.door.open()
        began = time.monotonic()
        await until(lambda: len(made.door.told) > count, 4)
        print(f"restarted control to report: {1000 * (made.door.last.at - began):.0f} ms")
        assert made.door.last.ready


async def test_a_refusal_is_tried_again_and_is_no_answer() -> None:
    async with cam(start=False) as made:
        made.door.status = 503
        made.start_agent()
        made.start_module()
        await made.door.until(ready=True, envoy="live")
        count = len(made.door.told)
        await until(lambda: len(made.door.told) > count, 6)
        await asyncio.sleep(0.5)
        assert len(made.door.told) - count < 10
        assert (await made.ask("/ready"))[0] == 503
        made.door.status = 200
        await made.until_ready()
        assert "control: it answers 503" in made.log


async def test_a_token_that_was_rotated_is_the_next_reports() -> None:
    async with cam() as made:
        assert made.door.last.token == "token-1"
        made.write_token("token-2")
        made.kill_module()
        await made.door.until(ready=False, token="token-2")
        assert "token-" not in made.log


async def test_a_control_that_cannot_be_trusted_gets_no_token() -> None:
    async with cam() as made:
        other = Authority("other")
        await made.door.close()
        made.door.certify(other, made.folder)
        await made.door.open()
        await until(lambda: "is not to be trusted" in made.log, 4)
        count = len(made.door.told)
        await asyncio.sleep(0.5)
        assert len(made.door.told) == count
        made.write_roots(other)  # the root is read again at each connect
        await until(lambda: len(made.door.told) > count, 4)


async def test_stopping_waits_for_the_barrier_and_loses_no_request() -> None:
    async with cam() as made:
        await made.mesh.proxy("jede-1")
        url = made.mesh.instances["jede-1"].url("cam")
        async with httpx.AsyncClient(timeout=10) as client:
            assert (await client.get(url + "/echo")).status_code == 200
            made.door.barrier.clear()
            async with asyncio.TaskGroup() as tasks:
                slow = tasks.create_task(client.get(url + "/slow?for=1500ms"))
                await asyncio.sleep(0.1)
                began = time.monotonic()
                stops = [tasks.create_task(made.ask("/stopping")) for _ in range(2)]
                await asyncio.sleep(0.4)
                assert not any(stop.done() for stop in stops)
                assert (await made.ask("/ready"))[0] == 503
                # Until every proxy has acknowledged, calls still come, and are answered.
                assert (await client.get(url + "/echo")).status_code == 200
                made.door.barrier.set()
                assert await stops[0] == (200, "stopped\n")
                assert await stops[1] == (200, "stopped\n")
                assert slow.done()
                assert (await slow).status_code == 200
            assert 1.3 < time.monotonic() - began < 5
            assert len(made.door.stopping) == 1
            # The module may still speak and be spoken to until it gets its SIGTERM.
            assert (await client.get(url + "/echo")).status_code == 200
        assert made.agent is not None
        made.agent.send_signal(signal.SIGTERM)
        assert await made.ended() == 0


async def test_a_drain_has_an_end() -> None:
    async with cam(start=False) as made:
        made.drain_s = 0.5
        made.start_agent()
        made.start_module()
        await made.until_ready()
        await made.mesh.proxy("jede-1")
        url = made.mesh.instances["jede-1"].url("cam")
        async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as tasks:
            slow = tasks.create_task(client.get(url + "/slow?for=3s"))
            await asyncio.sleep(0.2)
            began = time.monotonic()
            assert (await made.ask("/stopping"))[0] == 200
            assert 0.4 < time.monotonic() - began < 2.5
            assert "requests are still under way" in made.log
            slow.cancel()


async def test_with_control_away_it_is_drained_after_two_seconds() -> None:
    async with cam() as made:
        await made.door.close()
        began = time.monotonic()
        assert (await made.ask("/stopping"))[0] == 200
        assert 1.8 < time.monotonic() - began < 3.5
        assert "drained without control" in made.log


async def test_a_control_that_breaks_off_is_asked_again() -> None:
    async with cam() as made:
        made.door.barrier.clear()
        async with asyncio.TaskGroup() as tasks:
            stop = tasks.create_task(made.ask("/stopping"))
            await until(lambda: made.door.stopping)
            await made.door.close()
            made.door.barrier.set()
            await made.door.open()
            assert (await stop)[0] == 200
        assert len(made.door.stopping) == 2


async def test_a_gateways_pod() -> None:
    async with mesh() as m:
        m.edge()
        m.publish()
        async with pod(m, GATEWAY) as made:
            made.start_agent()
            await made.door.until(ready=True, reason="", envoy="live")
            await made.until_ready()
            os.kill(made.envoy(), signal.SIGKILL)
            await made.door.until(ready=False, envoy="down")
            await made.until_ready()
            assert m.gateway is not None
            door = f"http://127.0.0.1:{m.gateway.port}/healthz"
            async with httpx.AsyncClient() as client, asyncio.TaskGroup() as tasks:
                assert (await client.get(door)).status_code == 200
                began = time.monotonic()
                stop = tasks.create_task(made.ask("/stopping"))
                while not stop.done():  # whoever has not heard yet is served, and sent elsewhere
                    answer = await client.get(door)
                    assert answer.status_code == 200
                    await asyncio.sleep(0.05)
                assert answer.headers["connection"] == "close"
                assert (await stop)[0] == 200
            assert 2.5 < time.monotonic() - began < 10
            assert made.agent is not None
            made.agent.send_signal(signal.SIGTERM)
            assert await made.ended() == 0
