"""The client of the control API: HTTP/1.1 over a Unix socket, in the little that this needs.

`http.client` brings the email package, about as slow to import as everything else that `idi status`
does; and one connection per request needs no more than this. Every read has a deadline and every size a
bound, because what answers on a socket is another process. Whoever owns the folder owns the socket: a
folder that belongs to somebody else is refused before anything is sent.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Iterator

from idi.parts.errors import IdiError

TYPE_CHECKING = False  # the typing module costs the fast path as much as json
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

    from idi.api.types import (
        ChangeRequest,
        ConfigView,
        PlanView,
        Problem,
        StatusView,
        TokenRequest,
        TokenView,
    )

MOST_HEADER_BYTES = 64 * 1024
MOST_BODY_BYTES = 16 * 1024 * 1024
MOST_LINE_BYTES = 4 * 1024 * 1024
CHUNK = 64 * 1024


class NotRunning(IdiError):
    """Nobody answers on the socket, or whoever did went away in the middle."""


class Unanswered(IdiError):
    """What answered is not the control API: too slow, too large, or not HTTP."""


class Answered(IdiError):
    """An answer that is an error: `problem` is the RFC 9457 document."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title", "")), problem.get("way_out", ""))
        self.problem = problem


def nobody_leads() -> bool:
    return False


class Client:
    """One platform's control API. Each call makes a connection and closes it. Where nobody listens `lead` is asked
    whether somebody does now."""

    def __init__(self, path: str, timeout: float = 10.0, lead: Callable[[], bool] = nobody_leads) -> None:
        self.path = path
        self.timeout = timeout
        self._lead = lead

    def status(self, *, figures: bool = False) -> StatusView:
        answer: StatusView = self.ask("GET", "/v1/status?figures=1" if figures else "/v1/status")
        return answer

    def plan(self, text: str, file: str) -> PlanView:
        body = {"action": "up", "text": text, "file": file}
        answer: PlanView = self.ask("POST", "/v1/plan", body)
        return answer

    def config(self) -> ConfigView:
        answer: ConfigView = self.ask("GET", "/v1/config")
        return answer

    def token(self, request: TokenRequest) -> TokenView:
        answer: TokenView = self.ask("POST", "/v1/tokens", request)
        return answer

    def change(self, request: ChangeRequest) -> Stream:
        """Its `Progress` as it happens; closing the stream does not cancel the change."""
        return self.stream("POST", "/v1/changes", request)

    def watch(self) -> Stream:
        """`StatusView` again whenever something changes and at least every second."""
        return self.stream("GET", "/v1/watch")

    def ask(self, method: str, target: str, body: object = None) -> Any:
        """One document for one request."""
        with self._exchange() as exchange:
            exchange.send(method, target, body)
            exchange.head()
            data = exchange.rest()
            if exchange.status >= 400:
                raise Answered(problem_of(exchange.status, data))
            return document(data) if data else None

    def stream(self, method: str, target: str, body: object = None) -> Stream:
        """A document per line, until the other side ends it."""
        exchange = self._exchange()
        try:
            exchange.send(method, target, body)
            exchange.head()
            if exchange.status >= 400:
                raise Answered(problem_of(exchange.status, exchange.rest()))
        except BaseException:
            exchange.close()
            raise
        return Stream(exchange)

    def _exchange(self) -> Exchange:
        try:
            return Exchange(self.path, self.timeout)
        except NotRunning:
            if not self._lead():
                raise
        return Exchange(self.path, self.timeout)


