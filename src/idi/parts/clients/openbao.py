"""A small typed client of OpenBao's HTTP API, over a Unix socket or an address.

Three layers, each only what the one above needs. `OpenBao` makes one request and turns every way it can
fail into a `PartError` that says whether trying again can help: no answer, sealed and overloaded can,
a refusal or a malformed request cannot. `health` never raises, because "does not answer" is one of its
results. `Session` adds a login: it holds an AppRole credential, logs in when the token it has is past
two thirds of its life, and once more when a token is refused (the store was restored, the policy
changed). Tokens are short batch tokens, which OpenBao neither stores nor renews: logging in again is the
one way to get a fresh one, so there is one path to test instead of two.

No token, credential or body is ever part of an error, a repr or a log line.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Any, Self

import aiohttp

from idi.parts.errors import PartError

BODY_LIMIT = 4 * 1024 * 1024
CONNECTIONS = 8
HEALTH_S = 3.0

Json = dict[str, Any]


class State(Enum):
    """What OpenBao says of itself, in the order in which a first start passes through it."""

    UNREACHABLE = "unreachable"
    UNINITIALISED = "uninitialised"
    SEALED = "sealed"
    STANDBY = "standby"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Health:
    state: State
    reason: str
    cluster_id: str = ""
    version: str = ""


class OpenBaoRefused(PartError):
    """OpenBao answered and said no; `status` 403 means the token, anything else the request."""

    def __init__(self, message: str, way_out: str = "", *, status: int) -> None:
        super().__init__(message, way_out, retryable=False)
        self.status = status


@dataclass(frozen=True, slots=True)
class AppRole:
    """A credential to log in with."""

    role_id: str
    secret_id: str = field(repr=False)


class OpenBao:
    """`address` is `unix:/path/to/socket` or an http(s) URL. An async context manager."""

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        if self.address.startswith("unix:"):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                self.address.removeprefix("unix:"), limit=CONNECTIONS
            )
            base = "http://openbao"
        else:
            connector, base = aiohttp.TCPConnector(limit=CONNECTIONS), self.address
        self._http = aiohttp.ClientSession(
            base,
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            # A proxy or a netrc of the user's has no business here.
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def health(self) -> Health:
        try:
            async with asyncio.timeout(HEALTH_S):
                status, answer = await self._exchange("GET", "sys/health", None, "")
        except TimeoutError:
            return Health(State.UNREACHABLE, f"it gives no answer of its health within {HEALTH_S:g} s")
        except PartError as error:
            return Health(State.UNREACHABLE, error.message.rstrip("."))
        known = {
            200: (State.ACTIVE, "active"),
            429: (State.STANDBY, "waiting to become the active server"),
            473: (State.STANDBY, "waiting to become the active server"),
            501: (State.UNINITIALISED, "no store has been made yet"),
            503: (State.SEALED, "sealed: the store is closed until its seal key opens it"),
        }
        state, reason = known.get(status, (State.UNREACHABLE, f"answered its health check with {status}"))
        return Health(state, reason, str(answer.get("cluster_id", "")), str(answer.get("version", "")))

    async def read(self, path: str, *, token: str = "") -> Json | None:
        """The answer, or None where there is nothing."""
        try:
            return await self.call("GET", path, token=token)
        except OpenBaoRefused as error:
            if error.status == 404:
                return None
            raise

    async def listing(self, path: str, *, token: str = "") -> list[str]:
        answer = await self.read(f"{path}?list=true", token=token)
        return [str(key) for key in (answer or {}).get("data", {}).get("keys", [])]

    async def write(self, path: str, body: Mapping[str, Any] | None = None, *, token: str = "") -> Json:
        return await self.call("POST", path, body or {}, token=token)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str = ""
    ) -> Json:
        status, answer = await self._exchange(method, path, body, token)
        if status < 300:
            return answer
        said = "; ".join(str(line).strip() for line in answer.get("errors") or []) or f"status {status}"
        place = path.partition("?")[0]
        if status == 503 or "sealed" in said.lower():
            raise PartError("OpenBao is sealed.", "It opens by itself when its seal key is readable.")
        if status == 429 or status >= 500:
            raise PartError(f"OpenBao could not serve {place}: {said}.")
        raise OpenBaoRefused(f"OpenBao refused {place}: {said}.", status=status)

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, token: str
    ) -> tuple[int, Json]:
        if self._http is None:
            raise RuntimeError("OpenBao is used outside `async with`")
        headers = {"X-Vault-Request": "true"}
        if token:
            headers["X-Vault-Token"] = token
        try:
            async with self._http.request(method, f"/v1/{path}", json=body, headers=headers) as response:
                raw = await _bounded(response)
                return response.status, _decoded(raw)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # aiohttp's words name the socket's path or the address, never the request.
            why = (
                "it took too long" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
            )
            raise PartError(f"OpenBao does not answer at {self.address}: {why}.") from None


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(64 * 1024):
        size += len(part)
        if size > BODY_LIMIT:
            raise PartError(f"OpenBao answered more than {BODY_LIMIT} bytes.", retryable=False)
        parts.append(part)
    return b"".join(parts)


def _decoded(raw: bytes) -> Json:
    if not raw.strip():
        return {}
    try:
        value = json.loads(raw)
    except ValueError:
        return {"errors": ["the answer is not JSON"]}
    return value if isinstance(value, dict) else {"data": value}


class Session:
    """Calls under an AppRole credential; the token is made and replaced when needed."""

    def __init__(
        self, client: OpenBao, credential: AppRole, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.client = client
        self.credential = credential
        self._monotonic = monotonic
        self._token = ""
        self._fresh_until = 0.0
        self._one_login = asyncio.Lock()

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        token = await self._usable()
        try:
            return await self.client.call(method, path, body, token=token)
        except OpenBaoRefused as error:
            if error.status != 403:
                raise
        token = await self._usable(not_this=token)
        return await self.client.call(method, path, body, token=token)

    async def login(self) -> None:
        """Log in now; raises where the credential is not accepted."""
        await self._usable(not_this=self._token)

    async def _usable(self, not_this: str | None = None) -> str:
        async with self._one_login:
            # Whoever waited here while another logged in uses that one's token.
            if self._token and self._token != not_this and self._monotonic() < self._fresh_until:
                return self._token
            self._token = ""
            asked = self._monotonic()
            answer = await self.client.write(
                "auth/approle/login",
                {"role_id": self.credential.role_id, "secret_id": self.credential.secret_id},
            )
            auth = answer.get("auth") or {}
            self._token = str(auth.get("client_token", ""))
            self._fresh_until = asked + float(auth.get("lease_duration", 0)) * 2 / 3
            return self._token
