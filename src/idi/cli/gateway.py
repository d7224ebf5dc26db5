"""Asking the gateway as anybody outside would: HTTP on its address, with a token."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from idi.cli.failure import NOT_RUNNING, Failure
from idi.cli.remote import is_remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from idi.cli.invocation import Invocation

MOST_BODY_BYTES = 64 * 1024 * 1024
PATIENCE_S = 8.0
"""For a gateway on a cluster: the way to it is bound to one of its pods, and is made anew when that one goes."""
AGAIN_S = 0.2
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""What may be sent twice."""


class Answer:
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    @property
    def is_json(self) -> bool:
        kind = self.header("content-type").partition(";")[0].strip().lower()
        return kind == "application/json" or kind.endswith("+json")

    def document(self) -> Any:
        """The body as JSON, or None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request(
    url: str,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = 30.0,
    patience: float = 0.0,
) -> Answer:
    """One request. Redirects are answers like others; what cannot be reached is `Failure` with code 3. Within
    `patience` it is tried again as long as it cannot have arrived, or does no harm where it arrives twice."""
    deadline = time.monotonic() + patience
    while True:
        connection = connection_to(url, timeout)
        sent = False
        try:
            connection.connect()
            sent = True
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            data = answer.read(MOST_BODY_BYTES + 1)
            if len(data) > MOST_BODY_BYTES:
                raise Failure(
                    f"The answer is larger than {MOST_BODY_BYTES >> 20} MiB.", way_out="Ask with curl."
                )
            return Answer(answer.status, answer.getheaders(), data)
        except TimeoutError as error:
            raise Failure(f"The gateway at {url} did not answer within {timeout:g} s.") from error
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() < deadline and (not sent or method in SAFE):
                time.sleep(AGAIN_S)
                continue
            why = f"{getattr(error, 'strerror', '') or error or type(error).__name__}."
            raise Failure(
                f"The gateway at {url} cannot be reached.",
                why,
                "idi status shows how it is.",
                code=NOT_RUNNING,
            ) from error
        finally:
            connection.close()


def connection_to(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    import ssl

    return http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=timeout, context=ssl.create_default_context()
    )


def patience_of(invocation: Invocation) -> float:
    return PATIENCE_S if is_remote(invocation) else 0.0
