"""What the relay is told, from its environment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from idi.declaration.names import peer_variable
from idi.parts.bus.interface import Shape, Subscription, Topic
from idi.parts.bus.own import DEAD, KEEP_DEAD_S, TRIES, again_topic

TIMEOUT_S = 30.0
ANSWER_S = TIMEOUT_S + 15.0
"""How long an event may be out and not be heard of. What is held says so in between, so this is what passes until the
events of a relay that was killed are handed out again."""

IN_FLIGHT = 256
"""Events of one subscription that may be open at once, those that wait for another attempt among them."""

LONGEST_WAIT_S = 3600.0
"""The longest pause that a module's Retry-After is taken for."""

KEEP_LEAST_S = 86400.0
"""What is known of attempts outlives at least a night without a relay."""

GRACE_S = 8.0
"""For what is under way at SIGTERM: within the ten seconds that a module has by default, as the relay does."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Events of one type to one module: `path` is where it takes them. `order`: the CloudEvents attribute of which
    events with the same value go one after another; empty where they need not."""

    topic: str
    module: str
    path: str
    attempts: int
    first_s: float
    last_s: float
    order: str = ""

    def pause_s(self, attempt: int) -> float:
        """How long to wait after this attempt failed: twice as long as after the one before."""
        return min(self.last_s, self.first_s * 2.0 ** min(attempt - 1, 40))


@dataclass(frozen=True, slots=True)
class Settings:
    """`trust` is what identities begin with; `publishers`: module to the types that it may publish; `deliveries` by
    type and module; `urls` of the modules behind the relay's own sidecar."""

    port: int
    bus_url: str
    user: str
    password: str = field(repr=False)
    trust: str
    publishers: Mapping[str, frozenset[str]]
    topics: Mapping[str, Topic]
    deliveries: Mapping[tuple[str, str], Deliver]
    urls: Mapping[str, str]
    consumers: tuple[tuple[str, str, int], ...] = ()
    """Type, module and attempts of those that take from the broker by themselves; the relay only makes their place."""
    timeout_s: float = TIMEOUT_S
    grace_s: float = GRACE_S

    @property
    def tries_keep_s(self) -> float:
        """As long as an event can be open while its module answers, or asks to be left alone."""
        each = [
            one.attempts * (max(one.last_s, LONGEST_WAIT_S) + ANSWER_S) for one in self.deliveries.values()
        ]
        return max([KEEP_LEAST_S, *each])

    @property
    def shape(self) -> Shape:
        own = [Topic(DEAD, KEEP_DEAD_S), Topic(TRIES, self.tries_keep_s)]
        own += [Topic(again_topic(module), KEEP_DEAD_S) for module in self.urls]
        topics = {**self.topics, **{topic.name: topic for topic in own}}
        consumed = (
            Subscription(topic, module, attempts=attempts) for topic, module, attempts in self.consumers
        )
        return Shape(topics, (*self.subscriptions(), *consumed))

    def subscriptions(self) -> Iterator[Subscription]:
        """One for each type that a module handles, and one for what it gets once more."""
        for one in self.deliveries.values():
            yield Subscription(one.topic, one.module, ANSWER_S, IN_FLIGHT)
        for module in self.urls:
            yield Subscription(again_topic(module), module, ANSWER_S, IN_FLIGHT)


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    told = json.loads(environment["IDI_RELAY"])
    bus = urlsplit(environment["BUS_URL"])
    return Settings(
        port=int(environment["PORT"]),
        bus_url=f"nats://{bus.hostname}:{bus.port}",
        user=bus.username or "",
        password=bus.password or "",
        trust=told["trust"],
        publishers={module: frozenset(types) for module, types in told["publishers"].items()},
        topics={name: Topic(name, **shape) for name, shape in told["topics"].items()},
        deliveries={(one["topic"], one["module"]): Deliver(**one) for one in told["deliveries"]},
        urls={one["module"]: environment[peer_variable(one["module"])] for one in told["deliveries"]},
        consumers=tuple((topic, module, attempts) for topic, module, attempts in told["consumers"]),
    )
