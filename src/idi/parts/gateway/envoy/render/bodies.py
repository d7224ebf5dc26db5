"""How large a request body may be.

A body that announces its length is refused by that (see `routes`) and streams through otherwise: both
versions of HTTP hold a sender to its word. Only a body of unannounced length has to be collected before it
can be judged; gRPC and upgrades are streams by nature and are left alone, as are routes without a time
limit, which are declared streams.
"""

from __future__ import annotations

from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2
from xds.type.matcher.v3 import matcher_pb2, regex_pb2, string_pb2

from idi.parts.gateway.envoy.render.proto import extension, number, packed

FILTER = "idi.body"
BUFFER = "envoy.filters.http.buffer"
_List = matcher_pb2.Matcher.MatcherList


def collector(most_bytes: int) -> extension_matcher_pb2.ExtensionWithMatcher:
    """The buffer filter, passed over for what need not be collected."""
    skip = _List.FieldMatcher(
        predicate=_List.Predicate(
            or_matcher=_List.Predicate.PredicateList(
                predicate=[
                    _header("content-length", "[0-9]+"),
                    _header("upgrade", ".+"),
                    _header("content-type", "application/grpc.*"),
                ]
            )
        ),
        on_match=matcher_pb2.Matcher.OnMatch(
            action=extension_pb2.TypedExtensionConfig(
                name="skip", typed_config=packed(skip_action_pb2.SkipFilter())
            )
        ),
    )
    return extension_matcher_pb2.ExtensionWithMatcher(
        xds_matcher=matcher_pb2.Matcher(matcher_list=_List(matchers=[skip])),
        extension_config=extension(BUFFER, buffer_pb2.Buffer(max_request_bytes=number(most_bytes))),
    )


def at_most(most_bytes: int) -> buffer_pb2.BufferPerRoute:
    return buffer_pb2.BufferPerRoute(buffer=buffer_pb2.Buffer(max_request_bytes=number(most_bytes)))


def unbounded() -> buffer_pb2.BufferPerRoute:
    return buffer_pb2.BufferPerRoute(disabled=True)


def _header(name: str, expression: str) -> Message:
    predicate: Message = _List.Predicate(
        single_predicate=_List.Predicate.SinglePredicate(
            input=extension_pb2.TypedExtensionConfig(
                name=name, typed_config=packed(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=name))
            ),
            value_match=string_pb2.StringMatcher(
                safe_regex=regex_pb2.RegexMatcher(google_re2={}, regex=expression)
            ),
        )
    )
    return predicate
