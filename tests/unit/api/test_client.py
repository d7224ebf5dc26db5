"""The client against a socket that answers byte for byte what a test says."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idi.api.client import Answered, Client, NotRunning, Unanswered
from idi.api.errors import IdiError
from idi.api.paths import paths_for
from idi.api.place import socket_path

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"content-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(document: object, status: bytes = b"200 OK") -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 " + status + f"\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return f"{len(data):X};x=y\r\n".encode() + data + b"\r\n"


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A socket that takes one connection, reads the request and hands the connection to `answer`."""
    with TemporaryDirectory(prefix="idi-") as folder:
        path = f"{folder}/control"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                try:
                    answer(connection)
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)


def sending(*pieces: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.002)

    return send


def test_a_document_with_a_length() -> None:
    with answering(sending(whole({"env": "dev"}))) as path:
        assert Client(path).ask("GET", "/v1/status") == {"env": "dev"}


def test_a_document_until_the_end_of_the_connection() -> None:
    with answering(sending(OK + b"\r\n", b'{"a":', b"1}")) as path:
        assert Client(path).ask("GET", "/") == {"a": 1}


def test_no_content() -> None:
    with answering(sending(b"HTTP/1.1 204 No Content\r\n\r\n")) as path:
        assert Client(path).ask("PUT", "/") is None


def test_the_request_is_whole_and_its_body_has_its_length() -> None:
    seen = bytearray()

    def answer(connection: socket.socket) -> None:
        connection.sendall(whole({}))

    with TemporaryDirectory(prefix="idi-") as folder:
        path = f"{folder}/control"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            while b"}" not in seen:
                seen.extend(connection.recv(65536))
            answer(connection)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        Client(path).token({"scopes": ["jede.read"]})
        thread.join(5)
        listener.close()
    head, _, body = bytes(seen).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/tokens HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body) == {"scopes": ["jede.read"]}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_stream_reads_the_same_however_it_is_cut(data: st.DataObject) -> None:
    documents = data.draw(
        st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), max_size=5)
    )
    text = b"".join(json.dumps(each).encode() + b"\n" for each in documents)
    chunks, rest = b"", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        chunks, rest = chunks + chunk(rest[:size]), rest[size:]
    wire = CHUNKED + chunks + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    def answer(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    with answering(answer) as path, Client(path).stream("GET", "/v1/watch") as stream:
        assert list(stream) == documents


def test_a_stream_can_be_waited_for_beside_other_things() -> None:
    go = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(CHUNKED + chunk(b'{"n": 1}\n{"n"'))
        go.wait(5)
        connection.sendall(chunk(b": 2}\n") + b"0\r\n\r\n")

    with answering(answer) as path, Client(path).stream("GET", "/v1/watch") as stream:
        found: list[object] = []
        while not found:
            found = stream.ready()
        assert found == [{"n": 1}]
        assert stream.ready() == []
        assert not stream.ended
        go.set()
        assert list(stream) == [{"n": 2}]
        assert stream.ended


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        Client(str(tmp_path / "no" / "control")).status()
    with pytest.raises(NotRunning):
        Client(str(tmp_path / "control")).status()


def test_a_socket_that_nobody_serves_any_more() -> None:
    with TemporaryDirectory(prefix="idi-") as folder:
        left = socket.socket(socket.AF_UNIX)
        left.bind(f"{folder}/control")
        left.close()
        with pytest.raises(NotRunning):
            Client(f"{folder}/control").status()


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        OK,
        OK + b"content-length: 100\r\n\r\n{",
        CHUNKED + b"5\r\n{",
        CHUNKED + chunk(b'{"a":1}\n'),
    ],
)
def test_control_that_goes_away_in_the_middle(wire: bytes) -> None:
    with answering(sending(wire)) as path, pytest.raises(NotRunning):
        with Client(path).stream("GET", "/v1/watch") as stream:
            list(stream)


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        OK + b"content-length: -5\r\n\r\n",
        OK + b"content-length: 3\r\n\r\nabc",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"x" * 100,
        OK + b"x: " + b"y" * 70000,
    ],
)
def test_what_is_no_control_is_said_to_be_none(wire: bytes) -> None:
    with answering(sending(wire)) as path, pytest.raises(Unanswered):
        Client(path).ask("GET", "/")


def test_an_endless_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idi.api.client.MOST_BODY_BYTES", 1000)
    monkeypatch.setattr("idi.api.client.MOST_LINE_BYTES", 1000)
    endless = [OK + b"\r\n", *([b"x" * 600] * 3)]
    with answering(sending(*endless)) as path, pytest.raises(Unanswered, match="larger"):
        Client(path).ask("GET", "/")
    with answering(sending(*endless)) as path, pytest.raises(Unanswered, match="longer"):
        with Client(path).stream("GET", "/") as stream:
            list(stream)


def test_a_slow_answer_has_an_end() -> None:
    for sent in (b"", OK + b"content-length: 5\r\n\r\n1"):

        def answer(connection: socket.socket, sent: bytes = sent) -> None:
            connection.sendall(sent)
            time.sleep(1)

        begun = time.monotonic()
        with answering(answer) as path:
            with pytest.raises(Unanswered, match="within"):
                Client(path, timeout=0.1).status()
            assert time.monotonic() - begun < 0.9


def test_a_problem_keeps_its_words_and_its_mistakes() -> None:
    problem = {
        "type": "about:blank",
        "title": "Invalid",
        "status": 422,
        "detail": "No.",
        "mistakes": ["f:1:1: x"],
    }
    with answering(sending(whole(problem, b"422 Unprocessable"))) as path, pytest.raises(Answered) as raised:
        Client(path).plan("", "f")
    assert raised.value.problem == problem
    assert raised.value.message == "No."


@pytest.mark.parametrize("body", [b"", b"oops", b"[1]", b'{"detail": 5}'])
def test_an_error_without_a_problem_is_still_one(body: bytes) -> None:
    head = f"HTTP/1.1 500 X\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with answering(sending(head + body)) as path, pytest.raises(Answered) as raised:
        Client(path).change({"action": "down"})
    assert raised.value.problem["status"] == 500
    assert raised.value.message


def test_a_folder_of_somebody_else_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(sending(whole({}))) as path:
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
        with pytest.raises(IdiError, match="belongs to user"):
            Client(path).status()


@pytest.mark.parametrize("runtime", ["", "/run/user/7", "/" + "long" * 30])
def test_the_fast_path_finds_the_same_socket(monkeypatch: pytest.MonkeyPatch, runtime: str) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert socket_path("some/platform.yaml", "dev") == str(paths_for("some/platform.yaml", "dev").socket)
    assert socket_path("a.yaml", "dev") != socket_path("a.yaml", "production")


def test_the_hash_is_the_one_that_everybody_computes() -> None:
    import hashlib

    from idi.api.place import place

    real = os.path.realpath("x.yaml")
    assert place("x.yaml", "dev")[1] == hashlib.sha256(f"{real}\0dev".encode()).hexdigest()[:8]


def test_several_declarations_in_one_folder_share_nothing(tmp_path: Path) -> None:
    from idi.api.place import place

    files = [("platform.yaml", "dev"), ("platform.yaml", "qa"), ("other.yaml", "dev"), ("dev", "dev")]
    places = [place(tmp_path / file, environment) for file, environment in files]
    for kind in (1, 2, 3, 4):
        assert len({found[kind] for found in places}) == len(files)
    assert places[0][2] == str(tmp_path / ".idi" / "dev")
    assert {os.path.dirname(found[2]) for found in places} == {str(tmp_path / ".idi")}
