"""POST /events: what a module publishes, once the broker has it.

Who asks is what the relay's own sidecar says about the certificate that it saw; a module publishes the types that it
declares and no others. A request is answered 200 when every event in it is kept; an answer that did not arrive may be
sent again, for an event of the same source and id is taken once. 503 with Retry-After: the broker is not there, or is
full; nothing is kept for later here. The events of a batch go one after another, for their order is part of what they
say: of one that fails in the middle those before are kept, those after are not, and sending it again adds none twice.

Everything is bounded: requests at once, a body's length, and how long a body may take to come.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from itertools import groupby

from aiohttp import web

from idi.parts.bus.cloudevents import CloudEvent, Malformed, message_id, read, to_headers
from idi.parts.bus.errors import BadEvent, BusDown, BusFull
from idi.parts.bus.interface import Bus
from idi.relay.settings import Settings

BODY_BYTES = 1 << 20
BUSY = 256
"""Requests at once; further ones are told to come again."""

MOST_CERTIFICATES = 16 << 10
"""Characters of x-forwarded-client-cert."""

BODY_S = 20.0
"""For the whole body: one that trickles in would take a place from others."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?")
_TRACESTATE = re.compile(r"[ -~]{1,512}")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*("|\\?\Z)|[^",;]+|.', re.DOTALL)
"""Each one ends where the next begins, so a text is read once, whatever it is."""


class Publishing:
    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings, self._bus = settings, bus
        self._busy = 0

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/events", self.post)]

    async def post(self, request: web.Request) -> web.Response:
        if self._busy >= BUSY:
            return problem(503, f"{BUSY} requests are being kept already.", retry=True)
        self._busy += 1
        try:
            return await self._post(request)
        finally:
            self._busy -= 1

    async def _post(self, request: web.Request) -> web.Response:
        module = self.caller(",".join(request.headers.getall("x-forwarded-client-cert", [])))
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return problem(413, f"A request has at most {BODY_BYTES} bytes.")
        except TimeoutError:
            return problem(408, f"The body did not come within {BODY_S:g} s.")
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            events = [traced(event, headers) for event in read(headers, body)]
        except Malformed as error:
            return problem(error.status, error.reason)
        allowed = self._settings.publishers.get(module, frozenset())
        for event in events:
            if event.type not in allowed:
                may = f"it publishes {', '.join(sorted(allowed))}" if allowed else "it publishes nothing"
                return problem(403, f"{module or 'the caller'} does not declare {event.type[:100]!r}; {may}.")
        try:
            for type, each in groupby(events, lambda event: event.type):
                kept = [(message_id(module, event), to_headers(event), event.data) for event in each]
                await self._bus.publish_all(type, kept)
        except BadEvent as error:
            return problem(413, error.message)
        except (BusFull, BusDown) as error:
            return problem(503, error.message, retry=True)
        return web.Response(body=b'{"kept": %d}' % len(events), content_type="application/json")

    def caller(self, certificates: str) -> str:
        """The module whose certificate the sidecar saw. Of several the last one is the sidecar's own word, whatever
        stands before it or in quotes; a certificate that has not exactly one URI is nobody's."""
        uris = [field[4:] for field in last_certificate(certificates) if field[:4].lower() == "uri="]
        trust = self._settings.trust
        return uris[0].removeprefix(trust) if len(uris) == 1 and uris[0].startswith(trust) else ""


@lru_cache(maxsize=256)
def last_certificate(certificates: str) -> tuple[str, ...]:
    """The fields of the last element of x-forwarded-client-cert; none where a quote is not closed. A sidecar says the
    same of every request on a connection."""
    fields = [""]
    for found in _TOKEN.finditer(certificates[:MOST_CERTIFICATES]):
        token = found[0]
        if token[0] == '"' and found[1] != '"':
            return ()
        if token == ",":
            fields = [""]
        elif token == ";":
            fields.append("")
        else:
            fields[-1] += token
    return tuple(field.strip() for field in fields) if len(certificates) <= MOST_CERTIFICATES else ()


def traced(event: CloudEvent, headers: dict[str, str]) -> CloudEvent:
    """With the request's trace, where the event has none of its own: by it a trace goes on through the bus. What is no
    trace is left out, for nobody has looked at these headers yet."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if "traceparent" in event.attributes or not _TRACEPARENT.fullmatch(parent):
        return event
    # Its state without its parent would be another trace's.
    attributes = {name: value for name, value in event.attributes.items() if name != "tracestate"}
    attributes["traceparent"] = parent
    if _TRACESTATE.fullmatch(state):
        attributes["tracestate"] = state
    return CloudEvent(attributes, event.data)


def problem(status: int, detail: str, *, retry: bool = False, allow: str = "") -> web.Response:
    """RFC 9457."""
    headers = ({"retry-after": "1"} if retry else {}) | ({"allow": allow} if allow else {})
    title = {
        400: "The body cannot be read",
        403: "Not declared",
        404: "Nothing is here",
        405: "Not by this method",
        408: "Too slow",
        413: "Too large",
        415: "Not a form of CloudEvents",
        422: "Not a CloudEvent",
        500: "A bug",
        503: "Not kept",
    }[status]
    return web.json_response(
        {"type": "about:blank", "title": title, "status": status, "detail": detail},
        status=status,
        content_type="application/problem+json",
        headers=headers,
    )
