"""JSON into typed values and back: dataclasses (nested too), lists, mappings, unions, literals, enumerations.

What does not fit is refused with its place. Members that a dataclass does not have are ignored, so that whoever sends
may learn new words first.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
from collections.abc import Mapping
from datetime import date
from pathlib import PurePath
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
WORDS: Mapping[object, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "an object",
    type(None): "null",
}  # fmt: skip


class Misfit(ValueError):
    """Says where, what was expected and what there is."""


def dump(value: object) -> bytes:
    return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False).encode()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def load(body: bytes, kind: type[T], what: str) -> T:
    """Raises `Misfit`."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Misfit(f"{what} is not JSON" if body else f"{what} is empty, JSON was expected") from None
    fitted: T = fit(value, kind, what)
    return fitted


def fit(value: object, kind: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return value
    if dataclasses.is_dataclass(kind):
        return _fit_dataclass(value, kind, where)
    if origin in (Union, types.UnionType):
        return _fit_union(value, inner, where)
    if origin is Literal:
        if any(value == one and type(value) is type(one) for one in inner):
            return value
        raise _misfit(value, f"one of {', '.join(map(repr, inner))}", where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise _misfit(value, f"one of {', '.join(repr(one.value) for one in kind)}", where) from None
    if (origin or kind) in (list, tuple, set, frozenset):
        if not isinstance(value, list):
            raise _misfit(value, "a list", where)
        each = inner[0] if inner else Any
        return (origin or kind)(fit(one, each, f"{where}[{number}]") for number, one in enumerate(value))
    if (origin or kind) in (dict, Mapping):
        if not isinstance(value, dict):
            raise _misfit(value, "an object", where)
        each = inner[1] if inner else Any
        return {name: fit(one, each, f"{where}.{name}") for name, one in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in WORDS or kind is None:
        if type(value) is (type(None) if kind is None else kind):
            return value
        raise _misfit(value, WORDS.get(kind, "null"), where)
    raise TypeError(f"{where}: {kind!r} is no type that JSON can be read into")


def _fit_dataclass(value: object, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _misfit(value, "an object", where)
    hints, given = get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in value and field.init:
            given[field.name] = fit(value[field.name], hints[field.name], f"{where}.{field.name}")
        elif (
            field.init
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ):
            raise Misfit(f"{where} has no {field.name}")
    return kind(**given)


def _fit_union(value: object, kinds: tuple[Any, ...], where: str) -> Any:
    misfits = []
    for kind in kinds:
        try:
            return fit(value, kind, where)
        except Misfit as misfit:
            misfits.append(misfit)
    raise misfits[0]


def _misfit(value: object, wanted: str, where: str) -> Misfit:
    shown = json.dumps(value, default=str)
    return Misfit(f"{where} must be {wanted}, not {shown if len(shown) <= 40 else shown[:40] + '...'}")