class Stream:
    """JSON documents, a line each, as they come. Iterate it, or wait on `fileno()` and take what `ready` gives."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._lines = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        """Without a deadline: a change may take as long as it takes."""
        while (line := self._line()) or not self._exchange.ended:
            if line:
                yield document(line)
            else:
                self._fill(None)

    def fileno(self) -> int:
        return self._exchange.fileno()

    @property
    def ended(self) -> bool:
        return self._exchange.ended

    def ready(self) -> list[Any]:
        """What has come, without waiting; call it when `fileno()` can be read."""
        self._fill(0.0)
        found: list[Any] = []
        while line := self._line():
            found.append(document(line))
        return found

    def close(self) -> None:
        self._exchange.close()

    def _fill(self, timeout: float | None) -> None:
        self._lines += self._exchange.some(timeout)
        if len(self._lines) > MOST_LINE_BYTES and b"\n" not in self._lines:
            raise Unanswered(f"A line of the answer is longer than {MOST_LINE_BYTES} bytes.")

    def _line(self) -> bytes:
        """The next line that is whole and not empty, or nothing."""
        while (end := self._lines.find(b"\n")) >= 0:
            line = bytes(self._lines[:end]).strip()
            del self._lines[: end + 1]
            if line:
                return line
        return b""


class Exchange:
    """One request and its answer on one connection."""

    def __init__(self, path: str, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._socket = connect(path, timeout)
        self._data = bytearray()
        self._left = -1  # bytes of the body (or of its chunk) still to come; -1: until the end
        self._chunked = False
        self.status = 0
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, method: str, target: str, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {target} HTTP/1.1\r\nhost: control\r\nconnection: close\r\n"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        try:
            self._socket.sendall(head.encode("ascii") + b"\r\n" + content)
        except TimeoutError as error:
            raise self._slow() from error
        except OSError:
            pass  # it may have answered before it read everything: the answer says why

    def head(self) -> None:
        """Read the status line and the headers."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > MOST_HEADER_BYTES:
                raise Unanswered("The headers of the answer are too large.")
            if not self._receive():
                raise NotRunning("Control closed the connection without an answer.")
        lines = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Unanswered("What listens on the control socket does not speak HTTP.")
        self.status = int(rest[:3])
        self._body(dict(header(line) for line in lines[1:]))

    def _body(self, headers: dict[str, str]) -> None:
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length", "")
        if self._chunked:
            self._left = 0
        elif length:
            if not length.isdigit():
                raise Unanswered("The answer's content-length is no number.")
            self._left = int(length)
            self.ended = self._left == 0
        elif self.status == 204:
            self.ended = True

    def rest(self) -> bytes:
        """The whole body."""
        body = bytearray()
        while not self.ended:
            body += self.some(self._deadline - time.monotonic())
            if len(body) > MOST_BODY_BYTES:
                raise Unanswered(f"The answer is larger than {MOST_BODY_BYTES} bytes.")
        return bytes(body)

    def some(self, timeout: float | None) -> bytes:
        """Some of the body: what is there, or what comes within `timeout` (None: however long)."""
        found = self._take()
        if found or self.ended:
            return found
        if timeout != 0.0:
            self._wait(timeout)
        elif not select.select([self._socket], [], [], 0)[0]:
            return b""
        if not self._receive():
            if self._chunked or self._left > 0:
                raise NotRunning("Control went away in the middle of its answer.")
            self.ended = True
        return self._take()

    def _take(self) -> bytes:
        """Body bytes out of what was received."""
        if not self._chunked:
            taken = bytes(self._data if self._left < 0 else self._data[: self._left])
            del self._data[: len(taken)]
            if self._left >= 0:
                self._left -= len(taken)
                self.ended = self._left == 0
            return taken
        found = bytearray()
        while not self.ended:
            if self._left == 0 and not self._chunk():
                break
            taken = bytes(self._data[: max(self._left - 2, 0)])
            found += taken
            del self._data[: len(taken)]
            self._left -= len(taken)
            if self._left > 2 or len(self._data) < 2:
                break
            del self._data[:2]  # the line end after a chunk
            self._left = 0
        return bytes(found)

    def _chunk(self) -> bool:
        """Read a chunk's size into `_left` (with its line end), if it is there."""
        end = self._data.find(b"\r\n")
        if end < 0:
            if len(self._data) > 64:
                raise Unanswered("The answer's chunks are malformed.")
            return False
        try:
            size = int(bytes(self._data[:end]).partition(b";")[0], 16)
        except ValueError as error:
            raise Unanswered("The answer's chunks are malformed.") from error
        del self._data[: end + 2]
        if size == 0:
            self.ended = True
        else:
            self._left = size + 2
        return True

    def _wait(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            raise self._slow()
        if not select.select([self._socket], [], [], timeout)[0]:
            raise self._slow()

    def _receive(self) -> bool:
        """Read once; False at the end of the connection."""
        try:
            found = self._socket.recv(CHUNK)
        except TimeoutError as error:
            raise self._slow() from error
        except OSError as error:
            raise NotRunning("Control went away in the middle of its answer.") from error
        self._data += found
        return bool(found)

    def _slow(self) -> Unanswered:
        return Unanswered(
            f"Control did not answer within {self._timeout:g} s.",
            "Its log is in .idi/<env>/logs/control.log; traffic goes on without it.",
        )


def connect(path: str, timeout: float) -> socket.socket:
    """A connection to the control socket, if its folder is ours."""
    try:
        owner = os.lstat(os.path.dirname(path)).st_uid
    except FileNotFoundError as error:
        raise NotRunning("Nobody listens.") from error
    if owner != os.getuid():
        raise IdiError(
            f"{os.path.dirname(path)} belongs to user {owner}, not to you: what listens there is not asked.",
            "Remove that folder (as its owner or as root), or set XDG_RUNTIME_DIR to a folder of yours.",
        )
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NotRunning("Nobody listens.") from error
    except OSError as error:
        connection.close()
        raise NotRunning(f"The control socket cannot be reached: {error.strerror or error}.") from error
    return connection


def header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def document(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unanswered("The answer is no JSON.") from error


def problem_of(status: int, data: bytes) -> Problem:
    """The problem document of an error, made up where the answer has none."""
    try:
        found = json.loads(data)
        if isinstance(found, dict) and isinstance(found.get("detail", ""), str):
            return {"type": "about:blank", "title": "", "status": status, "detail": "", **found}  # type: ignore[typeddict-item]
    except ValueError:
        pass
    text = data[:500].decode("utf-8", "replace").strip()
    return {"type": "about:blank", "title": "Error", "status": status, "detail": text or f"Status {status}."}
