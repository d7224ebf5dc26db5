"""Events: CloudEvents that a module publishes, and those that it is handed.

Delivery is at least once, on both ways. What makes two events the same one is source and id together, `Event.key`:
publishing with the same id again adds nothing (for two minutes), and a handler whose effect must not happen twice keeps
the key together with the effect, in one transaction. A set of keys beside it would not help: between the effect and
noting the key the process may end. So there is none here.
"""

from __future__ import annotations

import asyncio
import builtins
import random
import time
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar, overload
from urllib.parse import quote, unquote

import aiohttp

from idi.module import shapes, tracing
from idi.module.problem import NotDeclared, Problem

T = TypeVar("T")
ONE_POST_S = 10.0
WITHIN_S = 20.0
"""How long publishing goes on trying: less than the two minutes in which the same id is taken once, and less than the
30 seconds in which an event must be handled."""

BATCH = "application/cloudevents-batch+json"
MOST_AT_ONCE, MOST_BYTES = 100, 900_000
"""Of one request to the relay, which takes a MiB."""

_SPARED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


@dataclass(frozen=True, slots=True)
class Event:
    """`data` is the body as bytes. `source` is the module's name where it is empty. `more` are further attributes.
    `attempt` counts from 1 how often the event was handed to this module."""

    type: str
    data: bytes = b""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    source: str = ""
    subject: str = ""
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    content_type: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1

    @classmethod
    def of(
        cls, type: str, data: object = None, *, id: str = "", source: str = "", subject: str = "", **more: str
    ) -> Event:
        """Data as JSON; bytes as they are (with `content_type`), None as none. An id that follows from what the event
        tells (`order-17-placed`) makes it the same event when the whole work is done once more."""
        form = more.pop("content_type", "")
        if data is not None and not isinstance(data, bytes):
            data, form = shapes.dump(data), form or "application/json"
        made = cls(type, data or b"", source=source, subject=subject, content_type=form, more=more)
        return made if not id else cls(type, made.data, id, source, subject, made.time, form, more)

    @property
    def key(self) -> str:
        """The idempotency key: the same for the same event, however often it comes."""
        return f"{self.source} {self.id}"

    def follower_id(self, type: str) -> str:
        """An id for an event that follows from this one, the same however often this one is handled."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.key} {type}"))

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, kind: builtins.type[T]) -> T: ...
    def json(self, kind: Any = Any) -> Any:
        """The data, as what is asked for; an event that does not fit is given up, as no further attempt mends it."""
        try:
            return shapes.load(self.data, kind, "data")
        except shapes.Misfit as misfit:
            raise GiveUp(f"{misfit}.") from None

    def headers(self, source: str) -> dict[str, str]:
        """The binary form: attributes in headers."""
        named = {"specversion": "1.0", "type": self.type, "id": self.id, "source": self.source or source}
        named |= {"time": self.time, **({"subject": self.subject} if self.subject else {}), **self.more}
        found = {f"ce-{name}": quote(value, safe=_SPARED) for name, value in named.items()}
        return found | ({"content-type": self.content_type} if self.content_type else {})


Handling: TypeAlias = Callable[[Event], Awaitable[object]]


class Retry(Problem):
    """Raised by a handler: hand me this event again, not before `after_s` have passed."""

    def __init__(self, reason: str, after_s: float = 1.0) -> None:
        super().__init__(503, reason, headers={"retry-after": str(max(1, round(after_s)))})


class GiveUp(Problem):
    """Raised by a handler: no further attempt would help. The event lies with the dead letters, with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(422, reason, headers={"x-idi-give-up": "1"})


class NotPublished(Problem):
    """An event is not kept, or nobody knows whether it is; with the same id it may be published again. A handler that
    lets this through is answered 503, and an event that it handled comes again."""


