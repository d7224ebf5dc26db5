"""A request as it came: who asks, by the kernel's word or by a token, and what is in its body."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from idi.api.asker import Asker, Role
from idi.api.problems import Handler
from idi.parts.clients.machine import this_machine
from idi.parts.errors import Refused

ASKER = web.RequestKey("asker", Role)
"""Who asks, where something before the handlers has found out."""


def peer_of(request: web.Request) -> Asker:
    role: Role | None = request.get(ASKER)
    if role is not None:
        return role
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None:
        raise Refused("The connection has no peer credential.")
    peer = this_machine().peer(sock)
    if peer.uid not in (os.getuid(), 0):
        raise Refused(f"User {peer.uid} may not use this platform's control API.")
    return peer


async def body_of(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read() or b"{}")
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"The body is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise web.HTTPBadRequest(text="The body must be a JSON object.")
    return document


def need(document: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kind in fields.items():
        if not isinstance(document.get(name), kind):
            raise web.HTTPBadRequest(text=f"'{name}' is missing or of the wrong type.")


def may(document: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]]) -> None:
    """The same for fields that may be left out."""
    need(document, {name: kind for name, kind in fields.items() if name in document})


def need_each(values: Iterable[Any], kind: type | tuple[type, ...], name: str) -> None:
    if not all(isinstance(value, kind) for value in values):
        raise web.HTTPBadRequest(text=f"'{name}' holds something of the wrong type.")


Prove = Callable[[str], Awaitable[Role | None]]
"""The role that a token proves; None where it proves none."""


def proving(prove: Prove) -> Middleware:
    """A middleware for where no kernel says who asks: a token has to."""

    @web.middleware
    async def proved(request: web.Request, handler: Handler) -> web.StreamResponse:
        role = await prove(bearer(request))
        if role is None:
            raise web.HTTPUnauthorized(text="The token proves no role of this environment.")
        resource = request.match_info.route.resource
        role.check(f"{request.method} {resource.canonical if resource else request.path}")
        request[ASKER] = role
        return await handler(request)

    return proved


def bearer(request: web.Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise web.HTTPUnauthorized(text="Send the registration's credential as a Bearer token.")
    return credential
