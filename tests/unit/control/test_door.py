"""The gateway counts as ready when its proxy has its listeners, whatever was told of its process before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idi.control import door as module
from idi.control.door import Door
from idi.control.loop import Edge, Loop
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.start import ProxyStart
from idi.traffic.types import GATEWAY
from idi.world.events import PartChanged
from tests.support.planes import RememberingPlane
from tests.support.platform import free_port


@dataclass
class OneProxy:
    """A target that runs parts and nothing else."""

    runs: list[str] = field(default_factory=list)

    async def run_part(self, spec: Any, before_start: Any) -> Any:
        self.runs.append(spec.name)
        return SimpleNamespace(alive=True, pid=7)


def a_door(target: OneProxy, port: int = 0) -> Door:
    loop = Loop(
        RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: pytest.fail("nothing is declared"))
    )
    settings = SimpleNamespace(
        paths=SimpleNamespace(state=Path("/")), gateway_address="127.0.0.1", gateway_port=port or free_port()
    )
    identities = SimpleNamespace(add=lambda *_: None, remove=lambda *_: None)
    make = lambda: ProxyStart(("envoy",))  # noqa: E731
    return Door(settings, target, loop, identities, make, Path("/dev/null"))  # type: ignore[arg-type]


async def test_it_is_ready_again_after_its_process_was_told_to_be_starting() -> None:
    """The end of a crash loop is told as "starting", when its proxy has served for some time."""
    target = OneProxy()
    door = a_door(target)
    door.ready(True)  # the proxy came back before its process was adopted
    await door.start()
    door.loop.emit(PartChanged(GATEWAY, "starting", 2.0, 7))
    await door.start()
    assert door.loop.world.parts[GATEWAY].state == "ready"
    assert target.runs == [GATEWAY]


async def test_without_listeners_it_says_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_S", 0.01)
    door = a_door(OneProxy())
    with pytest.raises(PartError, match="waiting for its listeners"):
        await door.start()


async def test_one_that_accepts_connections_is_ready_whatever_it_can_be_told() -> None:
    """Adopted after a restart of control, while no certificate can be had: it serves by the one it holds."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        door = a_door(OneProxy(), server.sockets[0].getsockname()[1])
        await door.start()
        assert door.loop.world.parts[GATEWAY].state == "ready"
