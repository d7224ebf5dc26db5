"""The gateway's access log: one JSON object a line. No query, no header that could hold a secret."""

from __future__ import annotations

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2

from idi.parts.gateway.envoy.render import tokens
from idi.parts.gateway.envoy.render.proto import packed

FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "service": "%UPSTREAM_CLUSTER%",
    "instance": "%UPSTREAM_HOST%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "client": f"%DYNAMIC_METADATA({tokens.FILTER}:{tokens.PAYLOAD}:sub)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace": "%REQ(TRACEPARENT)%",
}


def json_log(path: str) -> accesslog_pb2.AccessLog:
    line = substitution_format_string_pb2.SubstitutionFormatString(omit_empty_values=True)
    line.json_format.update(FIELDS)
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.file",
        typed_config=packed(file_pb2.FileAccessLog(path=path, log_format=line)),
    )
