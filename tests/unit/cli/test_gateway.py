"""Asking a gateway whose way breaks off: what may be sent again is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from idi.cli.failure import NOT_RUNNING, Failure
from idi.cli.gateway import request

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@contextmanager
def gateway(breaks: int, late_s: float = 0.0) -> Iterator[tuple[str, list[bytes]]]:
    """Ends so many connections without an answer; listens only after a while."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    port, asked = server.getsockname()[1], list[bytes]()

    if not late_s:
        server.listen()

    def serve() -> None:
        if late_s:
            time.sleep(late_s)
            server.listen()
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096))
                if len(asked) > breaks:
                    connection.sendall(ANSWER)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        server.close()


def test_a_way_that_is_not_there_yet_is_waited_for() -> None:
    with gateway(0, late_s=0.3) as (url, asked):
        assert request(url, "POST", "/", body=b"x", patience=5.0).body == b"ok"
        assert len(asked) == 1


def test_what_may_be_sent_twice_is_sent_again() -> None:
    with gateway(2) as (url, asked):
        assert request(url, "GET", "/", patience=5.0).status == 200
        assert len(asked) == 3


def test_what_may_have_arrived_is_not_sent_again() -> None:
    with gateway(1) as (url, asked):
        with pytest.raises(Failure) as caught:
            request(url, "POST", "/", body=b"x", patience=5.0)
        assert (caught.value.code, len(asked)) == (NOT_RUNNING, 1)


def test_without_patience_nothing_is_tried_again() -> None:
    with gateway(1) as (url, asked):
        with pytest.raises(Failure):
            request(url, "GET", "/")
        assert len(asked) == 1
