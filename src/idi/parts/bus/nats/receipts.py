"""What is asked of the broker with an event, and what it answers, in our words."""

from __future__ import annotations

import json

from idi.parts.bus.errors import BadEvent, BusDown, BusFull
from idi.parts.bus.interface import Receipt
from idi.parts.bus.nats.names import stream_of
from idi.parts.bus.nats.publisher import TooLarge

MESSAGE_ID = "Nats-Msg-Id"
FULL = frozenset({10023, 10028, 10047, 10077, 10122})
"""Insufficient resources; memory resources, storage resources, maximum bytes, maximum messages exceeded."""

OTHER_LAST = b'"err_code":10070'
"""Refused: the topic's last event is another than was expected."""


def own_headers(topic: str, id: str, last: str = "") -> dict[str, str]:
    headers = {MESSAGE_ID: id, "Nats-Expected-Stream": stream_of(topic)}
    return headers | {"Nats-Expected-Last-Msg-Id": last} if last else headers


def failed(error: BaseException) -> BadEvent | BusDown:
    if isinstance(error, TooLarge):
        return BadEvent(f"The event is larger than {error} bytes.")
    return BusDown(f"NATS does not answer: {words_of(error)}.")


def receipt(said: bytes) -> Receipt:
    """What the broker answered to an event."""
    told = json.loads(said)
    if "error" in told:
        raise refused(told["error"].get("err_code"), told["error"].get("description"))
    return Receipt(told["seq"], bool(told.get("duplicate")))


def refused(code: int | None, description: str | None) -> BusFull | BusDown:
    if code in FULL:
        return BusFull(f"NATS keeps no more: {description}.")
    return BusDown(f"NATS refuses: {description}.")


def words_of(error: BaseException) -> str:
    text = str(error).removeprefix("nats: ")
    return text or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
