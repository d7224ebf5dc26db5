"""Keeps every proxy's certificate fresh: issues at once for a new one, again after a third of its life.

The loop is level-based: each round looks at the wall clock and renews what is due by it, soonest end
first, so a laptop that slept or a clock that jumped is nothing special; a certificate that would begin
in the future (the clock went back) is due as well. It never sleeps longer than `LOOK_EVERY_S`, because a
sleep is measured by a clock that stands still while the machine does; `wake` makes it look now.

Nodes of one moment are spread over the last tenth before their third by their names, so that fourteen
proxies started together do not renew together, and the same platform does the same every time.

While the authority is down each node waits on its own, longer each time, up to a minute. With a life of
24 hours there are sixteen in which that hurts nobody; `standing` says who is late and why.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from idi.parts.certificates.interface import Certificate, CertificateAuthority
from idi.parts.errors import PartError

LOOK_EVERY_S = 20.0
_SPREAD = 0.1
_FIRST_PAUSE_S = 1.0
_LAST_PAUSE_S = 60.0
_SKEW_S = 5.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one node's certificate stands: `not_after` 0 where it never had one, `error` of the last try,
    `late` when more than half of its life is gone, `expired` when all of it is."""

    node: str
    spiffe_id: str
    not_after: float
    renew_at: float
    error: str
    late: bool
    expired: bool


@dataclass(slots=True)
class _Held:
    node: str
    spiffe_id: str
    certificate: Certificate | None = None
    renew_at: float = 0.0
    half_at: float = 0.0
    error: str = ""
    tries: int = 0
    again_at: float = 0.0
    """Wall clock: not tried before, while the authority is down."""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)


class Renewal:
    """An async context manager. `deliver` is called with each new certificate, on the loop, and must not
    block. `life_s` is the declared life."""

    def __init__(
        self,
        authority: CertificateAuthority,
        deliver: Callable[[str, Certificate], None],
        life_s: float,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._authority = authority
        self._deliver = deliver
        self._life_s = life_s
        self._clock = clock
        self._sleep = sleep
        self._held: dict[str, _Held] = {}
        self._changed = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._loop = self._tasks.create_task(self._run(), name="certificate renewal")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.cancel()
        # The body's own error goes on as it is, not wrapped in a group; a cancellation is the group's
        # to account for.
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._tasks.__aexit__(kind, error, trace)
        else:
            await self._tasks.__aexit__(None, None, None)

    async def ensure(self, node: str, spiffe_id: str) -> Certificate:
        """This node's certificate, issued and delivered now unless it holds a fresh one.

        Raises what the authority raised; the node is kept and tried again either way, until `remove`.
        """
        held = self._held.get(node)
        if held is None or held.spiffe_id != spiffe_id:
            held = self._held[node] = _Held(node, spiffe_id)
        async with held.one_at_a_time:
            if held.certificate is not None and not self._due(held):
                return held.certificate
            try:
                return await self._renew(held)
            finally:
                self._changed.set()

    def remove(self, node: str) -> None:
        self._held.pop(node, None)

    def set_life(self, life_s: float) -> None:
        """Another declared life: what would outlive it is renewed now, anything else when it is due."""
        self._life_s = life_s
        now = self._clock()
        for held in self._held.values():
            if held.certificate is not None and held.certificate.not_after > now + life_s:
                held.renew_at = now
        self.wake()

    def wake(self) -> None:
        """The machine slept or its clock jumped: look now, and try again whatever waited."""
        for held in self._held.values():
            held.again_at = 0.0
        self._changed.set()

    async def trust(self) -> None:
        """Everybody trusts what the authority says now, with the certificate that they have."""
        roots = await self._authority.roots()

        async def given(held: _Held) -> None:
            # Whoever is just being issued one may have got the roots of before.
            async with held.one_at_a_time:
                if held.certificate is not None and held.certificate.roots != roots:
                    held.certificate = replace(held.certificate, roots=roots)
                    if self._held.get(held.node) is held:
                        self._deliver(held.node, held.certificate)

        await self._everybody(given)

    async def reissue(self) -> dict[str, str]:
        """Everybody gets another certificate now; answers who did not, and why. They are tried again."""
        failed: dict[str, str] = {}

        async def issued(held: _Held) -> None:
            async with held.one_at_a_time:
                held.renew_at = self._clock()
                try:
                    await self._renew(held)
                except PartError as error:
                    if self._held.get(held.node) is held:
                        failed[held.node] = str(error)

        await self._everybody(issued)
        self._changed.set()
        return failed

    async def _everybody(self, work: Callable[[_Held], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for held in [*self._held.values()]:
                tasks.create_task(work(held))

    def standing(self) -> tuple[Standing, ...]:
        now = self._clock()
        return tuple(
            Standing(
                node=held.node,
                spiffe_id=held.spiffe_id,
                not_after=held.certificate.not_after if held.certificate else 0.0,
                renew_at=held.renew_at,
                error=held.error,
                late=held.certificate is None or now >= held.half_at,
                expired=held.certificate is None or now >= held.certificate.not_after,
            )
            for held in sorted(self._held.values(), key=lambda held: held.node)
        )

    # --- the loop ---

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            now = self._clock()
            due = sorted(
                (held for held in self._held.values() if self._due(held) and not _waits(held, now)),
                key=lambda held: held.certificate.not_after if held.certificate else 0.0,
            )
            # The authority bounds how many are under way, first come first served: soonest end first.
            async with asyncio.TaskGroup() as round_:
                for held in due:
                    round_.create_task(self._try(held))
            if not due:
                await self._until_next()

    async def _until_next(self) -> None:
        now = self._clock()
        nexts = [max(held.renew_at, held.again_at) for held in self._held.values()]
        pause = min([LOOK_EVERY_S, *(max(each - now, 0.0) for each in nexts)])
        async with asyncio.TaskGroup() as either:
            waits = [either.create_task(self._changed.wait()), either.create_task(self._slept(pause))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _slept(self, pause: float) -> None:
        await self._sleep(pause)

    def _due(self, held: _Held) -> bool:
        certificate = held.certificate
        now = self._clock()
        return certificate is None or now >= held.renew_at or now < certificate.not_before - _SKEW_S

    async def _try(self, held: _Held) -> None:
        async with held.one_at_a_time:
            if not self._due(held):
                return
            try:
                await self._renew(held)
            except PartError:
                pass  # it is in `standing`, and the next time is set

    async def _renew(self, held: _Held) -> Certificate:
        try:
            certificate = await self._authority.issue(held.spiffe_id, self._life_s)
        except PartError as error:
            held.error = str(error)
            pause = min(_FIRST_PAUSE_S * 2**held.tries, _LAST_PAUSE_S) * (1 - 0.5 * _share(held.node))
            held.tries = min(held.tries + 1, 16)
            held.again_at = self._clock() + pause
            raise
        issued = self._clock()
        life = certificate.not_after - issued
        held.certificate = certificate
        held.renew_at = issued + life / 3 * (1 - _SPREAD * _share(held.node))
        held.half_at = issued + life / 2
        # Should the authority's clock differ so much that this one is due at once: not in a tight circle.
        held.error, held.tries, held.again_at = "", 0, issued + _FIRST_PAUSE_S
        # It may have been removed, or given another identity, while the authority worked.
        if self._held.get(held.node) is held:
            self._deliver(held.node, certificate)
        return certificate


def _waits(held: _Held, now: float) -> bool:
    """After a failure. A time further off than any pause was set before the clock went back."""
    return now < held.again_at <= now + _LAST_PAUSE_S


def _share(name: str) -> float:
    """A number in [0, 1) that belongs to a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32
