"""What an Envoy is told at its start: who it is, where the plane is, its admin socket, its bounds.

Everything else comes over the stream. The file holds the credential, so it is written 0600 by whoever
starts the process. It is JSON: in YAML a node called `no` would be a boolean.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2, grpc_service_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.metrics.v3 import stats_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2 as upstream_http
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToJson

from idi.parts.gateway.envoy.arguments import NODE_CLUSTER
from idi.parts.gateway.envoy.render.clusters import HTTP_OPTIONS
from idi.parts.gateway.envoy.render.proto import ads, packed, pipe, seconds

XDS_CLUSTER = "xds"
RE2_SIZE = 20_000
MIB = 1024 * 1024

STATS = (
    "cluster_manager.",
    "control_plane.",
    "http.gateway.",
    "http.in.",
    "http.out.",
    "listener_manager.",
    "overload.",
    "server.",
    "tcp.in.",
)
"""Prefixes of what is counted. A proxy with all of its defaults keeps thousands of counters that nobody reads."""
STATS_OF_CLUSTERS = (
    "upstream_cx_active",
    "upstream_cx_connect_fail",
    "upstream_rq_retry",
    "membership_healthy",
    "ssl.fail_verify_san",
)


def bootstrap(
    node: str, credential: str, xds_socket: str, admin_socket: str, *, connections: int, heap_bytes: int
) -> bytes:
    cluster, options = xds_cluster(pipe(xds_socket))
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(options))
    metadata = (base_pb2.HeaderValue(key="authorization", value=f"Bearer {credential}"),)
    message = common_bootstrap(
        cluster, admin_socket, metadata=metadata, connections=connections, heap_bytes=heap_bytes
    )
    message.node.id = node
    message.node.cluster = NODE_CLUSTER
    return MessageToJson(message, preserving_proto_field_name=True, indent=1).encode()


def common_bootstrap(
    xds: cluster_pb2.Cluster,
    admin_socket: str,
    *,
    metadata: Sequence[base_pb2.HeaderValue],
    connections: int,
    heap_bytes: int,
) -> bootstrap_pb2.Bootstrap:
    """What is the same wherever a proxy runs; it names no node."""
    return bootstrap_pb2.Bootstrap(
        admin=bootstrap_pb2.Admin(address=pipe(admin_socket, mode=0o600), ignore_global_conn_limit=True),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(clusters=[xds]),
        dynamic_resources=_dynamic(metadata),
        stats_config=_stats(),
        # Histograms are merged when somebody asks, not every few seconds in every proxy.
        stats_flush_on_admin=True,
        overload_manager=_overload(connections, heap_bytes),
        layered_runtime=_runtime(),
    )


def xds_cluster(
    address: address_pb2.Address, silent_s: float = 30.0
) -> tuple[cluster_pb2.Cluster, upstream_http.HttpProtocolOptions]:
    """The plane, and the options of its HTTP/2 that are still to be put into it. A plane that says nothing for
    `silent_s` is asked whether it is there."""
    options = upstream_http.HttpProtocolOptions()
    keepalive = options.explicit_http_config.http2_protocol_options.connection_keepalive
    keepalive.interval.CopyFrom(seconds(silent_s))
    keepalive.timeout.CopyFrom(seconds(min(silent_s, 10.0)))
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))
    cluster = cluster_pb2.Cluster(
        name=XDS_CLUSTER,
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=seconds(1),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=XDS_CLUSTER,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )
    return cluster, options


def _dynamic(metadata: Sequence[base_pb2.HeaderValue]) -> bootstrap_pb2.Bootstrap.DynamicResources:
    # Without this a proxy comes back seconds after control does.
    again = grpc_service_pb2.GrpcService.EnvoyGrpc(
        cluster_name=XDS_CLUSTER,
        retry_policy=base_pb2.RetryPolicy(
            retry_back_off={"base_interval": seconds(0.1), "max_interval": seconds(0.5)}
        ),
    )
    service = grpc_service_pb2.GrpcService(envoy_grpc=again, initial_metadata=metadata)
    # Better to wait for the plane than to be ready with nothing.
    source = ads(wait_s=0)
    return bootstrap_pb2.Bootstrap.DynamicResources(
        ads_config=config_source_pb2.ApiConfigSource(
            api_type=config_source_pb2.ApiConfigSource.DELTA_GRPC,
            transport_api_version=config_source_pb2.ApiVersion.V3,
            grpc_services=[service],
            set_node_on_first_message_only=True,
        ),
        cds_config=source,
        lds_config=source,
    )


def _stats() -> stats_pb2.StatsConfig:
    patterns = [string_pb2.StringMatcher(prefix=prefix) for prefix in STATS]
    patterns += [string_pb2.StringMatcher(suffix=suffix) for suffix in STATS_OF_CLUSTERS]
    return stats_pb2.StatsConfig(
        stats_matcher=stats_pb2.StatsMatcher(inclusion_list=string_pb2.ListStringMatcher(patterns=patterns))
    )


def _overload(connections: int, heap_bytes: int) -> overload_pb2.OverloadManager:
    """Past the bound of connections none is accepted; near the bound of memory idle connections are closed,
    then the streams that hold most of it, then nothing new is taken."""
    heap = "envoy.resource_monitors.fixed_heap"

    def at(action: str, value: float) -> overload_pb2.OverloadAction:
        trigger = overload_pb2.Trigger(name=heap, threshold=overload_pb2.ThresholdTrigger(value=value))
        return overload_pb2.OverloadAction(name=f"envoy.overload_actions.{action}", triggers=[trigger])

    growing = overload_pb2.Trigger(
        name=heap, scaled=overload_pb2.ScaledTrigger(scaling_threshold=0.85, saturation_threshold=0.95)
    )
    return overload_pb2.OverloadManager(
        refresh_interval=seconds(0.25),
        resource_monitors=[
            overload_pb2.ResourceMonitor(
                name=heap, typed_config=packed(fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=heap_bytes))
            ),
            overload_pb2.ResourceMonitor(
                name="envoy.resource_monitors.global_downstream_max_connections",
                typed_config=packed(
                    downstream_connections_pb2.DownstreamConnectionsConfig(
                        max_active_downstream_connections=connections
                    )
                ),
            ),
        ],
        actions=[
            at("shrink_heap", 0.85),
            at("disable_http_keepalive", 0.9),
            overload_pb2.OverloadAction(
                name="envoy.overload_actions.reset_high_memory_stream", triggers=[growing]
            ),
            at("stop_accepting_requests", 0.95),
            at("stop_accepting_connections", 0.98),
        ],
        buffer_factory_config=overload_pb2.BufferFactoryConfig(minimum_account_to_track_power_of_two=17),
    )


def _runtime() -> bootstrap_pb2.LayeredRuntime:
    static = struct_pb2.Struct()
    # A path of any length is matched by one pattern (`sidecar.inbound_routes`); all of them are made here.
    sizes = {f"re2.max_program_size.{level}_level": RE2_SIZE for level in ("error", "warn")}
    static.update({"envoy.features.enable_all_deprecated_features": False, **sizes})
    return bootstrap_pb2.LayeredRuntime(layers=[bootstrap_pb2.RuntimeLayer(name="idi", static_layer=static)])
