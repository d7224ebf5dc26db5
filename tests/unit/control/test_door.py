"""The gateway counts as ready when its proxy has its listeners, whatever was told of its process before."""

from __future__ import annotations

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


@dataclass
class OneProxy:
    """A target that runs parts and nothing else."""

    runs: list[str] = field(default_factory=list)

    async def run_part(self, spec: Any, before_start: Any) -> Any:
        self.runs.append(spec.name)
        return SimpleNamespace(alive=True, pid=7)


def a_door(target: OneProxy) -> Door:
    loop = Loop(
        RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: pytest.fail("nothing is declared"))
    )
    settings = SimpleNamespace(paths=SimpleNamespace(state=Path("/")), gateway_port=8080)
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
