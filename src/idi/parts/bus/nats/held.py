"""What streams hold, and what a change of a stream's limits would cost.

A stream with a shorter age, or one that drops the oldest and has less room, deletes at once what does not fit any more.
That is right for what everybody is done with. For an event that a subscription still waits for it would be a loss, so
such a change waits until there is none.
"""

from __future__ import annotations

import time

from nats.js.api import ConsumerInfo, StorageType, StreamInfo
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from idi.declaration.units import duration_text
from idi.parts.bus.interface import Held, Topic
from idi.parts.bus.nats.names import topic_of

PAGE = 256


async def held(stream: JetStreamContext) -> list[Held]:
    """Every stream, with what its consumers wait for."""
    found: list[Held] = []
    while page := await stream.streams_info(offset=len(found)):
        for info in page:
            name = info.config.name or ""
            each = await consumers(stream, name)
            places = {one.name: waiting_of(one) for one in each}
            found.append(Held(topic_of(name), info.state.messages, places))
    return found


async def consumers(stream: JetStreamContext, name: str) -> list[ConsumerInfo]:
    found: list[ConsumerInfo] = []
    while len(page := await stream.consumers_info(name, offset=len(found))) == PAGE:
        found += page
    # Whoever only looks on has no lasting place.
    return [one for one in [*found, *page] if one.config.durable_name]


def waiting_of(consumer: ConsumerInfo) -> int:
    return (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)


async def refusal(stream: JetStreamContext, info: StreamInfo, topic: Topic) -> str:
    """Why this stream cannot be as the topic is wanted; empty where it can."""
    now, name = info.config, info.config.name or ""
    if (now.storage == StorageType.FILE) != topic.durable:
        where = "on disk" if now.storage == StorageType.FILE else "in memory"
        return (
            f"{topic.name} is kept {where}, and what is kept cannot move: leave durable as it was, or give the event "
            "type another name."
        )
    shorter = topic.keep_s < (now.max_age or float("inf"))
    most = topic.most_events or info.state.messages
    drops = topic.drop_oldest and (info.state.bytes > topic.most_bytes or info.state.messages > most)
    waiting = [one for one in await consumers(stream, name) if waiting_of(one)] if shorter or drops else []
    if not waiting:
        return ""
    modules = ", ".join(sorted(one.name for one in waiting))
    if drops:
        return (
            f"{topic.name} holds more than it is to have, and {modules} is not done with it: what is waited for "
            "would be dropped. It stays as it is until that is taken."
        )
    first = min(one.ack_floor.stream_seq for one in waiting if one.ack_floor is not None) + 1
    try:
        oldest = await stream.get_msg(name, first, subject=">", next=True)
    except NotFoundError:
        return ""
    if oldest.time is None or oldest.time.timestamp() > time.time() - topic.keep_s:
        return ""
    return (
        f"{topic.name} has events older than {duration_text(topic.keep_s)} with which {modules} is not done, and they "
        f"would be lost. It keeps them for {duration_text(now.max_age or 0)} as before until they are taken."
    )
