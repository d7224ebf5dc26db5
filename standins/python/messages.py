"""HTTP/1.1 messages: requests, answers and the framing of bodies, for the server and for calls to peers.

Framing follows RFC 9112 strictly (doubtful lengths are refused, not guessed), and whatever a peer can make grow is
bounded.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

MAX_HEAD = 64 * 1024
MAX_BODY = 8 * 1024 * 1024
MAX_CHUNK_LINE = 4096

REASONS = {
    100: "Continue", 101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content",
    301: "Moved Permanently", 302: "Found", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
    413: "Content Too Large", 417: "Expectation Failed", 418: "I'm a teapot", 426: "Upgrade Required",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}  # fmt: skip


class Problem(Exception):
    """Becomes an application/problem+json answer (RFC 9457)."""

    def __init__(self, status: int, detail: str, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more


def unquote(text: str) -> str:
    """Percent-decoding as forms do it; without urllib.parse, which costs more than all of this at start."""
    text = text.replace("+", " ")
    if "%" not in text:
        return text
    first, *rest = text.encode("latin-1", "replace").split(b"%")
    result = bytearray(first)
    for part in rest:
        try:
            result += bytes((int(part[:2], 16),)) + part[2:]
        except ValueError:
            result += b"%" + part
    return result.decode("utf-8", "replace")


def parameters(query: str) -> dict[str, str]:
    result: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name:
            result.setdefault(unquote(name), unquote(value))
    return result


class Request:
    """One request, complete with its body."""

    __slots__ = (
        "method",
        "path",
        "query",
        "headers",
        "body",
        "http11",
        "keep_alive",
        "length",
        "began",
        "rest",
        "query_map",
    )

    def __init__(self, method: str, target: str, headers: list[tuple[str, str]], http11: bool) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.http11 = http11
        self.body = b""
        self.keep_alive = http11
        self.length: int | None = 0  # None: chunked
        self.began = time.monotonic()
        self.rest = ""  # what follows the path's first segment
        self.query_map: dict[str, str] | None = None

    def parameter(self, name: str, default: str) -> str:
        if self.query_map is None:
            self.query_map = parameters(self.query)
        return self.query_map.get(name, default)

    def header(self, name: str) -> str | None:
        """The first value of a header; its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_map(self) -> dict[str, str]:
        """All headers, repeated ones joined as RFC 9110 section 5.3 allows."""
        result: dict[str, str] = {}
        for key, value in self.headers:
            result[key] = f"{result[key]}, {value}" if key in result else value
        return result


class Response:
    """A complete answer."""

    __slots__ = ("status", "body", "content_type", "headers")

    def __init__(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


class Stream:
    """An answer that comes in pieces: chunked, or with a length where it is known."""

    __slots__ = ("status", "pieces", "content_type", "length")

    def __init__(
        self, pieces: AsyncIterator[bytes], content_type: str, length: int | None = None, status: int = 200
    ) -> None:
        self.status = status
        self.pieces = pieces
        self.content_type = content_type
        self.length = length


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode() + b"\n")


def problem_response(problem: Problem) -> Response:
    title = REASONS.get(problem.status, "Error")
    value = {
        "type": "about:blank",
        "title": title,
        "status": problem.status,
        "detail": problem.detail,
    } | problem.more
    return Response(problem.status, json.dumps(value).encode() + b"\n", "application/problem+json")


def parse_headers(lines: list[str]) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[0] in " \t" or name[-1] in " \t":
            raise Problem(400, "a header line has no name")
        headers.append((name.lower(), value.strip(" \t")))
    return headers


def body_length(headers: list[tuple[str, str]], limit: int) -> int | None:
    """Length of a request's body: a number, or None for chunked. Doubtful framing is refused (RFC 9112 section 6)."""
    length: int | None = None
    coding: str | None = None
    for name, value in headers:
        if name == "content-length":
            if not (value.isascii() and value.isdigit()) or (length is not None and length != int(value)):
                raise Problem(400, "content-length is not one number")
            length = int(value)
        elif name == "transfer-encoding":
            coding = value.lower() if coding is None else f"{coding}, {value.lower()}"
    if coding is None:
        if length is not None and length > limit:
            raise Problem(413, f"a body may have {limit} bytes at most")
        return length or 0
    if length is not None:
        raise Problem(400, "content-length and transfer-encoding exclude each other")
    if coding != "chunked":
        raise Problem(501, "the only transfer coding known here is chunked")
    return None


class Chunked:
    """Takes the chunked coding off, in place; bounded."""

    __slots__ = ("body", "limit", "left", "state", "trailer")

    def __init__(self, limit: int) -> None:
        self.body = bytearray()
        self.limit = limit
        self.left = 0
        self.state = "size"
        self.trailer = 0

    def feed(self, buffer: bytearray) -> bool:
        """Consumes what it can of the buffer; True once the last chunk and the trailers have been read."""
        while True:
            if self.state == "data":
                taken = min(self.left, len(buffer))
                self.body += buffer[:taken]
                del buffer[:taken]
                self.left -= taken
                if self.left:
                    return False
                self.state = "end"
            if self.state == "end":
                if len(buffer) < 2:
                    return False
                if buffer[:2] != b"\r\n":
                    raise Problem(400, "a chunk is longer than its size says")
                del buffer[:2]
                self.state = "size"
            end = buffer.find(b"\r\n")
            if end < 0 or end > MAX_CHUNK_LINE:
                if len(buffer) > MAX_CHUNK_LINE:
                    raise Problem(400, "a chunk's first line is too long")
                return False
            line = bytes(buffer[:end])
            del buffer[: end + 2]
            if self.state == "trailer":
                self.trailer += end
                if self.trailer > MAX_HEAD:
                    raise Problem(431, "the trailers are too long")
                if not line:
                    return True
                continue
            size = line.partition(b";")[0].strip()
            if not size or len(size) > 8 or size.strip(b"0123456789abcdefABCDEF"):
                raise Problem(400, "a chunk's size is not a number")
            self.left = int(size, 16)
            if len(self.body) + self.left > self.limit:
                raise Problem(413, f"a body may have {self.limit} bytes at most")
            self.state = "data" if self.left else "trailer"
