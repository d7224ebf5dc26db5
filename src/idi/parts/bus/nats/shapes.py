"""A topic as a stream of NATS, a subscription as a consumer, and what can change of either."""

from __future__ import annotations

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from idi.parts.bus.interface import Subscription, Topic
from idi.parts.bus.nats.names import GIVEN_UP, only_subject, stream_of

NO_END = -1


def stream_config(topic: Topic, *subjects: str) -> StreamConfig:
    return StreamConfig(
        name=stream_of(topic.name),
        subjects=[*subjects] or [topic.name, only_subject(topic.name, "*")],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD if topic.drop_oldest else DiscardPolicy.NEW,
        storage=StorageType.FILE if topic.durable else StorageType.MEMORY,
        max_age=topic.keep_s,
        max_bytes=topic.most_bytes,
        max_msgs=topic.most_events or -1,
        # The window may not be longer than events are kept.
        duplicate_window=min(topic.same_s, topic.keep_s),
        num_replicas=1,
    )


def shape_of(config: StreamConfig) -> tuple[object, ...]:
    """What can change of a topic that is there."""
    return (
        config.max_age,
        config.max_bytes,
        config.max_msgs,
        config.duplicate_window,
        config.discard,
        config.subjects,
    )


def consumer_config(subscription: Subscription) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=subscription.module,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        ack_wait=subscription.answer_s,
        max_deliver=subscription.attempts or NO_END,
        max_ack_pending=subscription.in_flight,
        # What is given up comes by subjects of the broker's own.
        filter_subjects=None
        if subscription.topic == GIVEN_UP
        else [subscription.topic, only_subject(subscription.topic, subscription.module)],
    )


def place_of(config: ConsumerConfig) -> tuple[object, ...]:
    """What can change of a subscription that is there."""
    return config.ack_wait, config.max_ack_pending, config.max_deliver, config.filter_subjects
