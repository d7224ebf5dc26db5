"""A module inside a test: started as it is, on a port of its own, with other modules (or nothing) behind its peers, and
a relay that keeps what it publishes in a list.

    async with testing.client(app, peers={"prices": prices_app}) as client:
        assert (await client.get("/tea")).json() == {"total": 3}
        await client.event("price.changed", {"item": "tea"})
        assert client.published[0].type == "order.placed"
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import aiohttp

from idi.module.app import Module
from idi.module.events import Event, received
from idi.module.http import Request
from idi.module.life import Limits, sending
from idi.module.peers import Call, Peer, Reply

ANY = range(100, 600)


@dataclass(slots=True)
class Client:
    """Every status is an answer here. `published` is in the order in which it came."""

    peer: Peer
    published: list[Event] = field(default_factory=list)

    async def get(self, path: str, **more: Unpack[Call]) -> Reply:
        return await self.request("GET", path, **more)

    async def post(self, path: str, json: object = None, **more: Unpack[Call]) -> Reply:
        return await self.request("POST", path, json, **more)

    async def request(self, method: str, path: str, json: object = None, **more: Unpack[Call]) -> Reply:
        more.setdefault("expect", ANY)
        return await self.peer.request(method, path, json, **more)

    async def event(
        self, type: str, data: object = None, *, path: str = "", attempt: int = 1, **more: str
    ) -> Reply:
        """Hand it an event, as the relay does; 204 says that it is done with it."""
        event = Event.of(type, data, **more)
        headers = {**event.headers("/test"), "x-idi-attempt": str(attempt)}
        return await self.request(
            "POST", path or f"/events/{type.replace('.', '-')}", body=event.data, headers=headers
        )


@asynccontextmanager
async def client(
    module: Module[Any],
    environment: Mapping[str, str] | None = None,
    peers: Mapping[str, Module[Any]] | None = None,
) -> AsyncIterator[Client]:
    """`environment`: its config and secrets."""
    published: list[Event] = []
    given = {"IDI_MODULE": module.parts.name, **(environment or {}), "PORT": "0"}
    async with AsyncExitStack() as entered:
        for name, peer in (peers or {}).items():
            given[f"{name.upper().replace('-', '_')}_URL"] = await entered.enter_async_context(
                _started(peer, given)
            )
        given.setdefault(
            "EVENTS_URL", await entered.enter_async_context(_started(_relay(published), given)) + "/events"
        )
        url = await entered.enter_async_context(_started(module, given))
        session: aiohttp.ClientSession = await entered.enter_async_context(sending())
        yield Client(Peer("module", lambda: session, lambda: {"MODULE_URL": url}), published)


@asynccontextmanager
async def _started(module: Module[Any], environment: Mapping[str, str]) -> AsyncIterator[str]:
    before, module.parts.limits = module.parts.limits, replace(module.parts.limits, linger_s=0.0)
    try:
        async with module.running({**environment, "IDI_MODULE": module.parts.name}) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        module.parts.limits = before


def _relay(published: list[Event]) -> Module[None]:
    relay = Module(name="relay", limits=Limits(linger_s=0.0))

    @relay.post("/events")
    async def keep(request: Request) -> object:
        if request.headers.get("content-type", "").startswith("application/cloudevents-batch+json"):
            for one in request.json():
                published.append(_of_document(one))
            return {"kept": len(request.json())}
        published.append(received(request.headers, request.body))
        return {"kept": 1}

    return relay


def _of_document(document: dict[str, str]) -> Event:
    from base64 import b64decode

    named = {name: value for name, value in document.items() if name != "specversion"}
    return Event(
        named.pop("type"), b64decode(named.pop("data_base64", "")), named.pop("id"), named.pop("source"),
        named.pop("subject", ""), named.pop("time", ""), named.pop("datacontenttype", ""), named,
    )  # fmt: skip
