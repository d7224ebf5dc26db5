"""Dead letters: the event as it was, and in headers of ours where it went, why, and every attempt that it had.

Headers of ours are believed only where nobody but the platform can write: in the topics by which dead letters are
handed out again. A module that speaks to the broker itself can put what it likes into its own topics.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace

from idi.parts.bus.cloudevents import LONGEST_VALUE
from idi.parts.bus.errors import BadEvent
from idi.parts.bus.interface import Bus, Event
from idi.parts.bus.own import (
    DEAD,
    DEAD_ATTEMPTS,
    DEAD_MODULE,
    DEAD_REASON,
    DEAD_SEQUENCE,
    DEAD_TOPIC,
    DEAD_TRIES,
    again_topic,
)
from idi.relay.tries import MOST_TRIES, Try

log = logging.getLogger(__name__)

OWN = "idi-"
CUT = "idi-cut"
"""On a letter without the event's data: there was no room for it beside the headers. The event stays in its topic."""

SHOWN = ("ce-specversion", "ce-id", "ce-source", "ce-type", "ce-subject", "ce-time")
"""What such a letter still says."""

MOST_TRIES_BYTES = 256 << 10


def believed(event: Event, module: str) -> Event:
    """Without headers of ours that are not from us."""
    if event.topic == again_topic(module):
        return event
    mine = {name: value for name, value in event.headers.items() if not name.lower().startswith(OWN)}
    return replace(event, headers=mine)


def key_of(module: str, event: Event) -> str:
    """What an event is to one module: its attempts and its letter go by it. A topic that was made anew counts from
    one again, so the time is part of it."""
    return f"{module} {event.topic} {event.sequence} {event.at:.6f}"


async def whole(bus: Bus, event: Event) -> Event | None:
    """With all that its letter had no room for; None where it is kept no longer."""
    if CUT not in event.headers:
        return event
    ours = {name: value for name, value in event.headers.items() if name.startswith(OWN) and name != CUT}
    one = await bus.event(event.headers[DEAD_TOPIC], int(event.headers[DEAD_SEQUENCE]))
    if one is None:
        return None
    return replace(event, headers={**believed(one, "").headers, **ours}, payload=one.payload)


async def write(
    bus: Bus, id: str, module: str, event: Event, reason: str, tries: list[Try], attempts: int = 0
) -> None:
    """Keep it. The broker bounds an event with its headers, and one may be as large as that by itself: then its letter
    says only what it is, and it is kept where it was. `attempts` where nobody wrote down each of them."""
    headers = dead_headers(module, event, reason, tries)
    if attempts:
        headers[DEAD_ATTEMPTS] = str(attempts)
    try:
        await bus.publish(DEAD, id, headers, event.payload)
    except BadEvent as error:
        log.warning("%s: its dead letter is without data: %s", id, error)
        short = {
            n: v for n, v in headers.items() if n.startswith(OWN) or (n in SHOWN and len(v) <= LONGEST_VALUE)
        }
        await bus.publish(DEAD, id, {**short, CUT: "true"}, b"")


def dead_headers(module: str, event: Event, reason: str, tries: list[Try]) -> dict[str, str]:
    """The event's own, and why it is here: every try, with those of an earlier time where it was dead before."""
    before: list[object] = json.loads(event.headers.get(DEAD_TRIES, "[]"))
    told = [*before, *(one.document() for one in tries)]
    return {
        **event.headers,
        DEAD_TOPIC: event.headers.get(DEAD_TOPIC, event.topic),
        DEAD_SEQUENCE: event.headers.get(DEAD_SEQUENCE, str(event.sequence)),
        DEAD_MODULE: module,
        DEAD_REASON: json.dumps(reason),
        DEAD_ATTEMPTS: str(attempts_before(event.headers) + len(tries)),
        DEAD_TRIES: bounded(told[-MOST_TRIES:]),
    }


def attempts_before(headers: Mapping[str, str]) -> int:
    """More than are told, where there were too many to tell."""
    return int(headers.get(DEAD_ATTEMPTS, "0"))


def bounded(tries: list[object]) -> str:
    """The last ones, as many as there is room for."""
    text, first = json.dumps(tries), 0
    while len(text) > MOST_TRIES_BYTES and first < len(tries) - 1:
        first += max(1, (len(tries) - first) // 8)
        text = json.dumps(tries[min(first, len(tries) - 1) :])
    return text
