"""A module's variables as a dataclass: the field `tip` is filled from `TIP`, and read as what its type says.

Everything that is wrong is told at once, so that nobody mends one variable per start. Text from the environment is
never shown for a secret.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from idi.module.secret import Secret, SecretFile

C = TypeVar("C")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class _Wrong(ValueError):
    """Says what was expected."""


def read(kind: type[C], environment: Mapping[str, str]) -> tuple[C | None, list[str]]:
    """The dataclass filled, or what is wrong."""
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"config={kind!r} is no dataclass")
    hints, given, mistakes = get_type_hints(kind), {}, []
    for field in dataclasses.fields(kind):
        name, wanted = field.name.upper(), hints[field.name]
        if not field.init:
            continue
        if name not in environment:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                where = "secrets" if _is_secret(wanted) else "config"
                mistakes.append(f"{name} is not set: give it under `{where}` in platform.yaml.")
            continue
        text = environment[name]
        try:
            given[field.name] = _parse(text, wanted)
        except _Wrong as wrong:
            shown = "" if _is_secret(wanted) else f", not {text[:60]!r}"
            mistakes.append(f"{name} must be {wrong}{shown}.")
    if mistakes:
        return None, mistakes
    try:
        return kind(**given), []
    except ValueError as error:  # of a `__post_init__` that looks at more than one field
        return None, [f"{error}"]


def _is_secret(kind: Any) -> bool:
    return any(isinstance(one, type) and issubclass(one, Secret) for one in (kind, *get_args(kind)))


def _parse(text: str, kind: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        kinds = [one for one in inner if one is not type(None)]
        if len(kinds) == 1:
            return _parse(text, kinds[0])
    elif origin is Literal:
        if text in inner:
            return text
        raise _Wrong(f"one of {', '.join(map(str, inner))}")
    elif (origin or kind) in (list, tuple, set, frozenset):
        each = inner[0] if inner else str
        return (origin or kind)(_parse(piece.strip(), each) for piece in text.split(",") if piece.strip())
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        for one in kind:
            if text == str(one.value):
                return one
        raise _Wrong(f"one of {', '.join(str(one.value) for one in kind)}")
    elif kind in _PARSERS:
        return _PARSERS[kind](text)
    raise TypeError(f"{kind!r} is no type that a variable can be read into")


def _whole(text: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    raise _Wrong("a whole number")


def _number(text: str) -> float:
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", text):
        return float(text)
    raise _Wrong("a number")


def _truth(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise _Wrong("true or false")


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if not found:
        raise _Wrong("a duration such as 300ms, 2s or 1h")
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        raise _Wrong("a duration that is shorter") from None


def _secret_file(text: str) -> SecretFile:
    try:
        return SecretFile(text)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise _Wrong(f"the path of a file (declare it with `as: file`): {reason}") from None


_PARSERS: Mapping[Any, Any] = {
    str: str, int: _whole, float: _number, bool: _truth, timedelta: _duration, Path: Path,
    Secret: Secret, SecretFile: _secret_file,
}  # fmt: skip
