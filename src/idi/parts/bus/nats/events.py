"""An event as NATS hands it out, and as it lies in its stream."""

from __future__ import annotations

import base64

from nats.aio.msg import Msg

from idi.parts.bus.interface import Event
from idi.parts.bus.nats.names import topic_of

OWN = "Nats-"
"""Headers that the broker reads or writes are no part of the event."""


def event_of(message: Msg) -> Event:
    metadata = message.metadata
    headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith(OWN)}
    sequence = metadata.sequence.stream if metadata.sequence else 0
    return Event(
        topic_of(metadata.stream or ""), sequence, headers, message.data, metadata.timestamp.timestamp()
    )


def headers_of(told: bytes | str | None) -> dict[str, str]:
    """As they stand in the stream: a first line of the protocol's own, then one a line."""
    found: dict[str, str] = {}
    for line in base64.b64decode(told or b"").decode(errors="replace").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name and not name.startswith(OWN):
            found[name] = value.strip()
    return found
