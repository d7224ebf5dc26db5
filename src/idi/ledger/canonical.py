"""Canonical JSON: one value, one sequence of bytes (RFC 8785 without fractions).

An entry is hashed as bytes, and a verifier reads it and writes it again to see that nothing else hides in the
bytes. So there must be exactly one way to write a value: keys sorted by UTF-16 code units, no space, UTF-8, the
shortest escapes. Floats are refused, because every language prints them in its own way: an amount is a whole
number of a unit that its name tells (`timeout_ms`). Whole numbers stay within what a double holds exactly,
since half of the readers know no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from idi.ledger.problem import Problem

JSON: TypeAlias = "bool | int | str | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_INTEGER = (1 << 53) - 1
MAX_DEPTH = 32


def encode(value: JSON) -> bytes:
    """Raises ValueError naming the place of what cannot be written."""
    plain = _plain(value, "$", 0)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: object, place: str, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise ValueError(f"{place}: nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"{place}: {value} is larger than 2^53")
        return int(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        pairs: dict[str, object] = {}
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{place}: the key {key!r} is not text")
            name = _text(key)
            if name in pairs:
                raise ValueError(f"{place}: the key {name!r} comes twice")
            pairs[name] = _plain(value[key], f"{place}.{name}", depth + 1)
        return dict(sorted(pairs.items(), key=lambda pair: pair[0].encode("utf-16-be")))
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{place}[{at}]", depth + 1) for at, item in enumerate(value)]
    raise ValueError(f"{place}: a {type(value).__name__} has no one way to be written")


def _text(value: str) -> str:
    """Half of a surrogate pair (a file name that was not UTF-8) becomes U+FFFD: UTF-8 cannot hold it."""
    if value.isascii():
        return str(value)
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def decode(data: bytes) -> JSON | Problem:
    """Read bytes that must be canonical; anything else that means the same is a problem."""
    try:
        value: JSON = json.loads(data.decode(), parse_float=_no_fraction, parse_constant=_no_fraction)
    except (ValueError, RecursionError) as error:
        return Problem(f"its bytes are not JSON ({error})")
    try:
        again = encode(value)
    except (ValueError, RecursionError) as error:
        return Problem(f"its bytes are not canonical JSON ({error})")
    return value if again == data else Problem("its bytes are not canonical JSON")


def _no_fraction(text: str) -> int:
    raise ValueError(f"{text} is not a whole number")
