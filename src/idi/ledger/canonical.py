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
from typing import TypeAlias, cast

from idi.ledger.problem import Problem

JSON: TypeAlias = "bool | int | str | Sequence[JSON] | Mapping[str, JSON] | None"

MAX_INTEGER = (1 << 53) - 1
MAX_DEPTH = 32


class _Unwritable(ValueError):
    """Collects on its way out where in the value it happened."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.place: list[str] = []

    def __str__(self) -> str:
        return f"${''.join(reversed(self.place))}: {self.args[0]}"


def encode(value: JSON) -> bytes:
    """Raises ValueError naming the place of what cannot be written."""
    return _ENCODE(_plain(value, 0)).encode()


_ENCODE = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode


def _plain(value: object, depth: int) -> object:
    """The value in what the encoder knows, sorted and checked."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise _Unwritable(f"{value} is larger than 2^53")
        return int(value)
    if depth >= MAX_DEPTH:
        raise _Unwritable(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _object(value, depth)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_item(item, f"[{at}]", depth) for at, item in enumerate(value)]
    raise _Unwritable(f"a {type(value).__name__} has no one way to be written")


def _object(value: Mapping[object, object], depth: int) -> dict[str, object]:
    pairs: dict[str, object] = {}
    plain = True
    for key, item in value.items():
        if not isinstance(key, str):
            raise _Unwritable(f"the key {key!r} is not text")
        if not key.isascii():
            plain = False
            key = _text(key)
            if key in pairs:
                raise _Unwritable(f"the key {key!r} comes twice")
        pairs[key] = _item(item, f".{key}", depth)
    order = sorted(pairs) if plain else sorted(pairs, key=lambda name: name.encode("utf-16-be"))
    return {name: pairs[name] for name in order}


def _item(value: object, place: str, depth: int) -> object:
    try:
        return _plain(value, depth + 1)
    except _Unwritable as error:
        error.place.append(place)
        raise


def _text(value: str) -> str:
    """Half of a surrogate pair (a file name that was not UTF-8) becomes U+FFFD: UTF-8 cannot hold it."""
    if value.isascii():
        return str(value)
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse(data: bytes) -> JSON | Problem:
    """Read JSON without fractions. That it is canonical is seen when what was read is written again."""
    try:
        return cast(JSON, json.loads(data.decode(), parse_float=_no_fraction, parse_constant=_no_fraction))
    except (ValueError, RecursionError) as error:
        return Problem(f"its bytes are not JSON ({error})")


def decode(data: bytes) -> JSON | Problem:
    """Read bytes that must be canonical; anything else that means the same is a problem."""
    value = parse(data)
    if isinstance(value, Problem):
        return value
    try:
        again = encode(value)
    except (ValueError, RecursionError) as error:
        return Problem(f"its bytes are not canonical JSON ({error})")
    return value if again == data else Problem("its bytes are not canonical JSON")


def _no_fraction(text: str) -> int:
    raise ValueError(f"{text} is not a whole number")
