"""Other modules, by the names under `calls`. Mutual TLS, load balancing and further tries are the sidecar's business;
here are deadlines, bounds, the trace that goes on, and errors that say what to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack, overload

import aiohttp

from idi.module import shapes, tracing
from idi.module.problem import NotDeclared, Problem

T = TypeVar("T")
log = logging.getLogger("idi.module")
DEADLINE_S = 10.0
MOST_BYTES = 16 << 20
"""Of an answer."""


class PeerError(Problem):
    """A peer did not answer as it should. A handler that lets it through answers 502, 503 or 504. `answered` is the
    peer's own status, None where there was no answer; `said` is its document."""

    def __init__(
        self, status: int, detail: str, *, peer: str, answered: int | None = None, said: object = None
    ) -> None:
        super().__init__(status, detail, headers={"retry-after": "1"} if status == 503 else None, peer=peer)
        self.peer, self.answered, self.said = peer, answered, said


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` have lower-case names."""

    peer: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, kind: type[T]) -> T: ...
    def json(self, kind: Any = Any) -> Any:
        try:
            return shapes.load(self.body, kind, f"the answer of {self.peer}")
        except shapes.Misfit as misfit:
            raise PeerError(502, f"{misfit}.", peer=self.peer, answered=self.status) from None


class Call(TypedDict, total=False):
    """How a call may differ: its `body` as bytes instead of JSON, `expect` for the statuses that are no `PeerError`."""

    body: bytes
    query: Mapping[str, str]
    headers: Mapping[str, str]
    deadline_s: float
    expect: Collection[int]


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    _session: Callable[[], aiohttp.ClientSession]
    _environment: Callable[[], Mapping[str, str]]

    @property
    def variable(self) -> str:
        return f"{self.name.upper().replace('-', '_')}_URL"

    @property
    def url(self) -> str:
        found = self._environment().get(self.variable, "")
        if found.startswith(("http://", "https://")):
            return found.rstrip("/")
        if found:
            raise NotDeclared(
                f"{self.variable} is {found!r}: that peer does not speak HTTP; use its address yourself."
            )
        raise NotDeclared(
            f"This module does not declare that it calls {self.name} ({self.variable} is not set): add "
            f"`calls: [{self.name}]` to it in platform.yaml."
        )

    async def get(self, path: str, **more: Unpack[Call]) -> Reply:
        return await self.request("GET", path, **more)

    async def post(self, path: str, json: object = None, **more: Unpack[Call]) -> Reply:
        return await self.request("POST", path, json, **more)

    async def delete(self, path: str, **more: Unpack[Call]) -> Reply:
        return await self.request("DELETE", path, **more)

    async def request(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline_s: float = DEADLINE_S,
        expect: Collection[int] = range(200, 300),
    ) -> Reply:
        """Raises `PeerError` where the status is not among `expect`, and where there is none within `deadline_s`."""
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        if json is not None:
            body = shapes.dump(json)
            sent.setdefault("content-type", "application/json")
        with tracing.step(f"{method} {self.name}", "CLIENT") as on:
            try:
                async with (
                    asyncio.timeout(deadline_s),
                    self._session().request(
                        method, self.url + path, data=body, params=query, headers={**on, **sent}
                    ) as answer,
                ):
                    reply = await self._read(answer)
            except TimeoutError:
                raise self._error(504, f"{self.name} did not answer within {deadline_s:g} s.") from None
            except (aiohttp.ClientError, OSError) as error:
                log.warning("%s: %s", self.name, error)
                raise self._error(503, f"{self.name} cannot be reached.") from None
            if reply.status not in expect:
                raise self._answered(method, path, reply)
            return reply

    async def _read(self, answer: aiohttp.ClientResponse) -> Reply:
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > MOST_BYTES:
                raise self._error(502, f"The answer of {self.name} is longer than {MOST_BYTES} bytes.")
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Reply(self.name, answer.status, headers, bytes(body))

    def _answered(self, method: str, path: str, reply: Reply) -> PeerError:
        """Where nothing answered for it (503 of a sidecar) that may be over soon; all else is its own trouble."""
        try:
            document = reply.json()
        except PeerError:
            document = reply.text[:500]
        said = document.get("detail") if isinstance(document, dict) else ""
        detail = f"{self.name} answered {reply.status} to {method} {path}" + (f": {said}" if said else "")
        status = 503 if reply.status == 503 else 502
        return self._error(status, f"{detail}.".replace("..", "."), reply.status, document)

    def _error(self, status: int, detail: str, answered: int | None = None, said: object = None) -> PeerError:
        tracing.failed(detail)
        return PeerError(status, detail, peer=self.name, answered=answered, said=said)


class Peers:
    """`peers.cam`, or `peers["cam"]`. Those that are named before the module starts are looked for at its start."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], environment: Callable[[], Mapping[str, str]]
    ) -> None:
        self._session, self._environment = session, environment
        self._named: dict[str, Peer] = {}

    def __getitem__(self, name: str) -> Peer:
        if name not in self._named:
            self._named[name] = Peer(name, self._session, self._environment)
        return self._named[name]

    def __getattr__(self, name: str) -> Peer:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def mistakes(self) -> list[str]:
        found = []
        for peer in self._named.values():
            try:
                _ = peer.url
            except NotDeclared as error:
                found.append(error.detail)
        return found
