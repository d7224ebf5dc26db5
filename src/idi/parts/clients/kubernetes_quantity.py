"""Kubernetes' quantities (`250m`, `1.5`, `16Gi`, `1e3`) as numbers: the same value is written in many ways."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_QUANTITY = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def amount(value: object) -> Decimal:
    """The same, where what is none counts as 0."""
    return quantity(value) or Decimal(0)


def quantity(value: object) -> Decimal | None:
    """None where it is none."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    try:
        number = Decimal(found[1])
    except InvalidOperation:
        return None
    suffix = found[2] or ""
    if suffix in _BINARY:
        return number * Decimal(1024) ** _BINARY[suffix]
    power = _SUFFIXES[suffix] if suffix in _SUFFIXES else int(suffix[1:] or 0)
    return number.scaleb(power)
