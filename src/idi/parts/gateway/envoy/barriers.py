"""Who is still waited for: a barrier ends when every proxy that it concerns has answered, is lost, or has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from idi.parts.gateway.interface import BarrierResult, Rejection


@dataclass(slots=True)
class Barrier:
    """`seq`: the change up to which everybody is to have everything."""

    seq: int
    waiting: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def settle(self, node: str, into: set[str]) -> None:
        if node in self.waiting:
            into.add(node)
            self.only({*self.waiting} - {node})

    def only(self, nodes: Collection[str]) -> None:
        """Others are waited for no longer: they are gone by intention."""
        self.waiting &= set(nodes)
        if not self.waiting:
            self.done.set()

    def result(self, rejections: tuple[Rejection, ...]) -> BarrierResult:
        return BarrierResult(
            tuple(sorted(self.acknowledged)), tuple(sorted(self.lost | self.waiting)), rejections
        )


class Barriers:
    """Those that are open now."""

    def __init__(self) -> None:
        self._open: list[Barrier] = []

    def __iter__(self) -> Iterator[Barrier]:
        return iter(self._open)

    async def wait(self, barrier: Barrier, timeout_s: float) -> None:
        if not barrier.waiting:
            return
        with self._opened(barrier):
            try:
                async with asyncio.timeout(timeout_s):
                    await barrier.done.wait()
            except TimeoutError:
                pass

    @contextmanager
    def _opened(self, barrier: Barrier) -> Iterator[None]:
        self._open.append(barrier)
        try:
            yield
        finally:
            self._open.remove(barrier)
