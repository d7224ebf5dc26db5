"""The gateway's routes.

A virtual host per declared host, holding its own routes and those without a host, in the declared order;
Envoy does not fall through from one virtual host to another. Each declared route becomes several of
Envoy's: a body announced too large is refused before it is read; an upgrade (WebSocket) has no time limit;
idempotent methods have a larger retry policy than the others; a body of unannounced length is collected.

What no route names is answered 404 without asking for a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from idi.declaration.types import Cors
from idi.parts.gateway.envoy.render import bodies, policies, retries, tokens
from idi.parts.gateway.envoy.render.proto import packed, seconds
from idi.traffic.types import EmbeddedKeys, Gateway, GatewayRoute

NAME = "gateway"
ISSUER_CLUSTER = "issuer"
CORS_FILTER = "envoy.filters.http.cors"

HEALTH_PATH = "/healthz"
ISSUER_PATHS = ("/oauth2/", "/.well-known/")
ISSUER_TIMEOUT_S = 10.0

IDLE_S = 300.0
UPGRADE_IDLE_S = 3600.0

EXPOSED = ("x-request-id", "retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def configuration(gateway: Gateway) -> route_pb2.RouteConfiguration:
    hosts = sorted({each.host for each in gateway.routes if each.host})
    virtual = [_virtual_host(host, [host], gateway) for host in hosts]
    virtual.append(_virtual_host("*", ["*"], gateway))
    return route_pb2.RouteConfiguration(
        name=NAME,
        virtual_hosts=virtual,
        ignore_port_in_host_matching=True,
        response_headers_to_remove=[*retries.MARKS, "x-powered-by", "x-envoy-upstream-service-time"],
    )


def _virtual_host(name: str, domains: list[str], gateway: Gateway) -> route.VirtualHost:
    mine = [each for each in gateway.routes if each.host in ("", name)]
    routes = [
        *_own(gateway),
        *(variant for each in mine for variant in _variants(each, gateway)),
        _direct("not-found", route.RouteMatch(prefix="/"), 404),
    ]
    host = route.VirtualHost(name=name, domains=domains, routes=routes)
    if gateway.cors is not None:
        host.typed_per_filter_config[CORS_FILTER].CopyFrom(packed(_cors(gateway.cors)))
    return host


def _own(gateway: Gateway) -> Iterator[route.Route]:
    """IDI's own paths, before anything declared."""
    yield _direct("health", route.RouteMatch(path=HEALTH_PATH), 200, "ok\n")
    if isinstance(gateway.issuer, EmbeddedKeys):
        for path in ISSUER_PATHS:
            action = route.RouteAction(cluster=ISSUER_CLUSTER, timeout=seconds(ISSUER_TIMEOUT_S))
            each = route.Route(name="issuer", match=route.RouteMatch(prefix=path), route=action)
            _without_token(each)
            yield each


def _variants(each: GatewayRoute, gateway: Gateway) -> Iterator[route.Route]:
    for variant in _by_kind(each, gateway.limits.body_bytes):
        _guard(variant, each, gateway)
        yield variant


def _by_kind(each: GatewayRoute, most_bytes: int) -> Iterator[route.Route]:
    limit = min(each.body_bytes or most_bytes, most_bytes)
    yield route.Route(
        name=each.service,
        match=_match(each, [bodies.announced_beyond(limit)]),
        direct_response=route.DirectResponseAction(status=413),
    )

    upgrade = _forward(each, [route.HeaderMatcher(name="upgrade", present_match=True)])
    upgrade.route.timeout.CopyFrom(seconds(0))
    upgrade.route.idle_timeout.CopyFrom(seconds(UPGRADE_IDLE_S))
    yield upgrade

    grpc = string_pb2.StringMatcher(prefix="application/grpc")
    yield _forward(each, [route.HeaderMatcher(name="content-type", string_match=grpc)])

    for idempotent in (True, False):
        if each.timeout_s > 0:
            yield _forward(each, [bodies.announced_within(limit)], idempotent=idempotent)
            rest = _forward(each, [], idempotent=idempotent)
            _configure(rest, bodies.FILTER, bodies.collected(limit))
            yield rest
        else:
            yield _forward(each, [], idempotent=idempotent)


def _forward(
    each: GatewayRoute, headers: list[route.HeaderMatcher], *, idempotent: bool = False
) -> route.Route:
    methods = [retries.idempotent_methods()] if idempotent else []
    return route.Route(
        name=each.service,
        match=_match(each, [*headers, *methods]),
        route=_to(each, idempotent=idempotent),
    )


def _match(each: GatewayRoute, further: Iterable[route.HeaderMatcher]) -> route.RouteMatch:
    headers = [
        route.HeaderMatcher(name=header.name, string_match=string_pb2.StringMatcher(exact=header.value))
        for header in each.headers
    ]
    if each.methods:
        headers.append(retries.methods(tuple(sorted(each.methods))))
    return route.RouteMatch(prefix=each.path, headers=[*headers, *further])


def _to(each: GatewayRoute, *, idempotent: bool) -> route.RouteAction:
    action = route.RouteAction(
        cluster=each.service,
        cluster_not_found_response_code=route.RouteAction.SERVICE_UNAVAILABLE,
        timeout=seconds(each.timeout_s),
        idle_timeout=seconds(IDLE_S),
        retry_policy=retries.policy(idempotent=idempotent),
    )
    if each.rewrite and each.rewrite != each.path:
        action.prefix_rewrite = each.rewrite
    return action


def _guard(made: route.Route, each: GatewayRoute, gateway: Gateway) -> None:
    made.request_body_buffer_limit.value = retries.BUFFER_BYTES
    if each.public:
        _without_token(made)
    else:
        _configure(made, policies.FILTER, tokens.scopes_needed(each.scopes, gateway.issuer))


def _without_token(made: route.Route) -> None:
    _configure(made, tokens.FILTER, tokens.no_token())
    _configure(made, policies.FILTER, tokens.everybody())


def _direct(name: str, match: route.RouteMatch, status: int, text: str = "") -> route.Route:
    response = route.DirectResponseAction(status=status)
    if text:
        response.body.CopyFrom(base_pb2.DataSource(inline_string=text))
    made = route.Route(name=name, match=match, direct_response=response)
    _without_token(made)
    return made


def _configure(made: route.Route, name: str, config: Message) -> None:
    made.typed_per_filter_config[name].CopyFrom(packed(config))


def _cors(cors: Cors) -> cors_pb2.CorsPolicy:
    """No credentials: clients send a token, never a cookie, so an origin gains nothing by being allowed."""
    anything = any(origin == "*" for origin in cors.origins)
    origins = (
        [string_pb2.StringMatcher(prefix="")]
        if anything
        else [string_pb2.StringMatcher(exact=origin) for origin in cors.origins]
    )
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=origins,
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(EXPOSED),
        max_age=str(int(cors.max_age_s)),
        forward_not_matching_preflights={"value": False},
    )
