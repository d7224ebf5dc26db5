"""The official client, for messages that other modules' clients have written.

It takes whatever comes with a header `Status` for a word of the broker, also an event that a module published with
such a header, and a header that it cannot read ends the whole connection's reading. An event came by way of the
stream, which its reply subject shows; of it, what would be mistaken is left out.
"""

from __future__ import annotations

from nats.aio.client import Client

FIRST_LINE = b"NATS/1.0\r\n"
FROM_STREAM = b"$JS.ACK."
MISTAKEN = frozenset({b"Status", b"Description"})


class Reader(Client):
    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if headers and reply.startswith(FROM_STREAM):
            headers = plain(headers)
        await super()._process_msg(sid, subject, reply, data, headers)


def plain(block: bytes) -> bytes:
    """A block of headers that holds nothing but headers, in characters that can be read; empty where there are none."""
    if block.startswith(FIRST_LINE) and block.isascii() and not any(name in block for name in MISTAKEN):
        return block
    lines = []
    for line in block.split(b"\r\n")[1:]:
        name, colon, _ = line.partition(b":")
        if name and colon and name not in MISTAKEN:
            lines.append(line.decode(errors="replace").encode() + b"\r\n")
    return FIRST_LINE + b"".join(lines) + b"\r\n" if lines else b""
