"""What the Kubernetes API says when it says no, in a form that a caller can decide by and a person can read.

The API answers an error with a `Status` document: a code, a `reason` in one word and a `message`. The reason alone does
not tell everything: a full quota and a missing right are both `Forbidden`, a taken name and a concurrent change are
both 409. So each case that callers treat differently has a property here, and nobody else looks at the words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from idi.parts.errors import PartError

MOST_WORDS = 400
OVERLOADED = (408, 429, 500, 502, 503, 504)


class KubernetesError(PartError):
    """The API answered, and not with what was asked for."""

    def __init__(
        self,
        message: str,
        way_out: str = "",
        *,
        status: int,
        reason: str = "",
        after_s: float = 0.0,
        said: str = "",
    ) -> None:
        super().__init__(message, way_out, retryable=status in OVERLOADED)
        self.said = said
        """The server's own words."""
        self.status = status
        self.reason = reason
        self.after_s = after_s
        """How long the server asks to be left alone; 0 where it does not say."""

    @property
    def unauthorised(self) -> bool:
        """It does not know who asks: no credential, or one that is no longer good."""
        return self.status == 401

    @property
    def forbidden(self) -> bool:
        """It knows who asks, and that one may not, or a policy is against it."""
        return self.status == 403 and not self.quota_exceeded

    @property
    def quota_exceeded(self) -> bool:
        """There is no more room in the namespace's quota."""
        return self.status == 403 and "exceeded quota" in self.message

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        return self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Somebody else changed it meanwhile, or owns a field that an apply wants to set."""
        return self.status == 409 and not self.already_exists

    @property
    def invalid(self) -> bool:
        """The document is wrong; the message says where."""
        return self.status in (400, 422)

    @property
    def expired(self) -> bool:
        """The version asked for is older than what the server remembers."""
        return self.status == 410


def refusal(method: str, place: str, status: int, raw: bytes) -> KubernetesError:
    """The error for an answer with this status and body."""
    return _from_status(f"{_doing(method)} {place}", status, document(raw), raw)


def event_error(place: str, told: Mapping[str, Any]) -> KubernetesError:
    """The error that a watch was told instead of an event."""
    code = told.get("code")
    return _from_status(f"watching {place}", code if isinstance(code, int) else 500, told, b"")


def document(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body, empty where there is none."""
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _from_status(doing: str, status: int, told: Mapping[str, Any], raw: bytes) -> KubernetesError:
    said = str(told.get("message") or raw.decode("utf-8", "replace")).strip() or f"status {status}"
    said = " ".join(said.split())
    if len(said) > MOST_WORDS:
        said = said[: MOST_WORDS - 1] + "…"
    details = told.get("details")
    after = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    error = KubernetesError(
        f"Kubernetes refused {doing}: {said.rstrip('.')}.",
        status=status,
        reason=str(told.get("reason") or ""),
        after_s=float(after) if isinstance(after, int) else 0.0,
        said=said.rstrip("."),
    )
    error.way_out = _way_out(error)
    return error


def _doing(method: str) -> str:
    return {"GET": "reading", "POST": "making", "PATCH": "changing", "DELETE": "deleting"}.get(method, method)


def _way_out(error: KubernetesError) -> str:
    if error.quota_exceeded:
        return "Raise the namespace's quota, or scale something else down."
    if error.unauthorised:
        return "Its credential is missing, has expired or was revoked."
    if error.forbidden and " cannot " in error.message:
        return "Grant it in a role of that namespace (the platform's chart has what control needs)."
    return ""
