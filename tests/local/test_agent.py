"""What stands beside Envoy in a pod, with a real Envoy and a real module; control is a door that remembers."""

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from idi.parts.gateway.envoy.admin import Figures
from tests.support.agent import cam, children
from tests.support.envoy import until

pytestmark = pytest.mark.requirement("K1", "D1")


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_it_becomes_ready_and_says_what_it_waits_for() -> None:
    async with cam(start=False) as made:
        made.door.in_rotation = False
        made.token.unlink()
        made.start_agent()
        await until(lambda: "there is no" in made.log)
        assert await made.ask("/live") == (200, "live\n")
        assert (await made.ask("/ready"))[0] == 503
        assert made.envoy() == 0
        made.write_token("token-1")
        told = await made.door.until(ready=False, envoy="live")
        assert "waiting for /ready" in told.reason
        made.start_module()
        await made.door.until(ready=True, reason="", envoy="live", token="token-1")
        await asyncio.sleep(0.3)
        assert await made.ask("/ready") == (503, "waiting for control to let calls in\n")
        made.door.in_rotation = True
        began = time.monotonic()
        await made.until_ready()
        assert time.monotonic() - began < 2.5
        made.door.in_rotation = False  # sticky until the module becomes unready
        await asyncio.sleep(0.2)
        assert (await made.ask("/ready"))[0] == 200


async def test_a_killed_module_is_told_within_milliseconds_and_a_new_one_too() -> None:
    async with cam() as made:
        figures = []
        for _ in range(5):
            at = made.kill_module()
            told = await made.door.until(ready=False)
            figures.append(1000 * (told.at - at))
            assert "connection refused" in told.reason
            assert (await made.ask("/ready"))[0] == 503
            made.start_module()
            await made.door.until(ready=True)
            await made.until_ready()
            await asyncio.sleep(0.05)
        print(f"SIGKILL to report: {sorted(figures)[2]:.1f} ms, at most {max(figures):.1f} ms")
        assert sorted(figures)[2] < 300  # questions alone would take seconds


async def test_a_killed_envoy_is_told_and_started_again() -> None:
    async with cam() as made:
        first = made.envoy()
        os.kill(first, signal.SIGKILL)
        await made.door.until(envoy="down", ready=True)
        await made.door.until(envoy="live")
        second = made.envoy()
        assert second not in (0, first)
        await made.until_ready()
        assert "Envoy was killed by SIGKILL; it is started again" in made.log


@pytest.mark.requirement("O1", "K1")
async def test_figures_are_what_envoy_counted_and_cost_little() -> None:
    async with cam() as made:
        status, text = await made.ask("/figures")
        assert status == 200
        assert Figures.of(json.loads(text)) == Figures()
        took: dict[str, list[float]] = {"/figures": [], "/metrics": []}
        for _ in range(10):
            for path, each in took.items():
                began = time.monotonic()
                status, text = await made.ask(path)
                each.append(1000 * (time.monotonic() - began))
                assert (status, len(text) < 200) == (200, path == "/figures")
        print({path: f"{sorted(each)[5]:.1f} ms" for path, each in took.items()})
        os.kill(made.envoy(), signal.SIGSTOP)
        assert await made.ask("/figures") == (503, "Envoy has no figures\n")
        os.kill(made.envoy(), signal.SIGCONT)


async def test_sigterm_ends_everything_in_time() -> None:
    async with cam() as made:
        assert made.agent is not None
        envoy, began = made.envoy(), time.monotonic()
        made.agent.send_signal(signal.SIGTERM)
        assert await made.ended() == 0
        assert time.monotonic() - began < 5
        assert len(made.door.stopping) == 1  # it still served, so it was taken out first
        assert not running(envoy)


async def test_a_killed_agent_leaves_no_envoy_behind() -> None:
    async with cam() as made:
        assert made.agent is not None
        envoy = made.envoy()
        assert running(envoy)
        made.agent.kill()
        made.agent.wait()
        await until(lambda: not running(envoy), 3)


def leave_an_orphan(first: int) -> None:
    """A process in the pid namespace of that one, whose parent ends before it."""
    command = ["nsenter", "-t", str(first), "-p", "/bin/sh", "-c", "sleep 0.2 & echo"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace needs root")
async def test_as_the_first_process_it_collects_orphans_and_obeys() -> None:
    async with cam(start=False) as made:
        made.start_agent("unshare", "--pid", "--fork", "--kill-child")
        assert made.agent is not None
        await made.door.until(envoy="live")
        (first,) = children(made.agent.pid)
        (envoy,) = children(first)
        leave_an_orphan(first)
        await until(lambda: len(children(first)) == 2, 2)  # it is the agent's now
        await until(lambda: children(first) == [envoy], 2)
        os.kill(first, signal.SIGTERM)
        assert await made.ended() == 0
        assert not running(envoy)


async def test_a_readiness_by_command_is_refused_with_a_reason() -> None:
    async with cam(start=False) as made:
        made.readiness = {"http": "", "command": "pg_isready"}
        made.start_agent()
        told = await made.door.until(envoy="live")
        assert not told.ready
        assert "command 'pg_isready', which cannot be run from another container" in told.reason


async def test_the_metrics_are_envoys() -> None:
    async with cam() as made:
        status, text = await made.ask("/metrics")
        assert status == 200
        assert "envoy_server_uptime" in text
        assert (await made.ask("/stats"))[0] == 404
        async with httpx.AsyncClient() as client:
            assert (await client.post(made.url + "/stopping")).status_code == 404
        assert made.door.stopping == []
