"""What proxies say themselves: problem+json (RFC 9457), and the marks for the caller's proxy.

The first mapper that matches wins, so each case is written once for gRPC, whose message must stay text, and
once for the rest. A sidecar adds Envoy's own words as `reason`, for the reader is a developer of the
platform. The gateway says only what a stranger may know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2

from idi.parts.gateway.envoy.render import retries, tokens
from idi.parts.gateway.envoy.render.proto import header

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
REQUEST_ID = "x-request-id"
EARLY = (400, 408, 426, 431)
ENVOYS_WORDS = "%LOCAL_REPLY_BODY%"
NOWHERE = "the service cannot be reached right now"
NO_INSTANCE = "no instance can be reached"
NOWHERE_FLAGS = ("UH", "UF", "UO", "URX", "UC", "UR", "NC")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of reply: when (response flags, or a status), what it says, which headers it carries."""

    title: str
    detail: str
    flags: tuple[str, ...] = ()
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


UNAUTHORISED = Case("Unauthorized", "a valid token is needed", status=401)


def inbound_replies() -> hcm.LocalReplyConfig:
    """In front of the module: tell the caller's proxy whether the module saw the request."""
    return _config(
        [
            Case(
                "Service Unavailable",
                "the instance does not accept connections",
                flags=retries.NOT_SENT_FLAGS,
                headers={retries.NOT_SENT: "1", "retry-after": str(RETRY_AFTER_S)},
            ),
            Case(
                "Service Unavailable",
                "the instance went away before it answered",
                flags=retries.LOST_FLAGS,
                headers={retries.LOST: "1", "retry-after": str(RETRY_AFTER_S)},
            ),
            Case(
                "Forbidden",
                "the caller has not declared this call, or the relay alone may make it",
                status=403,
            ),
        ],
        "the sidecar refused the request",
        ENVOYS_WORDS,
    )


def outbound_replies() -> hcm.LocalReplyConfig:
    """In front of what a module calls."""
    config = _config([_nowhere(NO_INSTANCE)], "the sidecar refused the request", ENVOYS_WORDS)
    config.mappers.insert(0, _not_kept(NO_INSTANCE))
    return config


def gateway_replies() -> hcm.LocalReplyConfig:
    cases = [
        _nowhere(NOWHERE),
        Case("Bad Request", "the request is malformed", status=400),
        UNAUTHORISED,
        Case(
            "Forbidden",
            "the token does not carry the scopes that this route needs",
            status=403,
            headers={"www-authenticate": 'Bearer error="insufficient_scope"'},
        ),
        Case("Not Found", "nothing is served under this path", status=404),
        Case("Request Timeout", "the request did not arrive in time", status=408),
        Case("Content Too Large", "the body is larger than this route accepts", status=413),
        Case("Upgrade Required", "another protocol is needed", status=426),
        Case("Too Many Requests", "the limit for this client is reached", status=429),
        Case("Request Header Fields Too Large", "the headers are larger than is accepted", status=431),
        Case("Bad Gateway", "the service gave no valid answer", status=502),
        Case("Service Unavailable", "overloaded", status=503, headers={"retry-after": str(RETRY_AFTER_S)}),
        Case("Gateway Timeout", "the service did not answer in time", status=504),
    ]
    config = _config(cases, "the request was refused")
    first = [
        _not_kept(NOWHERE),
        _not_forbidden(),
        *(_too_early(case) for case in cases if case.status in EARLY),
    ]
    return hcm.LocalReplyConfig(mappers=[*first, *config.mappers])


def _too_early(case: Case) -> hcm.ResponseMapper:
    """A request that could not be read has no id yet, and Envoy answers before it makes one: make one here."""
    has_none = accesslog_pb2.AccessLogFilter(
        header_filter=accesslog_pb2.HeaderFilter(
            header=route_components_pb2.HeaderMatcher(name=REQUEST_ID, present_match=True, invert_match=True)
        )
    )
    body = _problem(case.title, case.detail, request_id=f"%RESP({REQUEST_ID})%")
    return _mapper(_both(_status(case.status), has_none), body, {REQUEST_ID: "%UNIQUE_ID%"})


