"""How topics and subscriptions are called at NATS.

A topic is a subject of its own name and a stream; a stream's name is a folder's, so it cannot have dots, and `=` cannot
stand in a topic's. A subscription is a durable consumer of the module's name; it hears the topic's subject and
one that is for it alone.
"""

from __future__ import annotations

GIVEN_UP = "idi.given-up"
"""The topic in which the broker's own word is kept that a consumer came to the end of its attempts."""

GIVEN_UP_SUBJECT = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"


def stream_of(topic: str) -> str:
    return topic.replace(".", "=")


def topic_of(stream: str) -> str:
    return stream.replace("=", ".")


def only_subject(topic: str, module: str) -> str:
    """For one module's subscription to a topic, in the same stream. No module can publish to it, since it is nobody's
    event; `*` is every module."""
    return f"idi.only.{stream_of(topic)}.{module}"


def next_subject(topic: str, module: str) -> str:
    """Where a module asks for the next events of its subscription."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(topic)}.{module}"


def answer_subject(topic: str, module: str) -> str:
    """Where a module says what it did with an event of its subscription."""
    return f"$JS.ACK.{stream_of(topic)}.{module}.>"
