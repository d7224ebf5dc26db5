"""A small client of an API server: requests, and waiting for what its watch says.

The suite has the official command for everything a person would do; this is for what has to be quick and exact:
a wait ends with the event that it waits for, not with the next look.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import yaml

from tests.support.cluster.group import ClusterError

Found = TypeVar("Found")
REQUEST_S = 20.0
AGAIN_S = 0.05
MERGE = "application/merge-patch+json"
UNREACHABLE = (OSError, http.client.HTTPException)


class ApiError(ClusterError):
    """The API server answered, and not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True)
class Api:
    host: str
    port: int
    context: ssl.SSLContext = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Api:
        """Of its current context: a certificate as data or files, or a token; no plugin that fetches one."""
        document = yaml.safe_load(path.read_text())

        def named(kind: str, name: str) -> dict[str, Any]:
            return next(one for one in document[f"{kind}s"] if one["name"] == name)[kind]

        context = named("context", document["current-context"])
        cluster, user = named("cluster", context["cluster"]), named("user", context["user"])
        authority = cluster.get("certificate-authority-data")
        if authority:
            tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        else:
            tls = ssl.create_default_context(cafile=cluster.get("certificate-authority"))
        _load_pair(tls, user)
        headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        url = urlsplit(cluster["server"])
        return cls(url.hostname or "", url.port or 443, tls, headers)

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The answer's document; raises `ApiError`."""
        connection = self._connection(REQUEST_S)
        try:
            answer = self._send(connection, method, path, body, kind)
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(answer.status, _message(text))
        try:
            return json.loads(text)
        except ValueError:
            return text.decode(errors="replace")

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.ask("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.ask("PATCH", path, body, MERGE)

    def delete(self, path: str, *, at_once: bool = False) -> None:
        """Gone is good too."""
        body = {"gracePeriodSeconds": 0} if at_once else None
        try:
            self.ask("DELETE", path, body)
        except ApiError as error:
            if error.status != 404:
                raise

    def until(
        self,
        path: str,
        found: Callable[[list[Any]], Found],
        timeout_s: float = 30.0,
        what: str = "",
        **query: str,
    ) -> Found:
        """Watch the collection at `path` until the function finds something in it."""
        deadline = time.monotonic() + timeout_s
        last: object = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                listed = self.get(f"{path}?{urlencode(query)}")
                items = {one["metadata"]["uid"]: one for one in listed["items"]}
                if value := found(list(items.values())):
                    return value
                last = [_outline(one) for one in items.values()]
                version = listed["metadata"]["resourceVersion"]
                for event in self._watch(path, version, left, query):
                    uid = event["metadata"]["uid"]
                    if event.pop("deleted", False):
                        items.pop(uid, None)
                    else:
                        items[uid] = event
                    if value := found(list(items.values())):
                        return value
                    last = [_outline(one) for one in items.values()]
            except TimeoutError:
                continue
            except (*UNREACHABLE, ApiError) as error:
                last = last or error
                time.sleep(AGAIN_S)
        raise ClusterError(f"not within {timeout_s:g} s: {what or path}: {last}")

    def _watch(self, path: str, version: str, left: float, query: Mapping[str, str]) -> Any:
        seconds = str(max(1, int(left) + 1))
        given = {**query, "watch": "1", "resourceVersion": version, "timeoutSeconds": seconds}
        connection = self._connection(max(0.1, left))
        try:
            answer = self._send(connection, "GET", f"{path}?{urlencode(given)}", None, "")
            if answer.status >= 400:
                raise ApiError(answer.status, _message(answer.read()))
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield {**event["object"], "deleted": event["type"] == "DELETED"}
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self.context)

    def _send(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: object, kind: str
    ) -> http.client.HTTPResponse:
        headers = {**self.headers, "Content-Type": kind} if kind else dict(self.headers)
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection.getresponse()


def _load_pair(tls: ssl.SSLContext, user: Mapping[str, str]) -> None:
    """`ssl` takes a client's certificate from files alone."""
    if "client-certificate" in user:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as both:
            for name in ("client-certificate-data", "client-key-data"):
                both.write(base64.b64decode(user[name]) + b"\n")
            both.flush()
            tls.load_cert_chain(both.name)


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace")[:400]


def _outline(found: Mapping[str, Any]) -> str:
    status = found.get("status") or {}
    told = status.get("conditions") or status.get("phase") or status
    return f"{found['metadata'].get('name')}: {json.dumps(told)[:600]}"
