"""What a module's own client wrote into the headers of an event is not taken for a word of the broker."""

from __future__ import annotations

import pytest

from idi.parts.bus.nats.client import plain

pytestmark = pytest.mark.requirement("B1")


@pytest.mark.parametrize(
    "block",
    [b"NATS/1.0\r\nce-id: 1\r\nce-type: order.placed\r\n\r\n", b"NATS/1.0\r\nx: y\r\n\r\n"],
)
def test_what_is_plain_stays_as_it_is(block: bytes) -> None:
    assert plain(block) is block


@pytest.mark.parametrize(
    ("block", "left"),
    [
        (b"NATS/1.0\r\nStatus: shipped\r\nce-id: 1\r\n\r\n", b"NATS/1.0\r\nce-id: 1\r\n\r\n"),
        (b"NATS/1.0\r\nDescription: x\r\n\r\n", b""),
        (b"NATS/1.0 404 No Messages\r\nce-id: 1\r\n\r\n", b"NATS/1.0\r\nce-id: 1\r\n\r\n"),
        (b"NATS/1.0\r\nce-subject: \xe9\r\n\r\n", "NATS/1.0\r\nce-subject: \ufffd\r\n\r\n".encode()),
        ("NATS/1.0\r\nce-subject: é\r\n\r\n".encode(), "NATS/1.0\r\nce-subject: é\r\n\r\n".encode()),
        (b"X", b""),
        (b"NATS/1.0 \xff", b""),
        (b"NATS/1.0\r\nno colon\r\n: no name\r\n\r\n", b"NATS/1.0\r\nno colon\r\n: no name\r\n\r\n"),
    ],
)
def test_what_would_be_mistaken_is_left_out(block: bytes, left: bytes) -> None:
    assert plain(block) == left
