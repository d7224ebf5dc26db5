"""Control's path from a fact to the proxies, in a process of its own as it has in a platform: the real loop and the
real plane, with a world that is told instead of lived. `propagation` starts it and asks it, a line for a line:

    {"do": "flip"}   the one ready instance of the target changes: the time of it, and when all had acknowledged
    {"do": "view"}   the whole view computed and compared again: how long that took
    {"do": "facts"}  what this process has used so far
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figure import cpu_seconds, memory_mb
from idi.control.loop import Edge, Loop
from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName
from idi.parts.clients.collector import quiet_collector
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.traffic.types import EmbeddedKeys
from idi.world.events import InstanceReady, InstanceSeen, InstanceUnready
from idi.world.types import Instance, InstanceId, InstanceState, RevisionId
from tests.support.envoy import Authority, Tokens

DECLARATION = """\
platform: bench
modules:
  target: {run: "true"}
  caller: {run: "true", calls: [target]}
"""
TARGET, CALLER = ModuleName("target"), ModuleName("caller")
BARRIER_S = 10.0


def credential(node: str) -> str:
    return f"credential-of-{node}"


async def node_of(token: str) -> str | None:
    return token.removeprefix("credential-of-") if token.startswith("credential-of-") else None


class Control:
    """`wanted` is the order: where the socket is, and every instance with its ports."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        loaded = load(DECLARATION, file="bench.yaml", environment="dev")
        assert isinstance(loaded, Loaded), loaded
        self.platform = loaded.platform
        self.wanted = wanted
        self.plane = EnvoyPlane(Path(wanted["socket"]), node_of)
        keys = EmbeddedKeys("https://issuer.test", "bench", Tokens().jwks, f"{wanted['socket']}.issuer")
        self.loop = Loop(self.plane, Edge("127.0.0.1", wanted["gateway"], lambda _platform: keys))
        self.ready = 0

    async def run(self, next_line: Callable[[], Any]) -> None:
        async with self.plane:
            quiet_collector()
            self.loop.declare(self.platform)
            for index, ports in enumerate(self.wanted["targets"]):
                self.see(TARGET, index, "ready" if index == 0 else "unready", ports, {})
            for index, ports in enumerate(self.wanted["callers"]):
                self.see(CALLER, index, "ready", ports, {"target": ports["outbound"]})
            self.loop.flush()
            if self.wanted["certificates"]:
                self.certify()
            answer({"ready": True})
            while line := await next_line():
                order = json.loads(line)
                if order["do"] == "flip":
                    answer(await self.flip())
                elif order["do"] == "view":
                    answer(self.view())
                else:
                    answer(self.facts())

    def see(
        self, module: ModuleName, index: int, state: InstanceState, ports: dict[str, int], out: dict[str, int]
    ) -> None:
        instance = Instance(
            id=InstanceId(f"{module}-{index + 1}"),
            module=module,
            revision=RevisionId("r1"),
            state=state,
            address="127.0.0.1",
            ports={"http": ports["app"]},
            mesh={"http": ports["mesh"]},
            outbound=out,
            since=0.0,
        )
        self.loop.emit(InstanceSeen(instance))

    def certify(self) -> None:
        authority = Authority()
        for instance in self.loop.world.instances():
            self.plane.set_identity(
                instance.id, authority.issue(self.platform.identity(ModuleName(instance.module)))
            )

    async def flip(self) -> dict[str, Any]:
        before, self.ready = self.ready, 1 - self.ready
        begun = time.monotonic()
        self.loop.emit(InstanceReady(TARGET, InstanceId(f"target-{self.ready + 1}"), 0.0))
        self.loop.emit(InstanceUnready(TARGET, InstanceId(f"target-{before + 1}"), 0.0, "flipped"))
        self.loop.flush()
        pushed = time.monotonic()
        result = await self.plane.barrier(BARRIER_S)
        return {
            "begun": begun,
            "pushed": pushed,
            "acknowledged": time.monotonic(),
            "by": len(result.acknowledged),
            "lost": len(result.lost),
            "ready": self.ready,
            "number": str(self.plane._seq),  # it is the nonce of what was sent
        }

    def view(self) -> dict[str, float]:
        self.loop.republish()
        begun = time.monotonic()
        self.loop.flush()
        return {"seconds": time.monotonic() - begun}

    def facts(self) -> dict[str, Any]:
        connected = self.plane.connected()
        return {
            "nodes": sum(connected.values()),
            "cpu": cpu_seconds(["self"]),
            "pss": memory_mb("self"),
            "rss": memory_mb("self", "Rss"),
        }


def answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    order = json.loads(await reader.readline())
    await Control(order).run(reader.readline)


if __name__ == "__main__":
    asyncio.run(main())
