"""The gateway's listener: the one door, with everything that a door at the edge needs.

The order of the filters is the order of defence: CORS answers preflights; the limit by address is before
anything that costs; then the token, the limit of its client, its scopes; then the body. Envoy's guide for
edge proxies is followed line by line in docs/edge-hardening.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import extension_pb2, protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.type.matcher.v3 import string_pb2

from idi.declaration.types import ExternalIssuer
from idi.parts.gateway.envoy.render import access_log, bodies, limits, policies, replies, routes, tls, tokens
from idi.parts.gateway.envoy.render.clusters import server_cluster, socket_cluster
from idi.parts.gateway.envoy.render.http import (
    HEADER_COUNT,
    MANAGER,
    STREAM_IDLE_S,
    changing_filter,
    http_filter,
    router,
    upgrades,
)
from idi.parts.gateway.envoy.render.proto import ads, extension, flag, number, packed, seconds, socket_address
from idi.parts.gateway.envoy.resources import Key, Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource
from idi.traffic.types import Gateway, TlsServer

LISTENER = "gateway"
HEADERS_S = 10.0
ARRIVAL_S = 300.0
BUFFER_BYTES = 32 * 1024

OURS = ("x-idi-", "x-envoy-")
STRANGERS = (
    "forwarded",
    "true-client-ip",
    "x-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
)
"""Headers by which a client could tell modules lies about itself; there is no trusted proxy before this one."""


def gateway_resources(gateway: Gateway) -> Iterator[Resource]:
    needs: list[Key] = [(Kind.CLUSTER, each) for each in sorted({each.service for each in gateway.routes})]
    listener_needs: list[Key] = [(Kind.ROUTES, routes.NAME)]
    if isinstance(gateway.issuer, ExternalIssuer):
        keys = tokens.keys_cluster(gateway.issuer)
        listener_needs.append((Kind.CLUSTER, keys.name))
        yield keys
    else:
        yield from _issuer(gateway.issuer.socket)
        needs.append((Kind.CLUSTER, routes.ISSUER_CLUSTER))
    yield encode_resource(Kind.ROUTES, routes.NAME, routes.configuration(gateway), tuple(needs))
    changing = [
        changing_filter(limits.ADDRESS_FILTER, limits.by_address(gateway.address_limit)),
        changing_filter(tokens.FILTER, tokens.authentication(gateway.issuer)),
        changing_filter(limits.CLIENT_FILTER, limits.by_client(gateway.rate_limit)),
    ]
    for _, resource in changing:
        listener_needs.append((Kind.FILTER, resource.name))
        yield resource
    if gateway.tls is not None:
        yield tls.edge_files(gateway.tls)
        listener_needs.append((Kind.SECRET, tls.EDGE))
    filters = _filters(gateway, [each for each, _ in changing])
    yield encode_resource(Kind.LISTENER, LISTENER, _listener(gateway, filters), tuple(listener_needs))


def _issuer(server: str | TlsServer) -> Iterator[Resource]:
    if isinstance(server, str):
        yield socket_cluster(routes.ISSUER_CLUSTER, server)
    else:
        yield tls.roots_file(tls.ISSUER_ROOTS, server.roots)
        yield server_cluster(routes.ISSUER_CLUSTER, server, (Kind.SECRET, tls.ISSUER_ROOTS))


def _listener(gateway: Gateway, filters: list[hcm.HttpFilter]) -> listener_pb2.Listener:
    chain = listener_components_pb2.FilterChain(
        filters=[
            listener_components_pb2.Filter(name=MANAGER, typed_config=packed(_manager(gateway, filters)))
        ],
        transport_socket_connect_timeout=seconds(10),
    )
    if gateway.tls is not None:
        chain.transport_socket.CopyFrom(tls.edge())
    return listener_pb2.Listener(
        name=LISTENER,
        stat_prefix=LISTENER,
        address=socket_address(gateway.address, gateway.port),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=number(BUFFER_BYTES),
        traffic_direction=1,
        max_connections_to_accept_per_socket_event=number(10),
    )


def _manager(gateway: Gateway, filters: list[hcm.HttpFilter]) -> hcm.HttpConnectionManager:
    manager = hcm.HttpConnectionManager(
        stat_prefix=LISTENER,
        codec_type=hcm.HttpConnectionManager.AUTO,
        http_filters=filters,
        local_reply_config=replies.gateway_replies(),
        early_header_mutation_extensions=[_forget_lies()],
        upgrade_configs=upgrades(),
        use_remote_address=flag(True),
        # Nobody is internal: an address of the laptop or of the pod network earns no trust.
        internal_address_config=hcm.HttpConnectionManager.InternalAddressConfig(unix_sockets=False),
        generate_request_id=flag(True),
        preserve_external_request_id=False,
        always_set_request_id_in_response=True,
        forward_client_cert_details=hcm.HttpConnectionManager.SANITIZE,
        server_name="idi",
        server_header_transformation=hcm.HttpConnectionManager.OVERWRITE,
        normalize_path=flag(True),
        merge_slashes=True,
        path_with_escaped_slashes_action=hcm.HttpConnectionManager.UNESCAPE_AND_REDIRECT,
        strip_trailing_host_dot=True,
        max_request_headers_kb=number(max(1, gateway.limits.header_bytes // 1024)),
        stream_idle_timeout=seconds(STREAM_IDLE_S),
        request_headers_timeout=seconds(HEADERS_S),
        # Until the request has arrived or is being answered; a route's own time starts when it has arrived.
        request_timeout=seconds(ARRIVAL_S),
        delayed_close_timeout=seconds(1),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=seconds(STREAM_IDLE_S),
            max_headers_count=number(HEADER_COUNT),
            headers_with_underscores_action=protocol_pb2.HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            max_concurrent_streams=number(100),
            initial_stream_window_size=number(64 * 1024),
            initial_connection_window_size=number(1024 * 1024),
            allow_connect=True,
        ),
    )
    manager.rds.config_source.CopyFrom(ads())
    manager.rds.route_config_name = routes.NAME
    if gateway.access_log:
        manager.access_log.append(access_log.json_log(gateway.access_log))
    return manager


def _filters(gateway: Gateway, changing: list[hcm.HttpFilter]) -> list[hcm.HttpFilter]:
    """`changing`: the limit by address, the token, the limit by client."""
    cors = [http_filter(routes.CORS_FILTER, cors_pb2.Cors())] if gateway.cors is not None else []
    return [
        *cors,
        *changing,
        http_filter(policies.FILTER, http_rbac.RBAC(rules=policies.callers(()))),
        bodies.collector(gateway.limits.body_bytes),
        # Its `x-envoy-original-path` is what the log says and what a module behind a rewrite may want.
        router(suppress_envoy_headers=False),
    ]


def _forget_lies() -> extension_pb2.TypedExtensionConfig:
    """Before anything looks at the request: what only the platform may say, and what `STRANGERS` are.

    Envoy would drop most of it by itself from an external client; but it takes loopback for internal.
    """
    change = mutation_rules_pb2.HeaderMutation
    mutations = [change(remove=name) for name in STRANGERS]
    for prefix in OURS:
        matcher = string_pb2.StringMatcher(prefix=prefix, ignore_case=True)
        mutations.append(change(remove_on_match=change.RemoveOnMatch(key_matcher=matcher)))
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        header_mutation_pb2.HeaderMutation(mutations=mutations),
    )
