"""When an instance counts as ready. Alone in its file: an agent needs this of the declaration and no more."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_PORT = "http"
"""Name of the port of a module that declares none."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """When an instance counts as ready: exactly one of `http` (path), `tcp`, `command`.

    `after` successes in a row make it ready; while starting it is asked more often than `every_s`.
    """

    http: str = "/ready"
    tcp: bool = False
    command: str = ""
    port: str = DEFAULT_PORT
    every_s: float = 2.0
    timeout_s: float = 2.0
    after: int = 1
    failures: int = 2
    deadline_s: float = 60.0
