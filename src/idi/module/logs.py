"""Log lines on stdout, which the platform collects: JSON in a platform, plain text at a terminal. Each has the trace
and the request for which it was written. `LOG_LEVEL` and `LOG_FORMAT` (json, plain) say otherwise.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping

from idi.module import tracing

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
LEVELS = ("debug", "info", "warning", "error", "critical")


class _Line(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        more = {name: value for name, value in vars(record).items() if name not in _OWN}
        ids = {"trace_id": tracing.trace_id(), "request_id": tracing.carried().get(tracing.REQUEST_ID, "")}
        more |= {name: value for name, value in ids.items() if value}
        error = self.formatException(record.exc_info) if record.exc_info else ""
        if not self._json:
            said = " ".join([record.getMessage(), *(f"{name}={value}" for name, value in more.items())])
            return f"{record.levelname.lower()}: {said}" + (f"\n{error}" if error else "")
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "msg": record.getMessage(), **more}
        line |= {"error": error} if error else {}
        return json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":"))


def mistakes(environment: Mapping[str, str]) -> list[str]:
    level = environment.get("LOG_LEVEL", "info")
    if level.lower() in LEVELS:
        return []
    return [f"LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level[:60]!r}."]


def begin(environment: Mapping[str, str]) -> None:
    """Unless the program has set up logging of its own."""
    root = logging.getLogger()
    if root.handlers:
        return
    wanted = environment.get("LOG_FORMAT") or ("json" if "IDI_MODULE" in environment else "plain")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Line(as_json=wanted != "plain"))
    root.addHandler(handler)
    root.setLevel(environment.get("LOG_LEVEL", "info").upper())
