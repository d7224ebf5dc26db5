"""A sidecar's listeners: mutual TLS in, plain loopback out.

Inbound, one per port of the module. Who may call is a policy in the route configuration, not in the
listener, so that a changed `calls` takes effect on open connections at once and closes none. For tcp there
are no routes: there the handshake itself decides, and a change ends the connections that it judged.

Outbound, one per peer: the module's `<PEER>_URL`. Load balancing, mutual TLS and further tries are done
here; time limits are the caller's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.type.matcher.v3 import regex_pb2
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from idi.parts.gateway.envoy.render import policies, replies, retries, tls
from idi.parts.gateway.envoy.render.clusters import Lives, app_cluster_name
from idi.parts.gateway.envoy.render.http import MANAGER, http_filter, internal_manager, router
from idi.parts.gateway.envoy.render.proto import ads, number, packed, seconds, socket_address
from idi.parts.gateway.envoy.resources import Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource
from idi.traffic.types import Inbound, Outbound

UNRESERVED = "-_~"
"""Beside letters and digits: what a normalised path never has encoded. The dot means something in a pattern."""

BUFFER_BYTES = 1024 * 1024
TCP_PROXY = "envoy.filters.network.tcp_proxy"


def inbound_name(inbound: Inbound) -> str:
    return f"in.{inbound.port_name}"


def inbound_listener(inbound: Inbound, trust_domain: str, lives: Lives, callers: str = "") -> Resource:
    """`callers` names the secret that says who may come, where its protocol is tcp."""
    name, app = inbound_name(inbound), app_cluster_name(inbound.port_name)
    http = inbound.protocol != "tcp"
    needs = [
        *(tls.NEEDS if http else ((Kind.SECRET, tls.IDENTITY), (Kind.SECRET, callers))),
        (Kind.CLUSTER, app),
    ]
    chain = listener_components_pb2.FilterChain(
        transport_socket=tls.downstream(trust_domain, tls.BETWEEN_PROXIES)
        if http
        else tls.downstream_from(callers),
        transport_socket_connect_timeout=seconds(10),
    )
    if http:
        manager = internal_manager(name)
        manager.rds.config_source.CopyFrom(ads())
        manager.rds.route_config_name = name
        manager.common_http_protocol_options.max_connection_duration.CopyFrom(
            seconds(1.5 * lives.connection_s)
        )
        manager.forward_client_cert_details = hcm.HttpConnectionManager.SANITIZE_SET
        manager.set_current_client_cert_details.uri = True
        manager.local_reply_config.CopyFrom(replies.inbound_replies())
        manager.http_filters.extend([http_filter(policies.FILTER, policies.http_refuse_all()), router()])
        chain.filters.append(_filter(MANAGER, manager))
        needs.append((Kind.ROUTES, name))
    else:
        chain.filters.append(_filter(TCP_PROXY, _tcp(name, app)))
    listener = _listener(name, inbound.mesh_address, inbound.mesh_port, chain)
    listener.traffic_direction = 1  # INBOUND: what `drain` addresses
    return encode_resource(Kind.LISTENER, name, listener, tuple(needs))


def inbound_routes(inbound: Inbound) -> Resource:
    name, app = inbound_name(inbound), app_cluster_name(inbound.port_name)
    everything = route.Route(match=route.RouteMatch(prefix="/"), route=_to(app))
    host = route.VirtualHost(name=name, domains=["*"], routes=[*_reserved(inbound, app), everything])
    host.typed_per_filter_config[policies.FILTER].CopyFrom(packed(policies.http_callers(inbound.allowed)))
    message = route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[host],
        # A module cannot speak as its proxy.
        response_headers_to_remove=list(retries.MARKS),
    )
    return encode_resource(Kind.ROUTES, name, message, ((Kind.CLUSTER, app),))


def _reserved(inbound: Inbound, app: str) -> Iterator[route.Route]:
    """However a path is written that the module may take for this one. What is left of that when the path has been
    normalised are further slashes and encoded ones, parameters, the case of letters, characters encoded that need not
    be, and steps back that look like none (`..;`, `..%2f`): the latter are nobody's way where anything is reserved."""
    spellings = [_spelling(path) for path in inbound.reserved]
    for spelling in [*spellings, r".*\.\.(;|%2f|%5c).*"] if spellings else []:
        match = regex_pb2.RegexMatcher(regex=f"(?i){spelling}")
        only = route.Route(match=route.RouteMatch(safe_regex=match), route=_to(app))
        only.typed_per_filter_config[policies.FILTER].CopyFrom(
            packed(policies.http_callers((inbound.reserved_for,)))
        )
        yield only


