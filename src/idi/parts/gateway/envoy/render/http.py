"""What all HTTP listeners have in common: codec bounds, upgrades, the router, request ids."""

from __future__ import annotations

from envoy.config.core.v3 import config_source_pb2, extension_pb2, protocol_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from google.protobuf.message import Message

from idi.parts.gateway.envoy.render.proto import ads, flag, number, packed, seconds
from idi.parts.gateway.envoy.resources import Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource

MANAGER = "envoy.filters.network.http_connection_manager"
ROUTER = "envoy.filters.http.router"

HEADER_COUNT = 100
STREAM_IDLE_S = 300.0


STREAMS = 100
STREAM_WINDOW_BYTES = 64 * 1024


def http2_between_proxies() -> protocol_pb2.Http2ProtocolOptions:
    """The connection's window holds that of all its streams, or a few slow readers at the edge would stall all
    requests that share it; beyond its streams another connection is opened. WebSocket goes by extended
    CONNECT; a peer that vanished without a word is noticed by PING."""
    return protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=number(STREAMS),
        initial_stream_window_size=number(STREAM_WINDOW_BYTES),
        initial_connection_window_size=number((STREAMS + 28) * STREAM_WINDOW_BYTES),
        allow_connect=True,
        connection_keepalive=protocol_pb2.KeepaliveSettings(interval=seconds(30), timeout=seconds(10)),
    )


def http_filter(name: str, config: Message) -> hcm.HttpFilter:
    return hcm.HttpFilter(name=name, typed_config=packed(config))


def changing_filter(name: str, config: Message) -> tuple[hcm.HttpFilter, Resource]:
    """A filter whose configuration comes apart from its listener (ECDS). A change is then in use for the next
    request on every connection; a changed listener would go on judging old connections by the old one, and
    end them."""
    source = config_source_pb2.ExtensionConfigSource(
        config_source=ads(wait_s=0), type_urls=[f"type.googleapis.com/{config.DESCRIPTOR.full_name}"]
    )
    resource = encode_resource(
        Kind.FILTER, name, extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))
    )
    return hcm.HttpFilter(name=name, config_discovery=source), resource


def router(*, suppress_envoy_headers: bool = True) -> hcm.HttpFilter:
    """Without counters of answers by status for each cluster: `bootstrap.STATS` leaves them out, but Envoy would
    make their names and look for them anew at every answer. The counters of the listener have them anyway."""
    config = router_pb2.Router(suppress_envoy_headers=suppress_envoy_headers, dynamic_stats=flag(False))
    return http_filter(ROUTER, config)


def upgrades() -> list[hcm.HttpConnectionManager.UpgradeConfig]:
    return [hcm.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")]


def internal_manager(stat_prefix: str) -> hcm.HttpConnectionManager:
    """For the listeners of a sidecar: both sides are the platform's own, the request id is the gateway's."""
    return hcm.HttpConnectionManager(
        stat_prefix=stat_prefix,
        codec_type=hcm.HttpConnectionManager.AUTO,
        server_header_transformation=hcm.HttpConnectionManager.PASS_THROUGH,
        generate_request_id=flag(True),
        preserve_external_request_id=True,
        use_remote_address=flag(False),
        skip_xff_append=True,
        normalize_path=flag(True),
        stream_idle_timeout=seconds(0),
        request_headers_timeout=seconds(10),
        delayed_close_timeout=seconds(1),
        max_request_headers_kb=number(96),
        upgrade_configs=upgrades(),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=seconds(3600), max_headers_count=number(2 * HEADER_COUNT)
        ),
        http2_protocol_options=http2_between_proxies(),
        internal_address_config=hcm.HttpConnectionManager.InternalAddressConfig(unix_sockets=False),
    )
