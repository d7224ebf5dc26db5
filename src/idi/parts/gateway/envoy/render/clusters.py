"""Where requests can go: services by their assignment, the module behind a sidecar, the issuer.

A service's cluster is the same for all its callers. Its members come by EDS alone: there is no active health
check, membership is the platform's word, sent within milliseconds. Outlier detection only bridges the time
until then, and never takes out more than half. A machine that vanished without a word is noticed by the kernel,
which costs an idle proxy nothing: what is sent and not acknowledged, or asked and not answered, for `SILENT_S` ends
the connection, and what may be tried again is. Each revision is a locality, so shares are weights of
localities and a shift is an assignment, not a route. A member that is taken out finishes its requests.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, protocol_pb2, socket_option_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream_http
from envoy.type.v3 import percent_pb2

from idi.parts.gateway.envoy.render import tls
from idi.parts.gateway.envoy.render.http import http2_between_proxies
from idi.parts.gateway.envoy.render.proto import (
    ads,
    flag,
    is_ip,
    number,
    packed,
    pipe,
    seconds,
    socket_address,
)
from idi.parts.gateway.envoy.resources import Key, Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource
from idi.traffic.types import Inbound, Service, TlsServer

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
CONNECT_TIMEOUT_S = 1.0
SILENT_S = 3.0
"""Four tries of the kernel to send the same again; a proxy that is slow is not silent, its kernel acknowledges."""
TCP_USER_TIMEOUT = (6, 18)
"""Level and name of the socket option on Linux."""
BUFFER_BYTES = 1024 * 1024
APP_IDLE_S = 1.5
"""Idle connections to the module are given up before its own server does so (gunicorn: 2 s, Node: 5 s), or a
request would meet a connection that is just being closed."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long connections between proxies live: a third of a certificate's life, so that one opened just
    before a rotation (at a third) ends while its certificate is still good."""

    certificate_s: float

    @property
    def connection_s(self) -> float:
        return max(self.certificate_s / 3, 1.0)


def service_cluster(service: Service, lives: Lives) -> Resource:
    if service.address is not None:
        return _external(service, *service.address)
    cluster = _cluster(service.name)
    cluster.type = cluster_pb2.Cluster.EDS
    cluster.eds_cluster_config.eds_config.CopyFrom(ads())
    cluster.eds_cluster_config.service_name = service.name
    _notice_silence(cluster)
    http = service.protocol != "tcp"
    cluster.transport_socket.CopyFrom(tls.upstream(service.identity, tls.BETWEEN_PROXIES if http else ""))
    if http:
        options = upstream_http.HttpProtocolOptions(
            common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
                idle_timeout=seconds(300), max_connection_duration=seconds(lives.connection_s)
            ),
        )
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2_between_proxies())
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(options))
    return encode_resource(Kind.CLUSTER, service.name, cluster, ((Kind.ASSIGNMENT, service.name), *tls.NEEDS))


def _notice_silence(cluster: cluster_pb2.Cluster) -> None:
    keepalive = cluster.upstream_connection_options.tcp_keepalive
    for field in (keepalive.keepalive_time, keepalive.keepalive_interval):
        field.value = 1
    keepalive.keepalive_probes.value = int(SILENT_S)
    if sys.platform == "linux":  # proxies run where this does, or in pods
        level, name = TCP_USER_TIMEOUT
        option = socket_option_pb2.SocketOption(
            level=level, name=name, int_value=int(SILENT_S * 1000), description="a peer that is gone"
        )
        cluster.upstream_bind_config.CopyFrom(address_pb2.BindConfig(socket_options=[option]))


def _external(service: Service, host: str, port: int) -> Resource:
    cluster = _cluster(service.name)
    cluster.type = cluster_pb2.Cluster.STATIC if is_ip(host) else cluster_pb2.Cluster.STRICT_DNS
    cluster.load_assignment.CopyFrom(_one(service.name, socket_address(host, port)))
    if service.protocol == "grpc":
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(_plain_http2()))
    return encode_resource(Kind.CLUSTER, service.name, cluster)


def app_cluster_name(port_name: str) -> str:
    return f"app.{port_name}"


def app_cluster(inbound: Inbound) -> Resource:
    """The module itself, on its loopback port, in plain."""
    name = app_cluster_name(inbound.port_name)
    cluster = _cluster(name)
    cluster.ClearField("outlier_detection")
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(_one(name, socket_address("127.0.0.1", inbound.app_port)))
    if inbound.protocol != "tcp":
        options = _plain_http2() if inbound.protocol == "grpc" else upstream_http.HttpProtocolOptions()
        if inbound.protocol == "http":
            options.explicit_http_config.http_protocol_options.SetInParent()
        options.common_http_protocol_options.idle_timeout.CopyFrom(seconds(APP_IDLE_S))
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(options))
    return encode_resource(Kind.CLUSTER, name, cluster)


def socket_cluster(name: str, path: str) -> Resource:
    """An HTTP server on a Unix socket (the embedded issuer)."""
    cluster = _cluster(name)
    cluster.ClearField("outlier_detection")
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(_one(name, pipe(path)))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(_plain_http1()))
    return encode_resource(Kind.CLUSTER, name, cluster)


def server_cluster(name: str, server: TlsServer, roots: Key) -> Resource:
    """The same on another machine (the embedded issuer beside gateways in a cluster)."""
    cluster = _cluster(name)
    cluster.ClearField("outlier_detection")
    cluster.type = cluster_pb2.Cluster.STATIC if is_ip(server.host) else cluster_pb2.Cluster.STRICT_DNS
    cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED
    cluster.load_assignment.CopyFrom(_one(name, socket_address(server.host, server.port)))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(_plain_http1()))
    cluster.transport_socket.CopyFrom(tls.named(server.host, roots[1]))
    return encode_resource(Kind.CLUSTER, name, cluster, (roots,))


def web_cluster(name: str, host: str, port: int, *, secure: bool) -> Resource:
    """A server of the public web by its name (an external issuer's keys)."""
    cluster = _cluster(name)
    cluster.connect_timeout.CopyFrom(seconds(5))
    cluster.type = cluster_pb2.Cluster.STATIC if is_ip(host) else cluster_pb2.Cluster.STRICT_DNS
    cluster.load_assignment.CopyFrom(_one(name, socket_address(host, port)))
    if secure:
        cluster.transport_socket.CopyFrom(tls.public(host))
    return encode_resource(Kind.CLUSTER, name, cluster)


def _cluster(name: str) -> cluster_pb2.Cluster:
    """What all have in common. The bounds are per proxy; what exceeds one is answered 503 at once. The retry
    budget bounds tries to as many as there are requests: only what no module has seen, or what is idempotent,
    is ever tried again (render.retries), and when one of two instances dies nearly all requests need it."""
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=number(4096),
        max_pending_requests=number(4096),
        max_requests=number(8192),
        retry_budget=circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget(
            budget_percent=percent_pb2.Percent(value=100.0), min_retry_concurrency=number(100)
        ),
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        per_connection_buffer_limit_bytes=number(BUFFER_BYTES),
        lb_policy=cluster_pb2.Cluster.LEAST_REQUEST,
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds]),
        outlier_detection=outlier_detection_pb2.OutlierDetection(
            interval=seconds(1),
            base_ejection_time=seconds(2),
            max_ejection_time=seconds(30),
            max_ejection_percent=number(50),
            always_eject_one_host=flag(False),
            split_external_local_origin_errors=True,
            consecutive_local_origin_failure=number(3),
            consecutive_gateway_failure=number(5),
            enforcing_consecutive_gateway_failure=number(100),
            # A module that answers 500 is unwell on every instance alike; taking some out helps nobody.
            enforcing_consecutive_5xx=number(0),
            enforcing_success_rate=number(0),
            enforcing_local_origin_success_rate=number(0),
        ),
    )
    cluster.common_lb_config.healthy_panic_threshold.value = 0.0
    cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
    # Or a shift of weights would be in use up to a second after it was acknowledged.
    cluster.common_lb_config.update_merge_window.CopyFrom(seconds(0))
    return cluster


def _plain_http2() -> upstream_http.HttpProtocolOptions:
    options = upstream_http.HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.CopyFrom(http2_between_proxies())
    return options


def _plain_http1() -> upstream_http.HttpProtocolOptions:
    options = upstream_http.HttpProtocolOptions()
    options.explicit_http_config.http_protocol_options.SetInParent()
    options.common_http_protocol_options.idle_timeout.CopyFrom(seconds(APP_IDLE_S))
    return options


def _one(cluster: str, address: object) -> endpoint_pb2.ClusterLoadAssignment:
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))
    group = endpoint_components_pb2.LocalityLbEndpoints(
        lb_endpoints=[endpoint], load_balancing_weight=number(1)
    )
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster, endpoints=[group])
