"""When a request is tried again, and the two headers by which proxies tell each other.

The proxy in front of a module knows what its caller's proxy cannot: whether the module saw the request.
It says so in a header of its own reply: `x-idi-not-sent` (no connection to the module, it never saw it) and
`x-idi-lost` (the module went away after the request was sent). The first is safe to try elsewhere with any
method; the second only where the method is idempotent (RFC 9110, 9.2.2). What a module itself answers is
never tried again, whatever its status, and these headers are taken off its answers.
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from idi.parts.gateway.envoy.render.proto import number, packed, seconds

NOT_SENT = "x-idi-not-sent"
LOST = "x-idi-lost"
MARKS = (NOT_SENT, LOST)

NOT_SENT_FLAGS = ("UF", "UO", "UH")
"""No connection; too many at once; nowhere to go."""
LOST_FLAGS = ("UC", "UR")
"""The connection ended or was reset under way."""

IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")

BUFFER_BYTES = 1024 * 1024
"""A body is kept for another try up to this size; a larger one streams on and is not tried again (if it is
still arriving at that moment, Envoy answers 507, which is made a 503)."""

TRIES = 3


def policy(*, idempotent: bool) -> route.RetryPolicy:
    """`reset-before-request` and `refused-stream`: the other side says it has not begun."""
    conditions = "connect-failure,refused-stream,reset-before-request,retriable-headers"
    marks = MARKS if idempotent else (NOT_SENT,)
    return route.RetryPolicy(
        retry_on=f"{conditions},reset" if idempotent else conditions,
        num_retries=number(TRIES),
        retriable_headers=[route.HeaderMatcher(name=mark, present_match=True) for mark in marks],
        retry_host_predicate=[
            route.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
        retry_back_off=route.RetryPolicy.RetryBackOff(base_interval=seconds(0.01), max_interval=seconds(0.1)),
    )


def idempotent_methods() -> route.HeaderMatcher:
    return methods(IDEMPOTENT)


def methods(names: tuple[str, ...]) -> route.HeaderMatcher:
    if len(names) == 1:
        return route.HeaderMatcher(name=":method", string_match=string_pb2.StringMatcher(exact=names[0]))
    expression = regex_pb2.RegexMatcher(regex="|".join(names))
    return route.HeaderMatcher(name=":method", string_match=string_pb2.StringMatcher(safe_regex=expression))
