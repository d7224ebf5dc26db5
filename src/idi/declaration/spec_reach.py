"""How a module is reached: its ports, when it is ready, and the routes that lead to it."""

from __future__ import annotations

from idi.declaration.names import HEADER, HEADER_VALUE, HOST, PORT, PREFIX, PROBE, SCOPE
from idi.declaration.nodes import Table
from idi.declaration.reader import Reader
from idi.declaration.records import Field, Given, Named, Record
from idi.declaration.shapes import Choice, Flag, Many, Text, Whole
from idi.declaration.spec_gateway import METHODS
from idi.declaration.types import HeaderMatch, Readiness, Route
from idi.declaration.units import Duration, Size

PROTOCOL = Choice("http", "grpc", "tcp")
PORTS = Named(
    PORT,
    PROTOCOL,
    kind="port name",
    least=1,
    most=16,
    ordered=True,
    example={"http": "http", "admin": "http"},
)

_COMMAND = Text("a command line", r"\s*\S[\s\S]*", "./check.sh", longest=4096)


def _readiness(given: Given, _node: Table, _reader: Reader) -> Readiness:
    if "tcp" in given or "command" in given:
        given.setdefault("http", "")
    return Readiness(**{"port": "", **given})


READINESS = Record(
    "readiness",
    "When an instance counts as ready. It has one of `http`, `tcp` and `command`.",
    Readiness,
    Field("http", PROBE, "Path that answers 2xx when the instance is ready.", quiet=True),
    Field("tcp", Flag(only=True), "Ready when the port takes a connection.", quiet=True),
    Field("command", _COMMAND, "Command that ends with 0 when the instance is ready.", quiet=True),
    Field("port", PORT, "Port that is asked.", default="the first that fits"),
    Field("every", Duration("50ms", "1h", "500ms"), "How often it is asked (more often while it starts)."),
    Field("timeout", Duration("10ms", "1m", "2s"), "How long an answer may take."),
    Field("after", Whole(1, 100), "Successes in a row that make it ready."),
    Field("failures", Whole(1, 100, 2), "Failures in a row that make it unready."),
    Field("deadline", Duration("1s", "1h", "60s"), "How long it may take to become ready at first."),
    build=_readiness,
    alone=(("http", "tcp", "command"),),
)


def _route_unbuild(route: Route) -> Given:
    given = {
        name: getattr(route, name)
        for name in ("path", "rewrite", "host", "methods", "timeout_s", "body_bytes", "port")
    }
    given["headers"] = {match.name: match.value for match in route.headers}
    given["public"] = route.public
    given["scopes"] = None if route.public else route.scopes
    return given


def _given_route(given: Given, node: Table, reader: Reader) -> Given:
    """A route as written; `route` finishes it where its module is known."""
    if given.get("public") and given.get("scopes"):
        entry = node.entry("public")
        reader.report(
            entry.key if entry else node,
            "a public route needs no token, so it has no scopes; remove one of the two.",
        )
    return given


ROUTE = Record(
    "route",
    "One way from the gateway to the module.",
    Route,
    Field("path", PREFIX, "Prefix of the request's path.", needed=True),
    Field("rewrite", PREFIX, "What the prefix becomes before the module sees it.", example="/"),
    Field("host", HOST, "Only for this host name.", quiet=True, default="every host"),
    Field(
        "methods",
        Many(Choice(*METHODS)),
        "Only these methods.",
        quiet=True,
        default="every method",
        example=["GET"],
    ),
    Field(
        "headers",
        Named(HEADER, HEADER_VALUE, kind="header"),
        "Only with these headers.",
        quiet=True,
        default="none needed",
    ),
    Field(
        "scopes",
        Many(SCOPE),
        "Scopes that the token must have, all of them; [] for any valid token.",
        default="MODULE.call",
    ),
    Field("public", Flag(), "No token is needed.", quiet=True, default="false"),
    Field("timeout", Duration("0s", "1d", "5s"), "How long the answer may take; 0s for no limit (streams)."),
    Field(
        "body",
        Size("0B", "10GiB", "1MiB"),
        "Body of a request at most.",
        quiet=True,
        default="the gateway's limit",
    ),
    Field("port", PORT, "Port of the module.", default="the first that speaks HTTP"),
    build=_given_route,
    unbuild=_route_unbuild,
)


def route(module: str, port: str, given: Given) -> Route:
    """The typed route of a module whose first port for HTTP is `port`."""
    values = {"port": port, **given}
    values["headers"] = tuple(
        HeaderMatch(name, value) for name, value in sorted(given.get("headers", {}).items())
    )
    if given.get("public"):
        values["scopes"] = ()
    else:
        values.setdefault("scopes", (f"{module}.call",))
    return Route(**values)
