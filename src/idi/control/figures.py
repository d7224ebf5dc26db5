"""Traffic figures per module, read from the sidecars when somebody looks, and only then.

Nobody is polled while nobody watches: a status asks, what is older than `FRESH_S` is read again from all
sidecars beside each other, and rates are the difference to the reading before. The quantiles are those of
a proxy's life. A sidecar that does not answer in time is left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from idi.api.types import FiguresView
from idi.parts.errors import PartError
from idi.world.types import Instance, World

FRESH_S = 1.0
OLD_S = 60.0


class Reading(Protocol):
    """What one sidecar counted since it started; times in milliseconds."""

    @property
    def requests(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def denied(self) -> int: ...

    @property
    def p95_ms(self) -> float: ...


Read = Callable[[Instance], Awaitable[Reading]]


@dataclass(slots=True)
class Sample:
    at: float
    readings: dict[str, Reading] = field(default_factory=dict)


@dataclass(slots=True)
class Figures:
    """`read` asks the sidecar of one instance."""

    read: Read
    _last: Sample = field(default_factory=lambda: Sample(0.0))
    _views: Mapping[str, FiguresView] = field(default_factory=dict)
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, world: World) -> Mapping[str, FiguresView]:
        """Figures by module, at most `FRESH_S` old."""
        async with self._one:
            now = time.monotonic()
            if now - self._last.at >= FRESH_S:
                sample = await self._sample(world, now)
                self._views = views(world, self._last, sample)
                self._last = sample
            return self._views

    async def _sample(self, world: World, now: float) -> Sample:
        sample = Sample(now)

        async def one(instance: Instance) -> None:
            try:
                sample.readings[instance.id] = await self.read(instance)
            except PartError:
                return

        async with asyncio.TaskGroup() as tasks:
            for instance in world.instances():
                if instance.state in ("ready", "unready", "stopping"):
                    tasks.create_task(one(instance))
        return sample


def views(world: World, before: Sample, after: Sample) -> dict[str, FiguresView]:
    """Rates over the time between two samples; 0 where there is no usable sample before."""
    window = after.at - before.at
    if window > OLD_S:
        before, window = Sample(0.0), 0.0
    found: dict[str, FiguresView] = {}
    for name, module in world.modules.items():
        mine = [i for i in module.instances if i in after.readings]
        if not mine:
            continue
        requests = failed = 0
        for instance in mine:
            new, old = after.readings[instance], before.readings.get(instance)
            if old is not None and new.requests >= old.requests:
                requests += new.requests - old.requests
                failed += new.failed - old.failed
        found[name] = {
            "window_s": round(window, 1),
            "requests_per_s": round(requests / window, 1) if window else 0.0,
            "errors_ratio": round(failed / requests, 4) if requests else 0.0,
            "p95_ms": max(after.readings[i].p95_ms for i in mine),
            "denied": sum(after.readings[i].denied for i in mine),
        }
    return found
