"""Reading an answer of control's."""

from __future__ import annotations

import pytest

from idi.agent.door import parse

pytestmark = pytest.mark.requirement("K1")

GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def test_an_answer_in_pieces() -> None:
    for cut in range(len(GOOD)):
        assert parse(GOOD[:cut]) is None
    assert parse(GOOD) == (200, b"{}", True)


@pytest.mark.parametrize(
    ("answer", "reuse"),
    [
        (GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False),
        (GOOD.replace(b"1.1", b"1.0"), False),
        (GOOD + b"HTTP/1.1 200 OK", False),
    ],
)
def test_a_connection_that_is_not_used_again(answer: bytes, reuse: bool) -> None:
    assert parse(answer) == (200, b"{}", reuse)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "how long it is"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "how long it is"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", "too long"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 10_000, "too long"),
    ],
)
def test_what_is_no_answer(answer: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(answer)
