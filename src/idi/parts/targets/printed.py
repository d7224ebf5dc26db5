"""A line that something printed, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogLine:
    """`source` is an instance (`jede-1`, on a cluster its pod), its sidecar (`jede-1.sidecar`) or a part (`openbao`);
    `module` is empty for what is not a module's own output. `time` says by when it was written."""

    time: float
    source: str
    module: str
    line: str
