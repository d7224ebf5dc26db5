"""The issuer's HTTP face: on a Unix socket (0600) that only the gateway's proxy reaches.

Bodies are bounded, a slow sender is cut off, and no request is logged: it carries a secret.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote_plus

from aiohttp import web

from idi.parts.errors import PartError
from idi.parts.tokens.embedded.issuer import Issuer, OAuthError

BODY_LIMIT = 16 * 1024
READ_S = 5.0
KEYS_MAX_AGE_S = 300
"""How long others may keep the key set; a key is published for longer before it signs."""

_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_KEPT = {"Cache-Control": f"public, max-age={KEYS_MAX_AGE_S}"}
_FORM = "application/x-www-form-urlencoded"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(issuer: Issuer, keys: Callable[[], str]) -> web.Application:
    """`keys` gives the public key set of this moment."""
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_problems])
    add_routes(app, issuer, keys)
    return app


def add_routes(app: web.Application, issuer: Issuer, keys: Callable[[], str]) -> None:
    """The same in an application that serves others, too; its bodies must be bounded."""

    async def token(request: web.Request) -> web.StreamResponse:
        try:
            granted = issuer.grant(*await _credentials(request))
        except OAuthError as error:
            return _refusal(error)
        return web.json_response(
            {
                "access_token": granted.access_token,
                "token_type": "Bearer",
                "expires_in": granted.expires_in,
                "scope": granted.scope,
            },
            headers=_NOT_KEPT,
        )

    async def jwks(_: web.Request) -> web.StreamResponse:
        return web.Response(text=keys(), content_type="application/json", headers=_KEPT)

    async def metadata(_: web.Request) -> web.StreamResponse:
        return web.json_response(issuer.metadata(), headers=_KEPT)

    app.router.add_post("/oauth2/token", token)
    app.router.add_get("/oauth2/jwks.json", jwks)
    app.router.add_get("/.well-known/openid-configuration", metadata)
    app.router.add_get("/.well-known/oauth-authorization-server", metadata)


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the framework itself refuses (no such path, wrong method, too large) as RFC 9457."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.Response(
            status=error.status,
            text=json.dumps({"type": "about:blank", "title": error.reason, "status": error.status}),
            content_type="application/problem+json",
            headers=headers,
        )


async def _credentials(request: web.Request) -> tuple[str, str, str]:
    """Client id, secret and scope of a well-formed request for client credentials."""
    if request.content_type != _FORM:
        raise OAuthError("invalid_request", f"The body must be {_FORM}.")
    try:
        async with asyncio.timeout(READ_S):
            body = await request.text()
    except TimeoutError:
        raise OAuthError("invalid_request", "The body did not arrive in time.", 408) from None
    except (UnicodeDecodeError, LookupError):
        raise OAuthError("invalid_request", "The body is not UTF-8.") from None
    form: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            body, keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=32
        )
    except ValueError:
        raise OAuthError("invalid_request", "The body is not a form.") from None
    for name, value in pairs:
        if name in form:
            raise OAuthError("invalid_request", "A parameter is given twice.")
        form[name] = value
    client_id, secret = _client(request.headers.getall("Authorization", []), form)
    match form.get("grant_type"):
        case "client_credentials":
            return client_id, secret, form.get("scope", "")
        case None | "":
            raise OAuthError("invalid_request", "grant_type is missing.")
        case _:
            raise OAuthError("unsupported_grant_type", "Only client_credentials is supported.")


def _client(headers: list[str], form: dict[str, str]) -> tuple[str, str]:
    if not headers:
        if not form.get("client_id") or "client_secret" not in form:
            raise OAuthError("invalid_client", "The client did not authenticate.", 401)
        return form["client_id"], form["client_secret"]
    if len(headers) > 1 or "client_secret" in form:
        raise OAuthError("invalid_request", "The client authenticates in two ways.")
    scheme, _, encoded = headers[0].partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError("invalid_client", "The client must authenticate with Basic or in the body.", 401)
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = name = secret = ""
    if not colon:
        raise OAuthError("invalid_client", "The Basic credentials are malformed.", 401)
    # RFC 6749, 2.3.1: both halves are form-encoded before they are joined.
    name, secret = unquote_plus(name), unquote_plus(secret)
    if form.get("client_id", name) != name:
        raise OAuthError("invalid_request", "client_id differs from the one that authenticated.")
    return name, secret


def _refusal(error: OAuthError) -> web.Response:
    headers = dict(_NOT_KEPT)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="idi", charset="UTF-8"'
    if error.retry_s:
        headers["Retry-After"] = str(math.ceil(error.retry_s))
    return web.json_response(
        {"error": error.code, "error_description": error.description}, status=error.status, headers=headers
    )


class HttpServer:
    """Serves an application on a Unix socket for as long as it is entered."""

    def __init__(self, app: web.Application, path: Path) -> None:
        self.path = path
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._site: web.SockSite | None = None

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        self.path.unlink(missing_ok=True)

    async def listen(self) -> None:
        """Make the socket when it is not there: at the start, and after the runtime folder vanished."""
        if self._site is not None and self.path.is_socket():
            return
        if self._site is not None:
            await self._site.stop()
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self.path))
            # Nobody can connect before `listen`, which the site calls: the mode is in force by then.
            self.path.chmod(0o600)
        except OSError as error:
            listener.close()
            raise PartError(f"The issuer cannot listen at {self.path}: {error.strerror or error}.") from error
        self._site = web.SockSite(self._runner, listener)
        await self._site.start()