def received(headers: Mapping[str, str], body: bytes) -> Event:
    """What the relay posts; raises `Problem` for what is no event."""
    named = {
        name.lower()[3:]: unquote(value) for name, value in headers.items() if name.lower().startswith("ce-")
    }
    missing = [f"ce-{name}" for name in ("id", "source", "type") if not named.get(name)]
    if missing:
        raise Problem(
            415,
            f"This is no event in the binary form of CloudEvents: it has no {', no '.join(missing)}.",
        )
    named.pop("specversion", "")
    attempt = headers.get("x-idi-attempt", "1")
    return Event(
        named.pop("type"),
        body,
        named.pop("id"),
        named.pop("source"),
        named.pop("subject", ""),
        named.pop("time", ""),
        headers.get("content-type", ""),
        named,
        int(attempt) if attempt.isdecimal() and len(attempt) < 10 else 1,
    )


class Publisher:
    def __init__(self, session: aiohttp.ClientSession, url: str, module: str) -> None:
        self._session, self._url, self._source = session, url, f"/{module}"

    async def publish(self, event: Event | str, data: object = None, **more: str) -> Event:
        """`publish("order.placed", {...}, subject="17", id="order-17-placed")`. Returns when the event is on disk."""
        made = Event.of(event, data, **more) if isinstance(event, str) else event
        await self._kept(made.type, made.data, made.headers(self._source))
        return made

    async def publish_all(self, events: list[Event]) -> None:
        """In this order. Where it fails, some from the beginning are kept: publish the same ones again."""
        what, form = ", ".join(sorted({event.type for event in events})), {"content-type": BATCH}
        batch: list[bytes] = []
        for one in map(self._document, events):
            if batch and (len(batch) == MOST_AT_ONCE or sum(map(len, batch)) + len(one) > MOST_BYTES):
                await self._kept(what, b"[" + b",".join(batch) + b"]", form)
                batch = []
            batch.append(one)
        if batch:
            await self._kept(what, b"[" + b",".join(batch) + b"]", form)

    def _document(self, event: Event) -> bytes:
        named = {
            "specversion": "1.0",
            "type": event.type,
            "id": event.id,
            "source": event.source or self._source,
        }
        named |= {"time": event.time, "subject": event.subject, "datacontenttype": event.content_type}
        named |= {**event.more, "data_base64": b64encode(event.data).decode() if event.data else ""}
        return shapes.dump({name: value for name, value in named.items() if value})

    async def _kept(self, what: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Sent again with the same ids while the relay says 503, or nothing."""
        if not self._url:
            raise NotDeclared(
                f"This module does not declare that it publishes (EVENTS_URL is not set): add `publishes: [{what}]` to "
                "it in platform.yaml."
            )
        end = time.monotonic() + WITHIN_S
        pause_s = 0.1
        with tracing.step(f"publish {what}", "PRODUCER") as on:
            while True:
                wait_s, trouble = await self._post(what, body, {**headers, **on})
                if not trouble:
                    return
                wait_s = max(wait_s, pause_s) * random.uniform(1.0, 1.3)
                if time.monotonic() + wait_s > end:
                    tracing.failed(trouble)
                    raise NotPublished(
                        503, f"{what} is not published: {trouble}", headers={"retry-after": "1"}
                    )
                await asyncio.sleep(wait_s)
                pause_s = min(pause_s * 2, 5.0)

    async def _post(self, what: str, body: bytes, headers: Mapping[str, str]) -> tuple[float, str]:
        """How long to wait and why; no reason where it is kept."""
        try:
            async with (
                asyncio.timeout(ONE_POST_S),
                self._session.post(
                    self._url, data=body, headers=headers, skip_auto_headers=("content-type",)
                ) as answer,
            ):
                text = await answer.text(errors="replace")
        except TimeoutError:
            return 0.0, f"no answer within {ONE_POST_S:g} s."
        except (aiohttp.ClientError, OSError) as error:
            return 0.0, f"{error}."
        if answer.status == 200:
            return 0.0, ""
        detail = _detail(text)
        if answer.status in (408, 429, 502, 503, 504):
            asked = answer.headers.get("retry-after", "")
            return float(asked) if asked.isdecimal() and len(asked) < 6 else 0.0, detail
        raise NotPublished(500, f"{what} is refused ({answer.status}): {detail}")


def _detail(text: str) -> str:
    try:
        said = shapes.load(text.encode(), dict, "answer").get("detail")
    except shapes.Misfit:
        said = None
    return str(said or text[:300])
