"""What is in a collection and what becomes of it, for as long as one listens.

`Watch` lists the collection, then asks to be told of every change since that listing. A stream that ends is taken up
again from the last version seen: the server ends each after a few minutes itself, and bookmarks keep the version young
where nothing else happens. When that version is older than what the server remembers (410, `Expired`), or the server
has gone back in time (a restored store does not know our version for a long while), the collection is listed again and
compared with what is known: what vanished meanwhile is told as deleted, with its last known state, and a new object
under an old name as the deletion of one and the arrival of another. So whoever follows the events of one `Watch` always
ends with exactly what the collection holds, and misses no deletion, however the connection fared.

Events that tell nothing new (a listing that repeats what is known) are not passed on. `SYNCED` comes after each
listing: until the first one, what is missing may only not have been told yet.

It reads only as fast as its events are taken; a server that finds it too slow cuts it off, which is one more drop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from idi.parts.clients.kubernetes import Json, Kubernetes, selectors
from idi.parts.clients.kubernetes_errors import KubernetesError, event_error
from idi.parts.clients.kubernetes_lines import bounded_lines
from idi.parts.errors import PartError

LINE_LIMIT = 8 * 1024 * 1024
"""An object in the store has 1.5 MiB at most; as JSON it may be larger."""
SERVER_S = (120, 240)
"""After how long the server is asked to end a stream, at random so that not all come again at once."""
SILENCE_S = 15.0
"""How much longer than that nothing at all may come."""
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
TRIES = 5
"""So many streams in a row that told nothing, and the collection is listed again."""
PATIENCE_S = 60.0
"""How long refusals are borne after the first listing: a server that has just started refuses what it will allow."""


class Kind(Enum):
    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    SYNCED = "synced"


@dataclass(frozen=True, slots=True)
class Event:
    """`object` is empty for `SYNCED`, the last known state for `DELETED`; it has no `managedFields`."""

    kind: Kind
    object: Json


Name = tuple[str, str]


class Watch:
    """Iterate it once: `async for event in Watch(...)`; close it with `aclosing(watch.events())` where it matters.

    A refusal before the first stream is raised. Later everything is tried again, with a growing wait, and `trouble`
    says what is wrong meanwhile; only refusals that last longer than `PATIENCE_S` are raised.
    """

    def __init__(self, client: Kubernetes, path: str, *, labels: str = "", fields: str = "") -> None:
        self.path = path
        self.trouble: PartError | None = None
        self.listings = 0
        """How often the collection was listed: more than once means that something may have been told late."""
        self._client = client
        self._labels, self._fields = labels, fields
        self._known: dict[Name, Json] = {}
        self._version = ""
        self._refused_since: float | None = None
        self._streamed = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events; one iteration at a time."""
        failed = 0
        while True:
            began = time.monotonic()
            told = False
            after_s = 0.0
            try:
                if not self._version:
                    for event in await self._list():
                        yield event
                async with contextlib.aclosing(self._stream()) as stream:
                    async for news in stream:
                        told = True
                        if news is not None:
                            yield news
                # Ended by the server, in order: after a while that is a sign of life, too.
                told = told or time.monotonic() - began > LONGEST_WAIT_S
            except KubernetesError as error:
                after_s = min(error.after_s, LONGEST_WAIT_S)
                self._ill(error)
                if error.expired:
                    self._version = ""
            except PartError as error:
                self._ill(error)
            failed = 0 if told else failed + 1
            if failed and failed % TRIES == 0:
                self._version = ""
            await asyncio.sleep(max(after_s, _wait_s(failed)))

    async def _list(self) -> list[Event]:
        """The listing as events against what is known."""
        listing = await self._client.listing(self.path, labels=self._labels, fields=self._fields)
        found = {_name(item): _slim(item) for item in listing.items}
        events = []
        for name, old in list(self._known.items()):
            new = found.get(name)
            if new is None or _about(new, "uid") != _about(old, "uid"):
                del self._known[name]
                events.append(Event(Kind.DELETED, old))
        for name, new in found.items():
            if (event := self._learn(name, new)) is not None:
                events.append(event)
        self._version = listing.version
        self.listings += 1
        return [*events, Event(Kind.SYNCED, {})]

    async def _stream(self) -> AsyncGenerator[Event | None, None]:
        """The events of one stream, None for one that is news to nobody but keeps the version young."""
        seconds = random.randint(*SERVER_S)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(seconds),
        } | selectors(self._labels, self._fields)
        async with self._client.stream(self.path, query, seconds + SILENCE_S) as content:
            self.trouble = self._refused_since = None
            self._streamed = True
            async with contextlib.aclosing(bounded_lines(content, LINE_LIMIT)) as lines:
                async for line in lines:
                    for event in self._take(line):
                        yield event

    def _take(self, line: bytes) -> list[Event | None]:
        kind, told = _parsed(line, self.path)
        if kind == "ERROR":
            raise event_error(self.path, told)
        self._version = _about(told, "resourceVersion") or self._version
        if kind == "BOOKMARK":
            return [None]
        name = _name(told)
        old = self._known.get(name)
        if kind == "DELETED":
            self._known.pop(name, None)
            return [None if old is None else Event(Kind.DELETED, _slim(told))]
        events: list[Event | None] = []
        if old is not None and _about(old, "uid") != _about(told, "uid"):
            del self._known[name]
            events.append(Event(Kind.DELETED, old))
        return [*events, self._learn(name, _slim(told))]

    def _learn(self, name: Name, new: Json) -> Event | None:
        old = self._known.get(name)
        if old is not None and _about(old, "resourceVersion") == _about(new, "resourceVersion"):
            return None
        self._known[name] = new
        return Event(Kind.ADDED if old is None else Kind.MODIFIED, new)

    def _ill(self, error: PartError) -> None:
        """Note it; raises where trying again is no use."""
        self.trouble = error
        refused = isinstance(error, KubernetesError) and not error.retryable and not error.expired
        if not refused:
            self._refused_since = None
            return
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if not self._streamed or now - self._refused_since > PATIENCE_S:
            raise error


def _parsed(line: bytes, place: str) -> tuple[str, Json]:
    try:
        event: Any = json.loads(line)
        kind, told = event["type"], event["object"]
    except (ValueError, KeyError, TypeError):
        kind, told = None, None
    if not isinstance(kind, str) or not isinstance(told, dict):
        raise PartError(f"What Kubernetes tells of {place} is no event.")
    return kind, told


def _name(item: Json) -> Name:
    return _about(item, "namespace"), _about(item, "name")


def _about(item: Json, field: str) -> str:
    return str((item.get("metadata") or {}).get(field) or "")


def _slim(item: Json) -> Json:
    """Without who set which field, half of an object that nobody here reads."""
    (item.get("metadata") or {}).pop("managedFields", None)
    return item


def _wait_s(failed: int) -> float:
    """Doubling, and never the same for two."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failed, 16))
    return random.uniform(longest / 2, longest) if failed else random.uniform(0.0, FIRST_WAIT_S)
