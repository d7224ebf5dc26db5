"""A small client of the Kubernetes API: JSON documents in, JSON documents out.

No models of Kubernetes' kinds: whoever uses a kind knows its few fields, and a path names a collection or an object
(`path("apps/v1", "deployments", namespace, name)`). Every way a call can fail is a `PartError` that says whether the
same call may succeed later; what the API itself refused is a `KubernetesError` (kubernetes_errors.py). Nothing is tried
again here but a call whose credential had just been replaced: the reconcilers above come again anyway, and only they
know whether the call still makes sense. The one thing that never gives up is a watch (kubernetes_watch.py).

Calls and streams (watches, followed logs) have connections of their own, so that any number of watches leaves room for
a call. A connection whose far end vanished without a word is noticed by the kernel's probes within half a minute.

No token, no document and no part of one is ever in an error, a repr or a log line.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import aiohttp

from idi.parts.clients.kubernetes_access import Access, Credentials, in_cluster
from idi.parts.clients.kubernetes_errors import KubernetesError, refusal
from idi.parts.clients.kubernetes_lines import bounded_lines
from idi.parts.errors import PartError

__all__ = ["Access", "Kubernetes", "KubernetesError", "Listing", "in_cluster", "path"]

FIELD_MANAGER = "idi"
TIMEOUT_S = 15.0
CONNECT_S = 5.0
CALLS = 16
STREAMS = 64
BODY_LIMIT = 32 * 1024 * 1024
PAGE = 250
MOST_ITEMS = 50_000
LOG_LINE_LIMIT = 16 * 1024
LOG_LIMIT = 4 * 1024 * 1024
SILENCE_S = 15.0
PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"

Json = dict[str, Any]
Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True, slots=True)
class Listing:
    """A collection at one moment: `version` is where a watch goes on from it."""

    items: list[Json]
    version: str


def path(api: str, kind: str, namespace: str = "", name: str = "", part: str = "") -> str:
    """`/apis/apps/v1/namespaces/NS/deployments/NAME/PART`; `kind` is the plural, `api` is `v1` or `group/version`.

    Every piece is quoted, so that no name can lead out of its place.
    """
    group, _, version = api.rpartition("/")
    pieces = ["apis", group, version] if group else ["api", version]
    if namespace:
        pieces += ["namespaces", namespace]
    pieces += [piece for piece in (kind, name, part) if piece]
    if any(piece in (".", "..") for piece in pieces):
        raise PartError(f"{'/'.join(pieces)} names nothing in Kubernetes.", retryable=False)
    return "/" + "/".join(quote(piece, safe="") for piece in pieces)


class Kubernetes:
    """One API server, as one who asks. An async context manager."""

    def __init__(self, access: Access, *, timeout_s: float = TIMEOUT_S, streams: int = STREAMS) -> None:
        """`streams` are the watches and logs that can be open at once; a further one waits."""
        self._most_streams = streams
        self.url = access.url.rstrip("/")
        self.namespace = access.namespace
        self._credentials = Credentials(access)
        self._timeout_s = timeout_s
        self._calls: aiohttp.ClientSession | None = None
        self._streams: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._calls = self._session(CALLS, aiohttp.ClientTimeout(self._timeout_s, sock_connect=CONNECT_S))
        self._streams = self._session(self._most_streams, aiohttp.ClientTimeout(None, sock_connect=CONNECT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sessions, self._calls, self._streams = (self._calls, self._streams), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    def _session(self, connections: int, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=timeout,
            # A proxy or a netrc of the user's has no business here.
            trust_env=False,
            headers={"Accept": JSON, "User-Agent": FIELD_MANAGER},
        )

    async def get(self, path: str) -> Json:
        return await self.call("GET", path)

    async def find(self, path: str) -> Json | None:
        """The object, or None where there is none."""
        try:
            return await self.call("GET", path)
        except KubernetesError as error:
            if error.not_found:
                return None
            raise

    async def listing(self, path: str, *, labels: str = "", fields: str = "", page: int = PAGE) -> Listing:
        """The whole collection, as the store has it now."""
        query = {"limit": str(page)} | selectors(labels, fields)
        items: list[Json] = []
        while True:
            answer = await self.call("GET", path, query=query)
            items += answer.get("items") or []
            about = answer.get("metadata") or {}
            if len(items) > MOST_ITEMS:
                raise PartError(f"{path} has more than {MOST_ITEMS} objects.", retryable=False)
            if not about.get("continue"):
                return Listing(items, str(about.get("resourceVersion", "")))
            # Every page is of the same moment; a pause of minutes between them would be refused as expired.
            query["continue"] = about["continue"]

    async def create(self, path: str, document: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        """Make an object in the collection at `path`."""
        return await self.call("POST", path, document, query=_writing(dry_run))

    async def apply(
        self,
        path: str,
        document: Mapping[str, Any],
        *,
        force: bool = False,
        dry_run: bool = False,
        manager: str = FIELD_MANAGER,
    ) -> Json:
        """Server-side apply of the object at `path`: fields named before and no longer are removed.

        A field that another manager owns is a `conflict`, unless `force` takes it over.
        """
        query = _writing(dry_run) | {"force": "true" if force else "false", "fieldManager": manager}
        return await self.call("PATCH", path, document, query=query, kind=APPLY)

    async def patch(self, path: str, changes: Mapping[str, Any], *, dry_run: bool = False) -> Json:
        """A merge patch: what is named is set, null removes."""
        return await self.call("PATCH", path, changes, query=_writing(dry_run), kind=MERGE)

    async def delete(
        self,
        path: str,
        *,
        propagation: Propagation = "Background",
        grace_s: int | None = None,
        uid: str = "",
        dry_run: bool = False,
    ) -> bool:
        """Ask for its deletion; False where it is not there. With `uid`, of no later one of the same name."""
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid:
            options["preconditions"] = {"uid": uid}
        if dry_run:
            # Here and not in the query, which a server that is given a body does not read.
            options["dryRun"] = ["All"]
        try:
            await self.call("DELETE", path, options)
        except KubernetesError as error:
            if error.not_found:
                return False
            raise
        return True

    async def logs(
        self,
        pod: str,
        container: str = "",
        *,
        namespace: str = "",
        tail: int = 200,
        since_s: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> list[str]:
        """The last lines of a container, LOG_LIMIT bytes at most."""
        query = _logging(container, tail, since_s, timestamps)
        query |= {"limitBytes": str(LOG_LIMIT), "previous": "true" if previous else "false"}
        place = path("v1", "pods", namespace or self.namespace, pod, "log")
        async with self._request(self._calls, "GET", place, query) as response:
            lines = bounded_lines(response.content, LOG_LINE_LIMIT, cut=True)
            return [line.decode("utf-8", "replace") async for line in lines]

    async def follow(
        self,
        pod: str,
        container: str = "",
        *,
        namespace: str = "",
        tail: int = 0,
        since_s: int | None = None,
        timestamps: bool = False,
        since: str = "",
        previous: bool = False,
        ends: bool = False,
    ) -> AsyncGenerator[str, None]:
        """Its lines as they come, until the container ends; a dropped connection is a retryable `PartError`. `ends`:
        what is there, and no more. `since` is a time as Kubernetes writes it; it knows whole seconds."""
        query = _logging(container, tail, since_s, timestamps)
        query |= {"follow": "false" if ends else "true", "previous": "true" if previous else "false"}
        query |= {"sinceTime": since} if since else {}
        place = path("v1", "pods", namespace or self.namespace, pod, "log")
        async with self.stream(place, query, SILENCE_S if ends else None) as content:
            async for line in bounded_lines(content, LOG_LINE_LIMIT, cut=True):
                yield line.decode("utf-8", "replace")

    async def call(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = JSON,
    ) -> Json:
        """One request; its answer's document."""
        body = None if document is None else json.dumps(document).encode()
        async with self._request(self._calls, method, path, query or {}, body, kind) as response:
            raw = await bounded(response)
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise PartError(f"What Kubernetes answered for {path} is no JSON object.")
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], silence_s: float | None = None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer that comes bit by bit; `silence_s` without any is an error."""
        timeout = aiohttp.ClientTimeout(None, sock_connect=CONNECT_S, sock_read=silence_s)
        async with self._request(self._streams, "GET", path, query, timeout=timeout) as response:
            _probe(response)
            try:
                yield response.content
            finally:
                # What is left of it is not worth reading.
                response.close()

    @asynccontextmanager
    async def _request(
        self,
        session: aiohttp.ClientSession | None,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        kind: str = JSON,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if session is None:
            raise RuntimeError("Kubernetes is used outside `async with`")
        headers = {"Content-Type": kind} if body is not None else {}

        async def sent() -> aiohttp.ClientResponse:
            token = self._credentials.token()
            # Until its headers are here a stream is a call like any other.
            async with asyncio.timeout(self._timeout_s):
                return await session.request(
                    method,
                    self.url + path,
                    params=query,
                    data=body,
                    headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}),
                    ssl=self._credentials.context(),
                    timeout=timeout or session.timeout,
                    allow_redirects=False,
                )

        try:
            response = await sent()
            if response.status == 401 and self._credentials.stale():
                # The token had been replaced a moment ago: with the new one the same call is good.
                response.close()
                response = await sent()
            async with response:
                if response.status >= 300:
                    raise refusal(method, path, response.status, await bounded(response))
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                self._credentials.stale()
            raise PartError(f"Kubernetes does not answer at {self.url}: {why(error)}.") from None


def selectors(labels: str, fields: str) -> dict[str, str]:
    """The query's part that chooses objects."""
    given = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in given.items() if value}


def why(error: Exception) -> str:
    """In words of ours: a library's name its classes and its options."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be found"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not of the authority that is trusted here"
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number > 0:
        return os.strerror(number).lower()
    return "the connection ended before the answer did"


async def bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, BODY_LIMIT bytes at most."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(64 * 1024):
        size += len(part)
        if size > BODY_LIMIT:
            raise PartError(f"Kubernetes answered more than {BODY_LIMIT} bytes.", retryable=False)
        parts.append(part)
    return b"".join(parts)


def _probe(response: aiohttp.ClientResponse) -> None:
    """Have the kernel ask whether the far end is still there, where it can be told how often."""
    connection = response.connection
    transport = connection.transport if connection is not None else None
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):
            found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _writing(dry_run: bool) -> dict[str, str]:
    # Strict: a field that the server does not know is an error and not a silent nothing.
    query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
    return query | {"dryRun": "All"} if dry_run else query


def _logging(container: str, tail: int, since_s: int | None, timestamps: bool) -> dict[str, str]:
    query = {"tailLines": str(tail)}
    if container:
        query["container"] = container
    if since_s is not None:
        query["sinceSeconds"] = str(max(1, since_s))
    if timestamps:
        query["timestamps"] = "true"
    return query