def _not_forbidden() -> hcm.ResponseMapper:
    """The token filter answers 403 to a token for another audience; by RFC 6750 that token is invalid: 401."""
    refused = accesslog_pb2.MetadataFilter(
        matcher=metadata_pb2.MetadataMatcher(
            filter=tokens.FILTER,
            path=[metadata_pb2.MetadataMatcher.PathSegment(key=tokens.REFUSED)],
            value=value_pb2.ValueMatcher(present_match=True),
        ),
        match_if_key_not_found={"value": False},
    )
    mapper = _mapper(
        _both(_status(403), accesslog_pb2.AccessLogFilter(metadata_filter=refused)),
        _problem(UNAUTHORISED.title, UNAUTHORISED.detail, status=401),
        {},
    )
    mapper.status_code.value = 401
    return mapper


def _not_kept(detail: str) -> hcm.ResponseMapper:
    """Another try was due but its body too large to have been kept: Envoy's 507 means 'try again'."""
    mapper = _mapper(
        _status(507),
        _problem("Service Unavailable", detail, status=503),
        {"retry-after": str(RETRY_AFTER_S)},
    )
    mapper.status_code.value = 503
    return mapper


def _nowhere(detail: str) -> Case:
    return Case(
        "Service Unavailable", detail, flags=NOWHERE_FLAGS, headers={"retry-after": str(RETRY_AFTER_S)}
    )


def _config(cases: Iterable[Case], otherwise: str, reason: str = "") -> hcm.LocalReplyConfig:
    mappers = []
    for case in cases:
        when = _flags(case.flags) if case.flags else _status(case.status)
        # An answer to gRPC has status 200 by then, so it is known by its flags alone.
        if case.flags:
            mappers.append(_mapper(_both(when, _grpc()), _text(case.detail), case.headers))
        mappers.append(_mapper(when, _problem(case.title, case.detail, reason=reason), case.headers))
    mappers.append(_mapper(_grpc(), _text(ENVOYS_WORDS), {}))
    rest = _problem("Error", otherwise, reason=reason)
    mappers.append(_mapper(_status(400, accesslog_pb2.ComparisonFilter.GE), rest, {}))
    return hcm.LocalReplyConfig(mappers=mappers)


def _mapper(
    when: accesslog_pb2.AccessLogFilter,
    body: substitution_format_string_pb2.SubstitutionFormatString,
    headers: Mapping[str, str],
) -> hcm.ResponseMapper:
    return hcm.ResponseMapper(
        filter=when,
        body_format_override=body,
        headers_to_add=[header(name, value) for name, value in headers.items()],
    )


def _problem(
    title: str, detail: str, *, status: int = 0, request_id: str = f"%REQ({REQUEST_ID})%", reason: str = ""
) -> substitution_format_string_pb2.SubstitutionFormatString:
    text = substitution_format_string_pb2.SubstitutionFormatString(content_type=MEDIA_TYPE)
    members = {
        "type": "about:blank",
        "title": title,
        "status": status or "%RESPONSE_CODE%",
        "detail": detail,
        "request_id": request_id,
    }
    text.json_format.update(members | ({"reason": reason} if reason else {}))
    return text


def _text(words: str) -> substitution_format_string_pb2.SubstitutionFormatString:
    return substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(inline_string=words), content_type="text/plain"
    )


def _flags(flags: tuple[str, ...]) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=flags))


def _status(status: int, op: int = accesslog_pb2.ComparisonFilter.EQ) -> accesslog_pb2.AccessLogFilter:
    comparison = accesslog_pb2.ComparisonFilter(
        op=op,
        value=base_pb2.RuntimeUInt32(default_value=status, runtime_key=f"idi.reply.{status}"),
    )
    return accesslog_pb2.AccessLogFilter(
        status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=comparison)
    )


def _grpc() -> accesslog_pb2.AccessLogFilter:
    matcher = route_components_pb2.HeaderMatcher(
        name="content-type", string_match=string_pb2.StringMatcher(prefix="application/grpc")
    )
    return accesslog_pb2.AccessLogFilter(header_filter=accesslog_pb2.HeaderFilter(header=matcher))


def _both(*filters: accesslog_pb2.AccessLogFilter) -> accesslog_pb2.AccessLogFilter:
    return accesslog_pb2.AccessLogFilter(and_filter=accesslog_pb2.AndFilter(filters=filters))
