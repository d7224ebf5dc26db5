"""What a handler is given, and what it may give back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, overload

from aiohttp import web

from idi.module import shapes
from idi.module.problem import MEDIA_TYPE, Problem

T = TypeVar("T")
_CALLER = re.compile(r'(?:^|;)URI="?spiffe://[^/;,"]+/[^/;,"]+/([^/;,"]+)"?(?:;|$)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """`params` are the names in the route's path (`/orders/{id}`); `raw` is aiohttp's own request, for what is not
    here."""

    raw: web.Request
    body: bytes
    params: Mapping[str, str]

    @property
    def method(self) -> str:
        return self.raw.method

    @property
    def path(self) -> str:
        return self.raw.path

    @property
    def query(self) -> Mapping[str, str]:
        return self.raw.query

    @property
    def headers(self) -> Mapping[str, str]:
        return self.raw.headers

    @property
    def caller(self) -> str:
        """The module that calls (`gateway` for one from outside), as its certificate says; empty without a platform."""
        return caller_of(self.raw)

    @property
    def subject(self) -> str:
        """Whose token it is, for a request that came by the gateway; nobody outside can set that header."""
        return self.headers.get("x-idi-subject", "")

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, kind: type[T]) -> T: ...
    def json(self, kind: Any = Any) -> Any:
        """The body, as a dataclass or what else is asked for; what does not fit is answered 422, saying why."""
        try:
            return shapes.load(self.body, kind, "body")
        except shapes.Misfit as misfit:
            raise Problem(422, f"{misfit}.") from None


def caller_of(raw: web.Request) -> str:
    """What the sidecar writes of the certificate that it saw; it lets no such header in from outside."""
    found = _CALLER.search(raw.headers.get("x-forwarded-client-cert", ""))
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """`body`: bytes and text go out as they are, everything else as JSON, None as no body."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Request], Awaitable[object]]


def response(given: object) -> web.StreamResponse:
    """Of what a handler gave back: an `Answer`, one of aiohttp's own responses (streams), or a body."""
    if isinstance(given, web.StreamResponse):
        return given
    answer = given if isinstance(given, Answer) else Answer(given, 204 if given is None else 200)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    match answer.body:
        case None:
            return web.Response(status=answer.status, headers=headers)
        case bytes():
            body, form = answer.body, "application/octet-stream"
        case str():
            body, form = answer.body.encode(), "text/plain; charset=utf-8"
        case _:
            body, form = shapes.dump(answer.body) + b"\n", "application/json"
    return web.Response(status=answer.status, body=body, headers={"content-type": form} | headers)


def response_of(problem: Problem) -> web.StreamResponse:
    return response(
        Answer(problem.document(), problem.status, {**problem.headers, "content-type": MEDIA_TYPE})
    )
