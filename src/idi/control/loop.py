"""Facts go straight to the proxies: event -> fold -> traffic -> one push.

There is no queue in between. Whoever sees a fact (a pidfd, a probe, the data plane) runs on this event
loop and calls `emit`, which folds at once: folding is pure and takes microseconds, so nothing can pile
up and nothing needs a bound or a policy when full. Only the push is put off to the end of the current
turn of the event loop (`flush`), so that a burst of facts costs one message per proxy.

Two speeds: a birth or death recomputes the endpoints of one module; only a new or vanished instance
(new ports, another sidecar) or a new declaration recomputes the whole view.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from idi.declaration.types import ExternalIssuer, ModuleName, Platform
from idi.parts.gateway.interface import DataPlane
from idi.traffic.types import GATEWAY, EmbeddedKeys, Traffic
from idi.traffic.view import assignment, view
from idi.world.events import Event, InstanceGone, InstanceSeen
from idi.world.fold import fold
from idi.world.types import World

log = logging.getLogger(__name__)

Predicate = Callable[[World], bool]


@dataclass(slots=True)
class Edge:
    """Where the gateway listens, whose tokens it takes, where it logs every request, and which proxies are it."""

    address: str
    port: int
    issuer: Callable[[Platform], EmbeddedKeys | ExternalIssuer]
    access_log: str = ""
    nodes: tuple[str, ...] = (GATEWAY,)


@dataclass(slots=True)
class Loop:
    """Holds the world and keeps the data plane in step with it.

    `listeners` hear every event after it was folded (identities are issued, the live view refreshed);
    they must neither block nor raise. `fault` says why the whole view cannot be made; empty when it can.
    """

    plane: DataPlane
    edge: Edge
    world: World = field(default_factory=World)
    platform: Platform | None = None
    traffic: Traffic | None = None
    fault: str = ""
    listeners: list[Callable[[Event], None]] = field(default_factory=list)
    _dirty: set[ModuleName] = field(default_factory=set)
    _structure: bool = False
    _scheduled: bool = False
    _waiters: list[tuple[Predicate, asyncio.Future[None]]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def emit(self, event: Event) -> None:
        """Fold a fact; the proxies hear of it at the end of this turn of the event loop."""
        self._structure |= reshapes(self.world, event)
        self.world, dirty = fold(self.world, event)
        self._dirty |= dirty
        for listener in self.listeners:
            listener(event)
        self._schedule()

    def declare(self, platform: Platform) -> None:
        """A new declaration: routes, edges and policies follow it at once."""
        self.platform = platform
        self.republish()

    def republish(self) -> None:
        """Compute the whole view again (new declaration, new token-signing keys)."""
        self._structure = True
        self._schedule()

    def flush(self) -> None:
        """Push what is dirty, now. Called by itself; also by whoever waits on a barrier next. Never raises: a
        view that cannot be made is told in `fault`, the proxies keep the last good one, and facts go on to
        reach them."""
        self._scheduled = False
        if self.platform is not None:
            try:
                if self._structure or self.traffic is None:
                    self._push_all(self.platform)
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
                if fault != self.fault:
                    log.exception("the view of traffic cannot be made; the last good one stays")
                self.fault = fault
            if self.traffic is not None:
                for service in self.traffic.services.values():
                    if service.module in self._dirty:
                        self.plane.publish_endpoints(assignment(self.world, service))
            self._dirty.clear()
        self.wake()

    def _push_all(self, platform: Platform) -> None:
        edge = self.edge
        traffic = view(platform, self.world, edge.address, edge.port, edge.issuer(platform), edge.access_log)
        traffic = replace(traffic, gateways=edge.nodes)
        self.plane.publish(traffic)
        self.traffic, self.fault, self._structure = traffic, "", False
        self._dirty.clear()

    async def wait(self, predicate: Predicate, timeout_s: float) -> bool:
        """Wait until the predicate holds for the world; False when the time is over."""
        if predicate(self.world):
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (predicate, future)
        self._waiters.append(entry)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)
        return True

    async def next_change(self, timeout_s: float) -> None:
        """Return when anything was folded since the call, or after the time."""
        changed = self._changed
        try:
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        except TimeoutError:
            return

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def wake(self) -> None:
        """Let whoever waits look again; also for what they look at beside the world."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for entry in list(self._waiters):
            predicate, future = entry
            if predicate(self.world):
                self._waiters.remove(entry)
                if not future.done():
                    future.set_result(None)


def reshapes(world: World, event: Event) -> bool:
    """Whether more than endpoints follows from it: an instance comes or goes, or has other ports."""
    if isinstance(event, InstanceGone):
        return True
    if not isinstance(event, InstanceSeen):
        return False
    now, module = event.instance, world.modules.get(event.instance.module)
    before = module.instances.get(now.id) if module else None
    return before is None or any(
        getattr(before, name) != getattr(now, name) for name in ("address", "ports", "mesh", "outbound")
    )
