"""Limits of requests: by address before a token is looked at, by client after it.

Both are token buckets, one per value (a descriptor whose value is left open). A bucket holds `requests` plus
`burst` and is filled at `requests` per `every_s`. Their number is bounded; the least recently used one is
dropped and comes back full, so the bound is far above the number of clients that a limit has to tell apart,
and a flood from ever new addresses is bounded by connections, not by this.

By address there are two: requests that bring a bearer token, and all others (also those that bring another
Authorization, such as a client's secret for the issuer: guessing has the low limit). Otherwise a flood
without tokens would shut out the clients behind the same address. IPv6 counts by /64, for whoever has one
address of such a network has all of them.
"""

from __future__ import annotations

import math

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2 as local
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2, token_bucket_pb2

from idi.declaration.types import RateLimit
from idi.parts.gateway.envoy.render import tokens
from idi.parts.gateway.envoy.render.proto import header, number, seconds
from idi.traffic.types import AddressLimit

ADDRESS_FILTER = "idi.limit.address"
CLIENT_FILTER = "idi.limit.client"

ADDRESSES = 20_000
CLIENTS = 20_000

WITH_TOKEN = "with"
WITHOUT_TOKEN = "without"
_ADDRESS = "masked_remote_address"
_Action = route.RateLimit.Action


def by_address(limit: AddressLimit) -> local.LocalRateLimit:
    config = _filter("address", ADDRESSES)
    config.rate_limits.extend(
        [_address_with(WITH_TOKEN, bearer=True), _address_with(WITHOUT_TOKEN, bearer=False)]
    )
    config.descriptors.extend(
        [
            _descriptor([("token", WITH_TOKEN), (_ADDRESS, "")], limit.requests, limit.every_s, limit.burst),
            _descriptor(
                [("token", WITHOUT_TOKEN), (_ADDRESS, "")],
                limit.anonymous_requests,
                limit.every_s,
                limit.anonymous_burst,
            ),
        ]
    )
    # One header for both: the longer wait of the two would be a lie for the other, the shorter one is tried.
    config.response_headers_to_add.append(_retry_after(limit.every_s / max(limit.anonymous_requests, 1)))
    return config


def by_client(limit: RateLimit) -> local.LocalRateLimit:
    config = _filter("client", CLIENTS)
    # Set by the token's check alone; without a token there is none, and no bucket.
    subject = _Action.RequestHeaders(
        header_name=tokens.SUBJECT_HEADER, descriptor_key="subject", skip_if_absent=True
    )
    config.rate_limits.append(route.RateLimit(actions=[_Action(request_headers=subject)]))
    config.descriptors.append(_descriptor([("subject", "")], limit.requests, limit.every_s, limit.burst))
    config.response_headers_to_add.append(_retry_after(limit.every_s / max(limit.requests, 1)))
    config.enable_x_ratelimit_headers = 1  # DRAFT_VERSION_03
    return config


def _address_with(value: str, *, bearer: bool) -> route.RateLimit:
    token = route.HeaderMatcher(
        name="authorization", string_match=string_pb2.StringMatcher(prefix="bearer ", ignore_case=True)
    )
    match = _Action.HeaderValueMatch(descriptor_key="token", descriptor_value=value, headers=[token])
    match.expect_match.value = bearer
    address = _Action.MaskedRemoteAddress(v4_prefix_mask_len=number(32), v6_prefix_mask_len=number(64))
    return route.RateLimit(
        actions=[_Action(header_value_match=match), _Action(masked_remote_address=address)]
    )


def _filter(name: str, values: int) -> local.LocalRateLimit:
    always = base_pb2.RuntimeFractionalPercent(
        default_value=percent_pb2.FractionalPercent(
            numerator=100, denominator=percent_pb2.FractionalPercent.HUNDRED
        ),
        runtime_key=f"idi.limit.{name}",
    )
    return local.LocalRateLimit(
        stat_prefix=name,
        filter_enabled=always,
        filter_enforced=always,
        max_dynamic_descriptors=number(values),
    )


def _descriptor(
    entries: list[tuple[str, str]], requests: int, every_s: float, burst: int
) -> ratelimit_pb2.LocalRateLimitDescriptor:
    return ratelimit_pb2.LocalRateLimitDescriptor(
        entries=[ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries],
        token_bucket=token_bucket_pb2.TokenBucket(
            max_tokens=requests + burst, tokens_per_fill=number(requests), fill_interval=seconds(every_s)
        ),
    )


def _retry_after(wait_s: float) -> base_pb2.HeaderValueOption:
    return header("retry-after", str(max(1, math.ceil(wait_s))))
