"""The gateway's access log: one JSON object a line. No query, no header that could hold a secret.

What a request has not (a client, an instance) is null. To leave it out (`omit_empty_values`) would make Envoy
build each line as a message first, which costs half as much again as all the rest of the log.
"""

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
    "client": f"%REQ({tokens.SUBJECT_HEADER})%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace": "%REQ(TRACEPARENT)%",
}


def json_log(path: str) -> accesslog_pb2.AccessLog:
    line = substitution_format_string_pb2.SubstitutionFormatString()
    line.json_format.update(FIELDS)
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.file",
        typed_config=packed(file_pb2.FileAccessLog(path=path, log_format=line)),
    )
