"""`Module`: what a program says of itself, and `run`, which lives it.

app = Module()

@app.get("/tea")
async def tea(request: Request) -> object:
    return {"price": 3}

if __name__ == "__main__":
    app.run()
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Generic, TypeVar, overload

import aiohttp

from idi.module import config as variables
from idi.module import logs, tracing
from idi.module.events import Handling, Publisher
from idi.module.http import Handler
from idi.module.life import Check, Life, Limits, Parts, Route, sending
from idi.module.peers import Peers
from idi.module.problem import Misconfigured

C = TypeVar("C")
HOST = "127.0.0.1"


class Module(Generic[C]):
    """`config` is a dataclass that is filled from variables, and is there as `.config` as soon as the module starts.
    `name` is what it is called where no platform says it."""

    @overload
    def __init__(self: Module[None], *, name: str = ..., ready: str = ..., limits: Limits = ...) -> None: ...
    @overload
    def __init__(
        self, config: type[C], *, name: str = ..., ready: str = ..., limits: Limits = ...
    ) -> None: ...
    def __init__(
        self,
        config: Any = None,
        *,
        name: str = "module",
        ready: str = "/ready",
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._kind = config
        self.parts = Parts(name, ready, limits)
        self._config: C | None = None
        self._environment: Mapping[str, str] = {}
        self._session: aiohttp.ClientSession | None = None
        self._publisher: Publisher | None = None
        self.peers = Peers(self._sending, lambda: self._environment)

    # -- what it has while it runs

    @property
    def config(self) -> C:
        if self._config is None:
            raise self._too_early("config")
        return self._config

    @property
    def events(self) -> Publisher:
        if self._publisher is None:
            raise self._too_early("events")
        return self._publisher

    def _sending(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise self._too_early("peers")
        return self._session

    @staticmethod
    def _too_early(what: str) -> RuntimeError:
        return RuntimeError(f"{what} is there while the module runs: in handlers, and in a lifespan.")

    # -- what it says of itself

    def route(self, method: str, path: str, *, answer_s: float = 0.0) -> Callable[[Handler], Handler]:
        """`answer_s`: how long it may take, where that is not what `limits` say; `math.inf` for a stream."""

        def register(handler: Handler) -> Handler:
            self.parts.routes.append(Route(method, path, handler, answer_s or self.parts.limits.answer_s))
            return handler

        return register

    def get(self, path: str, *, answer_s: float = 0.0) -> Callable[[Handler], Handler]:
        return self.route("GET", path, answer_s=answer_s)

    def post(self, path: str, *, answer_s: float = 0.0) -> Callable[[Handler], Handler]:
        return self.route("POST", path, answer_s=answer_s)

    def on(self, type: str, path: str = "") -> Callable[[Handling], Handling]:
        """Handle events of a type. `path` is the one that is declared under `handles`: `/events/order-placed` for
        `order.placed`, unless it is said here."""

        def register(handling: Handling) -> Handling:
            self.parts.handlings[path or f"/events/{type.replace('.', '-')}"] = (type, handling)
            return handling

        return register

    def lifespan(self, lifespan: Callable[[], AsyncIterator[object]]) -> Callable[[], AsyncIterator[object]]:
        """An async generator that yields once: what is before is done before the module is ready, what is after when
        everything that was under way is finished."""
        self.parts.lifespans.append(asynccontextmanager(lifespan))
        return lifespan

    def check(self, check: Check) -> Check:
        """Not ready while this raises or returns False."""
        self.parts.checks[getattr(check, "__name__", "check")] = check
        return check

    # -- its life

    @asynccontextmanager
    async def running(self, environment: Mapping[str, str]) -> AsyncIterator[int]:
        """Ready inside of it, on the port that it gives. Raises `Misconfigured`."""
        name = environment.get("IDI_MODULE") or self.parts.name
        port = self._prepare(name, environment)
        tracing.opentelemetry()
        async with AsyncExitStack() as entered:
            self._session = await entered.enter_async_context(sending())
            self._publisher = Publisher(self._session, environment.get("EVENTS_URL", ""), name)
            yield await entered.enter_async_context(Life(self.parts, name).listening(HOST, port))

    def _prepare(self, name: str, environment: Mapping[str, str]) -> int:
        self._environment = environment
        port = environment.get("PORT", "")
        mistakes = self.peers.mistakes() + logs.mistakes(environment)
        if not (port.isascii() and port.isdecimal() and int(port) < 65536):
            by_hand = "the platform sets it; by hand: PORT=8000 python app.py"
            mistakes.append(
                f"PORT must be a port, not {port!r}: {by_hand}." if port else f"PORT is not set: {by_hand}."
            )
        if self._kind is not None:
            self._config, found = variables.read(self._kind, environment)
            mistakes += found
        if mistakes:
            raise Misconfigured(name, mistakes)
        return int(port)

    def run(self) -> None:
        """Until SIGTERM or Ctrl-C; ends the process: 0, 1 where it cannot start, 2 where its environment is wrong."""
        sys.exit(asyncio.run(self._run(os.environ)))

    async def _run(self, environment: Mapping[str, str]) -> int:
        loop, me, stop = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        assert me is not None
        ready = False

        def asked() -> None:
            if not ready and not stop.is_set():
                me.cancel()  # there is nothing to finish yet
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        try:
            if not logs.mistakes(environment):
                logs.begin(environment)
            async with self.running(environment):
                ready = True
                await stop.wait()
        except Misconfigured as error:
            print(error, file=sys.stderr)  # noqa: T201 - before there is a log
            return 2
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
        return 0
