"""How large a request body may be.

A body that announces its length is refused by that and streams through otherwise: both versions of HTTP
hold a sender to its word. Only a body of unannounced length has to be collected before it can be judged;
gRPC and upgrades are streams by nature and are left alone, as are routes without a time limit, which are
declared streams. `routes` tells these apart; the filter that collects is off but where a route asks for it.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.type.v3 import range_pb2

from idi.parts.gateway.envoy.render.proto import number, packed

FILTER = "envoy.filters.http.buffer"
LARGEST = 2**63 - 1


def collector(most_bytes: int) -> hcm.HttpFilter:
    config = buffer_pb2.Buffer(max_request_bytes=number(most_bytes))
    return hcm.HttpFilter(name=FILTER, typed_config=packed(config), disabled=True)


def collected(most_bytes: int) -> buffer_pb2.BufferPerRoute:
    return buffer_pb2.BufferPerRoute(buffer=buffer_pb2.Buffer(max_request_bytes=number(most_bytes)))


def announced_beyond(most_bytes: int) -> route.HeaderMatcher:
    return _announced(most_bytes + 1, LARGEST)


def announced_within(most_bytes: int) -> route.HeaderMatcher:
    """A length that is no number is not within; such a body is collected like one without."""
    return _announced(0, most_bytes + 1)


def _announced(start: int, end: int) -> route.HeaderMatcher:
    return route.HeaderMatcher(name="content-length", range_match=range_pb2.Int64Range(start=start, end=end))
