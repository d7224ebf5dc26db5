"""Says whether an instance can take requests, by asking it.

While it starts it is asked soon and then at growing pauses, each about a fifth of the time that has
passed, so that a module which is up in 150 ms is ready a few milliseconds later and one that takes a
minute is not asked a thousand times. As long as nothing listens on its port a question costs the module
nothing and us a tenth of a millisecond: then it is asked four times as often, and four times a second at
least, because most modules are ready once they listen, and nobody is told of them before we ask. From the
first success on it is asked every `every_s`. The judgement is pure (`Judge`); reasons are sentences for
people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from idi.declaration.readiness import Readiness
from idi.parts.targets.http_probe import REFUSED, HttpProbe

FIRST_S = 0.02
SHARE = 0.2
"""Of the time that has passed: the next pause while it starts."""
REFUSED_SHARE, LONGEST_REFUSED_S = 0.05, 0.25
"""The same while nothing listens."""


class Judge:
    """Counts answers: `after` successes in a row make it ready, `failures` in a row unready."""

    def __init__(self, after: int, failures: int, *, ready: bool = False) -> None:
        self.ready = ready
        self._after = after
        self._failures = failures
        self._against = 0

    def hear(self, *, good: bool) -> None:
        """One more answer; only answers against the present judgement count, and only in a row."""
        self._against = self._against + 1 if good != self.ready else 0
        if self._against >= (self._failures if self.ready else self._after):
            self.ready, self._against = good, 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`missed` says that the deadline passed; it may still become ready later."""

    ready: bool
    reason: str
    missed: bool = False


class Probe(Protocol):
    async def ask(self) -> str:
        """Empty when it answers as it should, otherwise why not."""

    def close(self) -> None: ...


class TcpProbe:
    """Whether something listens."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._port = port
        self._timeout_s = timeout_s

    async def ask(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", self._port)
        except TimeoutError:
            return f"no answer within {self._timeout_s:g}s"
        except ConnectionRefusedError:
            return REFUSED
        except OSError as error:
            return (error.strerror or str(error)).lower()
        transport.abort()
        return ""

    def close(self) -> None:
        """Nothing is kept open."""


def network_probe(readiness: Readiness, port: int) -> tuple[str, Probe]:
    """What is asked on this port, for people, and who asks; not for a command."""
    if readiness.tcp:
        return f"port {port}", TcpProbe(port, readiness.timeout_s)
    return readiness.http, HttpProbe(port, readiness.http, readiness.timeout_s)


async def watch(
    readiness: Readiness,
    what: str,
    probe: Probe,
    tell: Callable[[Verdict], None],
    *,
    up_s: Callable[[], float],
    ready: bool = False,
) -> None:
    """Ask until cancelled, telling each judgement. `ready` is what was known before (adoption)."""
    judge = Judge(readiness.after, readiness.failures, ready=ready)
    been_ready = ready
    missed = False
    tries = 0
    pause = 0.0 if ready else FIRST_S
    try:
        while True:
            if not (been_ready or missed):
                pause = min(pause, max(0.01, readiness.deadline_s - up_s()))
            await asyncio.sleep(pause)
            reason = await probe.ask()
            tries += 1
            judge.hear(good=not reason)
            reason = reason or "good, but not often enough yet"
            been_ready = been_ready or judge.ready
            if been_ready:
                pause = readiness.every_s
                told = reason if reason.startswith(what) else f"{what}: {reason}"
            else:
                pause = min(_while_starting(reason, up_s()), readiness.every_s)
                told = f"waiting for {what} ({ordinal(tries)} try: {reason})"
                missed = missed or up_s() >= readiness.deadline_s
            tell(Verdict(judge.ready, "" if judge.ready else told, missed and not judge.ready))
    finally:
        probe.close()


def _while_starting(reason: str, up_s: float) -> float:
    if reason == REFUSED:
        return max(FIRST_S, min(REFUSED_SHARE * up_s, LONGEST_REFUSED_S))
    return max(FIRST_S, SHARE * up_s)


def ordinal(number: int) -> str:
    """`3rd` for 3."""
    if 10 <= number % 100 <= 20:
        return f"{number}th"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
