"""Errors as problem documents (RFC 9457), by whose fault they were; the same at every server of control."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from idi.api.problem import MEDIA_TYPE, problem
from idi.api.types import Problem
from idi.parts.errors import IdiError, PartError, Refused

log = logging.getLogger(__name__)


class Invalid(Exception):
    """The declaration (or a request) is invalid; `mistakes` are FILE:LINE:COL messages."""

    def __init__(self, mistakes: list[str], detail: str = "The declaration is invalid.") -> None:
        super().__init__(detail)
        self.detail = detail
        self.mistakes = mistakes


def problem_response(document: Problem) -> web.Response:
    return web.Response(
        status=document["status"],
        body=json.dumps(document).encode(),
        content_type=MEDIA_TYPE,
    )


def problem_of(error: Exception) -> Problem:
    """Which problem an error is, by whose fault it was."""
    match error:
        case Invalid():
            return problem(422, "Invalid declaration", error.detail, mistakes=error.mistakes)
        case Refused():
            return problem(409, "Refused", error.message, error.way_out)
        case PartError():
            return problem(503, "A part failed", error.message, error.way_out)
        case IdiError():
            return problem(500, "Failed", error.message, error.way_out)
        case web.HTTPException():
            return problem(error.status, error.reason, error.text or error.reason)
    return problem(500, "A bug of IDI", f"{type(error).__name__}.", "Its log says more: idi logs control.")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        document = problem_of(error)
        if document["status"] == 500:
            log.exception("%s %s", request.method, request.path)
        return problem_response(document)