def _spelling(path: str) -> str:
    slash, parameter = "(/|%2f)+", "(;[^/]*)?"
    steps = [
        "".join(c if c.isalnum() or c in UNRESERVED else f"({re.escape(c)}|%{ord(c):02x})" for c in step)
        for step in path.split("/")
        if step
    ]
    return slash + (parameter + slash).join(steps) + f"{parameter}(/|%2f)*"


def outbound_listener(outbound: Outbound) -> Resource:
    name = f"out.{outbound.service}"
    chain = listener_components_pb2.FilterChain()
    if outbound.protocol == "tcp":
        chain.filters.append(_filter(TCP_PROXY, _tcp(name, outbound.service)))
    else:
        manager = internal_manager(name)
        manager.route_config.CopyFrom(_outbound_routes(name, outbound.service))
        manager.local_reply_config.CopyFrom(replies.outbound_replies())
        manager.http_filters.append(router())
        chain.filters.append(_filter(MANAGER, manager))
    listener = _listener(name, "127.0.0.1", outbound.listen_port, chain)
    listener.traffic_direction = 2  # OUTBOUND
    # A drain of the inbound side must leave the module its way out while it finishes.
    listener.drain_type = listener_pb2.Listener.MODIFY_ONLY
    return encode_resource(Kind.LISTENER, name, listener, ((Kind.CLUSTER, outbound.service),))


def _outbound_routes(name: str, service: str) -> route_pb2.RouteConfiguration:
    safe, other = _to(service), _to(service)
    safe.retry_policy.CopyFrom(retries.policy(idempotent=True))
    other.retry_policy.CopyFrom(retries.policy(idempotent=False))
    routes = [
        route.Route(match=route.RouteMatch(prefix="/", headers=[retries.idempotent_methods()]), route=safe),
        route.Route(match=route.RouteMatch(prefix="/"), route=other),
    ]
    for each in routes:
        each.request_body_buffer_limit.value = retries.BUFFER_BYTES
    return route_pb2.RouteConfiguration(
        name=name,
        virtual_hosts=[route.VirtualHost(name=name, domains=["*"], routes=routes)],
        response_headers_to_remove=list(retries.MARKS),
        validate_clusters={"value": False},
    )


def _to(cluster: str) -> route.RouteAction:
    return route.RouteAction(
        cluster=cluster,
        cluster_not_found_response_code=route.RouteAction.SERVICE_UNAVAILABLE,
        timeout=seconds(0),
        max_stream_duration=route.RouteAction.MaxStreamDuration(grpc_timeout_header_max=seconds(0)),
    )


def _tcp(name: str, cluster: str) -> tcp_proxy_pb2.TcpProxy:
    return tcp_proxy_pb2.TcpProxy(
        stat_prefix=name, cluster=cluster, idle_timeout=seconds(24 * 3600), max_connect_attempts=number(3)
    )


def _listener(
    name: str, address: str, port: int, chain: listener_components_pb2.FilterChain
) -> listener_pb2.Listener:
    return listener_pb2.Listener(
        name=name,
        address=socket_address(address, port),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=number(BUFFER_BYTES),
        stat_prefix=name,
        # One worker needs no more than one socket, and a second process on the port must fail, not share it.
        enable_reuse_port=wrappers_pb2.BoolValue(value=False),
    )


def _filter(name: str, config: Message) -> listener_components_pb2.Filter:
    return listener_components_pb2.Filter(name=name, typed_config=packed(config))
