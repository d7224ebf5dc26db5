"""Facts reach the proxies in one turn of the event loop, and cost what they concern."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from idi.control.loop import Edge, Loop
from idi.control.retiring import Retiring
from idi.declaration.types import LocalTarget, Module, ModuleName, Platform, Route
from idi.parts.gateway.interface import DataPlane
from idi.traffic.types import Assignment, EmbeddedKeys
from idi.world.events import InstanceDied, InstanceReady, InstanceSeen, InstanceStopping, RevisionEnsured
from idi.world.invariants import validate
from tests.support.planes import RememberingPlane
from tests.support.worlds import instance, spec

CAM, JEDE = ModuleName("cam"), ModuleName("jede")
KEYS = EmbeddedKeys("http://127.0.0.1:8080", "junzi", "{}", "/run/issuer")
SHOP = Platform(
    name="shop",
    environment="dev",
    target=LocalTarget(),
    modules={JEDE: Module(JEDE, calls=("cam",), routes=(Route("/v1/jede/"),)), CAM: Module(CAM)},
)


def a_loop(plane: DataPlane) -> Loop:
    return Loop(plane, Edge("127.0.0.1", 8080, lambda platform: KEYS))


async def turn() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def with_one_ready() -> tuple[Loop, RememberingPlane]:
    plane = RememberingPlane()
    loop = a_loop(plane)
    loop.declare(SHOP)
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), 1))
    loop.emit(InstanceSeen(instance("cam", 1, "aaaa", "starting")))
    loop.emit(InstanceReady(CAM, instance("cam", 1, "aaaa").id, 1.0))
    await turn()
    validate(loop.world)
    return loop, plane


async def test_a_burst_of_facts_is_one_push() -> None:
    _, plane = await with_one_ready()
    assert [name for name, _ in plane.calls] == ["traffic"]


@pytest.mark.requirement("D1")
async def test_a_death_pushes_the_endpoints_of_one_module_and_nothing_else() -> None:
    loop, plane = await with_one_ready()
    plane.calls.clear()
    loop.emit(InstanceDied(CAM, instance("cam", 1, "aaaa").id, 2.0, "killed"))
    await turn()
    assert plane.calls == [("endpoints", Assignment("cam", ()))]


async def test_the_whole_view_is_made_again_only_for_other_ports() -> None:
    """An instance that starts is told of again with every new reason."""
    loop, plane = await with_one_ready()
    plane.calls.clear()
    starting = instance("cam", 1, "aaaa", "starting")
    loop.emit(InstanceSeen(replace(starting, reason="connection refused")))
    await turn()
    assert plane.calls == [("endpoints", Assignment("cam", ()))]
    loop.emit(InstanceSeen(replace(starting, mesh={"http": 29000})))
    await turn()
    assert [name for name, _ in plane.calls[1:]] == ["traffic"]


async def test_flush_pushes_now() -> None:
    loop, plane = await with_one_ready()
    plane.calls.clear()
    loop.emit(InstanceStopping(CAM, instance("cam", 1, "aaaa").id, 2.0))
    loop.flush()
    assert plane.calls == [("endpoints", Assignment("cam", ()))]
    await turn()
    assert len(plane.calls) == 1


async def test_a_view_that_cannot_be_made_keeps_the_last_good_one_and_holds_up_no_fact() -> None:
    loop, plane = await with_one_ready()
    plane.calls.clear()

    def no_keys(platform: Platform) -> EmbeddedKeys:
        raise KeyError("keys")

    good, loop.edge.issuer = loop.edge.issuer, no_keys
    loop.declare(SHOP)
    loop.emit(InstanceDied(CAM, instance("cam", 1, "aaaa").id, 2.0, "killed"))
    assert await loop.wait(lambda world: not any(i.state == "ready" for i in world.instances()), 5.0)
    await turn()
    assert plane.calls == [("endpoints", Assignment("cam", ()))]
    assert loop.fault == "KeyError: 'keys'"
    loop.edge.issuer = good
    loop.emit(InstanceReady(CAM, instance("cam", 1, "aaaa").id, 3.0))
    await turn()
    assert [name for name, _ in plane.calls[1:]] == ["traffic"]
    assert not loop.fault


async def test_an_instance_goes_whatever_its_proxy_answers() -> None:
    async def no_json(node: str, deadline_s: float) -> None:
        raise ValueError("no JSON")

    loop, plane = await with_one_ready()
    plane.calls.clear()
    await Retiring(loop, plane, no_json).retire(instance("cam", 1, "aaaa"))
    assert [name for name, _ in plane.calls] == ["barrier"]


async def test_waiting_ends_with_the_event_that_fulfils_it() -> None:
    loop, _ = await with_one_ready()

    def dead() -> bool:
        return all(i.state != "ready" for i in loop.world.instances())

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(loop.wait(lambda world: dead(), 5.0))
        await turn()
        assert not waiting.done()
        loop.emit(InstanceDied(CAM, instance("cam", 1, "aaaa").id, 2.0, "killed"))
    assert waiting.result() is True
    assert await loop.wait(lambda world: not dead(), 0.01) is False
