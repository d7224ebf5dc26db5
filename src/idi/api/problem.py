"""A problem document (RFC 9457), for whoever writes one: servers, and what stands before them without their library."""

from __future__ import annotations

from idi.api.types import Problem

MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, title: str, detail: str, way_out: str = "", mistakes: list[str] | None = None
) -> Problem:
    document: Problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if way_out:
        document["way_out"] = way_out
    if mistakes:
        document["mistakes"] = mistakes
    return document
