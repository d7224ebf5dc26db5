"""Values that nobody may find again, looked for in every form in which something could have kept them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from urllib.parse import quote


def forms(canary: bytes) -> set[bytes]:
    """As it is, as hexadecimal, quoted, and as base64: by itself, as a part of something longer, and twice."""
    found = {canary, canary.hex().encode(), canary.hex().upper().encode(), quote(canary, safe="").encode()}
    for once in _base64(canary):
        found |= {once, *_base64(once)}
    return found


def _base64(canary: bytes) -> Iterator[bytes]:
    """What of it stands in any base64 that it is within: it begins at one of three places of a group of bytes."""
    for before in range(3):
        whole = (len(canary) - (-before % 3)) // 3 * 3
        part = canary[-before % 3 :][:whole]
        text = base64.b64encode(part)
        yield text
        yield text.translate(bytes.maketrans(b"+/", b"-_"))


def seen(canaries: Mapping[str, bytes], text: bytes | str) -> list[str]:
    """The names of those that stand in a text."""
    held = text.encode() if isinstance(text, str) else text
    return [name for name, canary in canaries.items() if any(form in held for form in forms(canary))]
