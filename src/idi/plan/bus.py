"""The bus and its relay, as modules of the platform.

Where a declaration has events, two modules come with it: `bus`, the broker, and `relay`, which is between the broker
and HTTP. They are modules in every respect: a target keeps them running, sidecars stand before them, their identities
are on their certificates, and whoever publishes or handles `calls` them. So nothing that holds for modules (policies,
ports, readiness, drains, rolling changes) has to be made a second time for them, and it is the same on every target.

What each may do there is in `grants`; who enforces it is the broker, for logins, and the relay, for identities.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from idi.declaration.frozen import Frozen
from idi.declaration.types import (
    Module,
    ModuleName,
    Platform,
    Port,
    Readiness,
    Reference,
    Release,
    Resources,
    Storage,
    Template,
)

BUS, RELAY = ModuleName("bus"), ModuleName("relay")
OWN = frozenset({BUS, RELAY})
"""Modules that come with the platform: no declaration names them."""

LOGIN = Reference(("secret", "idi/bus"))
"""What a module shows to the broker, `USER:PASSWORD`; each has its own. Which version of it holds is among what was
set (`Overlays.secrets`), once there was a second one."""
LOGIN_PATH = LOGIN.path[1]

RELAY_USER = "idi"
"""Who the relay is to the broker, and control beside it."""


def logs_in(module: Module) -> bool:
    """Whether it has a login at the broker."""
    return module.name == RELAY or (module.name not in OWN and module.uses_events())


BUS_URL = Template(("nats://", LOGIN, "@", Reference(("peer", BUS, "address"))))
EVENTS_URL = Template((Reference(("peer", RELAY, "url")), "/events"))

STORAGE_BYTES = 8 << 30
MEMORY_BYTES = 512 << 20

ARGV: Mapping[ModuleName, tuple[str | Reference, ...]] = {
    BUS: (
        Reference(("bus", "program")),
        "-c",
        Reference(("bus", "config")),
        "-a",
        "127.0.0.1",
        "-p",
        Reference(("port",)),
        "-sd",
        Reference(("data_dir",)),
    ),
    RELAY: ("python", "-m", "idi.relay"),
}
"""What each runs, word by word: one image holds both."""

ACCOUNTS, MOUNTED, CONFIG = "bus-accounts", "/etc/idi/bus", "nats.conf"
"""On a cluster: the Secret with the broker's configuration, where its pod has it, and the key that is the file."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one module may do at the bus: publish events of these types, and take those of these by itself."""

    module: ModuleName
    publishes: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()


def with_bus(platform: Platform) -> Platform:
    """The declaration with the bus among its modules, where anything is published or handled."""
    if not any(module.uses_events() for module in platform.modules.values()):
        return platform
    modules = {name: connected(module) for name, module in platform.modules.items()}
    return replace(platform, modules=Frozen({BUS: bus(), RELAY: relay(platform), **modules}))


def grants(platform: Platform) -> list[Grant]:
    """By module; the relay's is everything, and is not among them."""
    return [
        Grant(module.name, tuple(sorted(module.publishes)), tuple(sorted(module.consumes)))
        for module in platform.modules.values()
        if module.name not in OWN and module.uses_events()
    ]


def connected(module: Module) -> Module:
    """With what it needs to reach the bus and the relay."""
    if not module.uses_events():
        return module
    known: dict[tuple[str, ...], Template] = {
        ("bus", "url"): BUS_URL,
        ("events", "url"): EVENTS_URL,
    }
    config = {
        "BUS_URL": BUS_URL,
        "EVENTS_URL": EVENTS_URL,
        **{name: filled(value, known) for name, value in module.config.items()},
    }
    run = filled(module.run, known) if module.run else None
    return replace(module, run=run, calls=(*module.calls, BUS, RELAY), config=Frozen(config))


def filled(template: Template, known: Mapping[tuple[str, ...], Template]) -> Template:
    """With what these references stand for."""
    parts: list[str | Reference] = []
    for part in template.parts:
        found = known.get(part.path) if isinstance(part, Reference) else None
        parts += found.parts if found else (part,)
    return Template(tuple(parts))


def bus() -> Module:
    """The broker. It never has two writers, so the old one goes before a new one comes."""
    return Module(
        BUS,
        run=command_line(BUS),
        ports=(Port("nats", "tcp"),),
        readiness=Readiness(http="", tcp=True, port="nats"),
        storage=Storage(STORAGE_BYTES),
        resources=Resources(memory_bytes=MEMORY_BYTES),
        release=Release(strategy="recreate"),
    )


def command_line(module: ModuleName) -> Template:
    """As a shell runs it; none of the words is anything to it."""
    parts = [part for word in ARGV[module] for part in (" ", word)]
    return Template(("exec", *parts))


def relay(platform: Platform) -> Module:
    """Between HTTP and the broker. What it is to do is in its environment, so a change of it is a new revision."""
    handlers = [m.name for m in platform.modules.values() if m.handles]
    return Module(
        RELAY,
        run=command_line(RELAY),
        calls=(BUS, *handlers),
        config=Frozen({"BUS_URL": BUS_URL, "IDI_RELAY": Template((relay_text(platform),))}),
        readiness=Readiness(http="/ready"),
    )


def relay_text(platform: Platform) -> str:
    """JSON: topics, who may publish what, and what is delivered where. The same declaration gives the same text."""
    document = {
        "trust": platform.identity(""),
        "topics": {event.name: topic(platform, event.name) for event in platform.events.values()},
        "publishers": {m.name: sorted(m.publishes) for m in platform.modules.values() if m.publishes},
        "deliveries": list(deliveries(platform)),
        "consumers": [
            [event, module.name, platform.events[event].attempts]
            for module in platform.modules.values()
            for event in sorted(module.consumes)
        ],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def topic(platform: Platform, name: str) -> dict[str, object]:
    event = platform.events[name]
    return {
        "keep_s": event.keep_s,
        "durable": event.durable,
        "most_bytes": event.limit_bytes,
        "most_events": event.most,
        "same_s": event.deduplicate_s,
        "drop_oldest": event.full == "drop-oldest",
    }


def deliveries(platform: Platform) -> Iterator[dict[str, object]]:
    for module in platform.modules.values():
        for name, path in sorted(module.handles.items()):
            event = platform.events[name]
            yield {
                "topic": name,
                "module": module.name,
                "path": path,
                "attempts": event.attempts,
                "first_s": event.backoff_first_s,
                "last_s": event.backoff_last_s,
                "order": event.order,
            }
