"""The control API as an OpenAPI 3.1 document, made from the wire types so that it cannot drift."""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from idi import __version__
from idi.api import types

PATHS: list[tuple[str, str, str, type | None, str, type | None]] = [
    ("/v1/status", "get", "The platform as it is; `?figures=1` adds traffic figures.", None, "200", types.StatusView),
    ("/v1/watch", "get", "JSON lines of the status, pushed when something changes.", None, "200", types.StatusView),
    ("/v1/plan", "post", "What a declaration would change.", types.UpRequest, "200", types.PlanView),
    ("/v1/changes", "post", "Change something; JSON lines of progress, `done` last.", None, "200", types.Progress),
    ("/v1/config", "get", "Values of every module, and where each comes from.", None, "200", types.ConfigView),
    ("/v1/tokens", "post", "A token, or a client's new secret.", types.TokenRequest, "200", types.TokenView),
    ("/v1/registrations", "post", "Register an instance.", types.RegistrationRequest, "201", types.RegistrationView),
    ("/v1/registrations/{instance}", "put", "Keep a registration alive for another TTL.", None, "204", None),
    ("/v1/registrations/{instance}", "delete", "Take a registration back.", None, "204", None),
    ("/v1/environment", "get", "Variables: ?module= ?instance= ?reveal=1.", None, "200", types.EnvironmentView),
    ("/v1/runs/{instance}", "get", "JSON lines of an instance that somebody runs.", None, "200", types.RunView),
    ("/v1/runs/{instance}", "put", "The process that was started there.", types.StartedRequest, "204", None),
    ("/v1/events", "get", "JSON lines of events: ?topic= ?since= ?attribute=NAME=VALUE.", None, "200", types.EventView),
    ("/v1/events", "post", "Publish an event as the operator.", types.PublishRequest, "200", types.PublishedView),
    ("/v1/dead-letters", "get", "Events that no attempt could deliver.", None, "200", types.DeadView),
    ("/v1/dead-letters/replay", "post", "Dead letters once more.", types.ReplayRequest, "200", types.ReplayView),
    ("/v1/logs", "get", "JSON lines of logs: ?source= ?tail= ?since= ?follow=1.", None, "200", types.LogView),
    ("/v1/keys", "get", "Which keys there are, since when, when they are due; no key.", None, "200", types.KeysView),
    ("/v1/audit", "get", "The audit log's signed head and entries: ?start= ?limit=.", None, "200", types.AuditView),
    ("/v1/secrets", "get", "Which secrets are kept, used or missing; no values.", None, "200", types.SecretsView),
    ("/v1/openapi.json", "get", "This document.", None, "200", None),
]  # fmt: skip

STREAMS = {
    ("get", "/v1/watch"),
    ("post", "/v1/changes"),
    ("get", "/v1/events"),
    ("get", "/v1/runs/{instance}"),
    ("get", "/v1/dead-letters"),
    ("get", "/v1/logs"),
}

CHANGE_REQUESTS = get_args(types.ChangeRequest)


def openapi() -> dict[str, Any]:
    """The whole document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, method, summary, request, status, answer in PATHS:
        operation: dict[str, Any] = {"summary": summary, "responses": {}}
        name = (
            path.removeprefix("/v1/")
            .replace("/{instance}", "-instance")
            .replace(".json", "")
            .replace("/", "-")
        )
        operation["operationId"] = f"{method}-{name}"
        if path.endswith("{instance}"):
            operation["parameters"] = [
                {"name": "instance", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
        if path == "/v1/changes":
            one_of = [reference(kind, schemas) for kind in CHANGE_REQUESTS]
            operation["requestBody"] = content({"oneOf": one_of})
        elif request is not None:
            operation["requestBody"] = content(reference(request, schemas))
        media = "application/jsonl" if (method, path) in STREAMS else "application/json"
        response: dict[str, Any] = {"description": summary}
        if answer is not None:
            response["content"] = {media: {"schema": reference(answer, schemas)}}
        operation["responses"][status] = response
        operation["responses"]["default"] = {
            "description": "What went wrong (RFC 9457).",
            "content": {"application/problem+json": {"schema": reference(types.Problem, schemas)}},
        }
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "JUNZI IDI control API", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "http://localhost", "description": "a Unix socket in the runtime folder"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def reference(kind: type, schemas: dict[str, Any]) -> dict[str, Any]:
    """A `$ref` to a TypedDict's schema, which is added to `schemas` where missing."""
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}
        hints = get_type_hints(kind, include_extras=True)
        properties = {field: schema_of(hint, schemas) for field, hint in hints.items()}
        required = [f for f, hint in hints.items() if get_origin(hint) is not typing.NotRequired]
        schemas[name] = {"type": "object", "properties": properties, "required": required}
        if kind.__doc__:
            schemas[name]["description"] = " ".join(kind.__doc__.split())
    return {"$ref": f"#/components/schemas/{name}"}


SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def schema_of(hint: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.NotRequired:
        return schema_of(arguments[0], schemas)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], schemas)}
    if origin is UnionType and NoneType not in arguments:  # of plain values
        return {"type": [SIMPLE[each]["type"] for each in arguments]}
    if origin is UnionType:
        [inner] = [schema_of(each, schemas) for each in arguments if each is not NoneType]
        return {"oneOf": [inner, {"type": "null"}]}
    if hint in SIMPLE:
        return SIMPLE[hint]
    return reference(hint, schemas)
