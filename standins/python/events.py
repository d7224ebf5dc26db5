"""Publishing and handling events, as a module without any library does it: HTTP and a few headers.

An event that was handled before (same source and id) is answered 2xx and does nothing: events come at least once. With
STANDIN_ON_EVENT the module publishes an event of that type for each one that it handled, so that a chain of modules
makes a workflow; the follower's id is the id of what it follows, hence a repeated step publishes nothing new. Where
publishing fails the event is not answered 2xx and comes again.

Whatever others can make grow is bounded: how many events are remembered, how long one's key is, how many types are
counted apart.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict, deque
from collections.abc import Mapping

from standins.python.client import Pool, Unreachable, address_of
from standins.python.messages import Problem, Request, Response, json_response
from standins.python.settings import Settings, Wrong, whole

SHOWN = 100
MAX_KEY = 2048
MAX_TYPES = 100
HANDED_ON = ("traceparent", "tracestate")


def escape(text: str) -> str:
    """An attribute as a header's value: what CloudEvents' HTTP binding (3.1.3.2) wants percent-encoded is, no more."""
    return "".join(
        chr(byte) if 0x21 <= byte <= 0x7E and byte not in b'"%' else f"%{byte:02X}"
        for byte in text.encode("utf-8", "replace")
    )


def trace_of(request: Request) -> list[tuple[str, str]]:
    return [(name, value) for name in HANDED_ON if (value := request.header(name)) is not None]


class Events:
    def __init__(self, settings: Settings, pool: Pool, who: Mapping[str, str]) -> None:
        self.settings, self.pool, self.who = settings, pool, who
        self.handled: dict[str, int] = {}
        self.repeated = 0
        self.seen: OrderedDict[str, None] = OrderedDict()
        self.last: deque[tuple[str, str | None]] = deque(maxlen=SHOWN)

    async def publish(self, request: Request) -> Response:
        """`/publish/TYPE?id=…&subject=…`; the body is the data. Answers what EVENTS_URL answered."""
        if not request.rest:
            raise Problem(400, "no type: /publish/TYPE publishes", **self.who)
        id = request.parameter("id", "") or os.urandom(8).hex()
        attributes = {"id": escape(id), "source": f"/{self.settings.module}", "type": request.rest}
        if subject := request.parameter("subject", ""):
            attributes["subject"] = escape(subject)
        kind = request.header("content-type") or "application/json"
        status, text = await self._post(attributes, request.body, kind, trace_of(request))
        try:
            answer = json.loads(text)
        except ValueError:
            answer = text
        return json_response({**self.who, "id": id, "status": status, "answer": answer}, status)

    async def take(self, request: Request) -> Response:
        """An event that the platform hands over."""
        event = {name[3:]: value for name, value in request.headers if name.startswith("ce-")}
        if not event.get("id") or not event.get("type"):
            raise Problem(400, "no event: there is no ce-id or no ce-type", **self.who)
        key = f"{event.get('source', '')} {event['id']}"
        if len(key) > MAX_KEY:
            raise Problem(400, f"ce-source and ce-id have more than {MAX_KEY} characters", **self.who)
        if key in self.seen:
            self.repeated += 1
            return json_response({**self.who, "repeated": True})
        self._fail_as_asked(request)
        if follower := self.settings.on_event:
            data = json.dumps({"follows": {"type": event["type"], "id": event["id"]}}).encode()
            attributes = {"id": event["id"], "source": f"/{self.settings.module}", "type": follower}
            if "subject" in event:
                attributes["subject"] = event["subject"]
            status, text = await self._post(attributes, data, "application/json", trace_of(request))
            if not 200 <= status < 300:
                raise Problem(503, f"{follower} was not kept: {status} {text.strip()}", **self.who)
        self._remember(key, event["id"], event["type"], request.header("traceparent"))
        return json_response({**self.who, "handled": event["id"]})

    def _remember(self, key: str, id: str, kind: str, trace: str | None) -> None:
        self.seen[key] = None
        if len(self.seen) > self.settings.remember:
            self.seen.popitem(last=False)
        if kind not in self.handled and len(self.handled) >= MAX_TYPES:
            kind = "others"
        self.handled[kind] = self.handled.get(kind, 0) + 1
        self.last.append((id, trace))

    def _fail_as_asked(self, request: Request) -> None:
        """Data such as {"fail_attempts": 2} makes the first two attempts fail."""
        try:
            attempt = whole(request.header("x-idi-attempt") or "1", 1, 1_000_000)
        except Wrong as wrong:
            raise Problem(400, f"x-idi-attempt: {wrong}", **self.who) from None
        try:
            wanted = json.loads(request.body).get("fail_attempts")
        except (ValueError, AttributeError, RecursionError):
            return  # any data is good, not this stand-in's alone
        if type(wanted) is int and attempt <= wanted:
            raise Problem(503, f"attempt {attempt} failed as asked", **self.who)

    def listing(self, _request: Request) -> Response:
        last = [id for id, _ in self.last]
        traces = [trace for _, trace in self.last]
        return json_response(
            {**self.who, "handled": self.handled, "repeated": self.repeated, "last": last, "traces": traces}
        )

    async def _post(
        self, attributes: Mapping[str, str], data: bytes, kind: str, trace: list[tuple[str, str]]
    ) -> tuple[int, str]:
        url = self.settings.env.get("EVENTS_URL")
        if not url:
            raise Problem(404, "there is no EVENTS_URL: the module declares no events", **self.who)
        try:
            host, port, path = address_of(url)
        except ValueError as error:
            raise Problem(502, f"EVENTS_URL is {error}", **self.who) from None
        headers = [("ce-specversion", "1.0"), *((f"ce-{name}", value) for name, value in attributes.items())]
        headers += [("content-type", kind), *trace]
        timeout = self.settings.call_timeout
        try:
            try:
                reply = await self.pool.request(host, port, "POST", path, headers, data, timeout)
            except Unreachable:  # the id makes it safe to send it again
                reply = await self.pool.request(host, port, "POST", path, headers, data, timeout)
        except Unreachable as error:
            return 503, str(error)
        return reply.status, reply.body.decode("utf-8", "replace")
