"""The events of a declaration as an AsyncAPI 3.0 document: channels are event types, operations who does what.

AsyncAPI tells of one application, so for a module it is that module's own view: it sends what it publishes and
receives what it handles or consumes. Without one it is the view of everybody beside each other, an operation for each
module. What an event looks like is CloudEvents 1.0; what its data looks like no declaration says, so it is any JSON.
Pure.
"""

from __future__ import annotations

import re
from typing import Any

from idi.declaration.types import Module, Platform

CLOUD_EVENT = {
    "type": "object",
    "required": ["specversion", "id", "source", "type"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {
            "type": "string",
            "minLength": 1,
            "description": "With source: what makes two events the same.",
        },
        "source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"type": "string"},
        "data": {},
    },
}


def asyncapi(platform: Platform, module: Module | None = None) -> dict[str, Any]:
    """Of one module, or of all."""
    modules = [module] if module else list(platform.modules.values())
    types = sorted({name for one in modules for name in (*one.publishes, *one.handles, *one.consumes)})
    operations: dict[str, Any] = {}
    for one in modules:
        operations |= operations_of(one, module is None)
    title = f"{platform.name} {module.name}" if module else platform.name
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": platform.environment, "description": "Events of the platform."},
        "defaultContentType": "application/cloudevents+json",
        "servers": {
            "http": {
                "host": "{events}",
                "protocol": "http",
                "description": "Publish by POST; the address is in EVENTS_URL.",
                "variables": {"events": {"description": "Host and port of EVENTS_URL."}},
            },
            "broker": {
                "host": "{bus}",
                "protocol": "nats",
                "description": "Natively; the address and the login are in BUS_URL.",
                "variables": {"bus": {"description": "Host and port of BUS_URL."}},
            },
        },
        "channels": {
            key(name): {
                "address": name,
                "messages": {"event": {"$ref": f"#/components/messages/{name}"}},
                "description": kept(platform, name),
            }
            for name in types
        },
        "operations": operations,
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "contentType": "application/cloudevents+json",
                    "payload": {
                        "allOf": [
                            {"$ref": "#/components/schemas/CloudEvent"},
                            {"properties": {"type": {"const": name}}},
                        ]
                    },
                }
                for name in types
            },
            "schemas": {"CloudEvent": CLOUD_EVENT},
        },
    }


def operations_of(module: Module, named: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    prefix = f"{module.name}-" if named else ""
    for name in sorted(module.publishes):
        found[f"{prefix}publishes-{key(name)}"] = operation("send", name, f"{module.name} publishes it.")
    for name, path in sorted(module.handles.items()):
        found[f"{prefix}handles-{key(name)}"] = operation(
            "receive", name, f"Posted to {module.name} at {path}, until it answers 2xx."
        )
    for name in sorted(module.consumes):
        found[f"{prefix}consumes-{key(name)}"] = operation(
            "receive", name, f"{module.name} takes it from the broker by its durable consumer."
        )
    return found


def operation(action: str, name: str, summary: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{key(name)}"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/{key(name)}/messages/event"}],
    }


def kept(platform: Platform, name: str) -> str:
    event = platform.events[name]
    where = "on disk" if event.durable else "in memory"
    return f"Kept {where} for {event.keep_s:g} s; {event.attempts} attempts to hand it over."


def key(name: str) -> str:
    """Keys of AsyncAPI have no dots."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
