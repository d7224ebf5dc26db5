"""Values that carry a unit: durations, sizes, CPU shares, percentages, and spans of durations.

All arithmetic is decimal, so a value that is written out reads back to the same number.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from idi.declaration.nodes import Scalar
from idi.declaration.reader import Reader
from idi.declaration.scalars import shown
from idi.declaration.shapes import BAD, Schema, Single

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([A-Za-z%]*)\Z")

_DURATION = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_DURATION_ALIASES = {
    "msec": "ms", "millis": "ms", "millisecond": "ms", "milliseconds": "ms", "sec": "s", "secs": "s", "second": "s",
    "seconds": "s", "min": "m", "mins": "m", "minute": "m", "minutes": "m", "hr": "h", "hrs": "h", "hour": "h",
    "hours": "h", "day": "d", "days": "d",
}  # fmt: skip
_SIZE = {
    "B": Decimal(1),
    "KiB": Decimal(1024),
    "MiB": Decimal(1024**2),
    "GiB": Decimal(1024**3),
    "TiB": Decimal(1024**4),
}
_SIZE_ALIASES = {f"{p}{end}".lower(): f"{p.upper()}iB" for p in "kmgt" for end in ("", "b", "i", "ib")} | {
    "b": "B", "byte": "B", "bytes": "B",
}  # fmt: skip

_DURATION_PATTERN = r"[0-9]{1,7}(\.[0-9]{1,3})?(ms|s|m|h|d)"


def duration_text(seconds: float) -> str:
    """`90.0` as `90s`, `0.5` as `500ms`, `86400.0` as `1d`."""
    exact = Decimal(repr(seconds))
    if exact == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if exact % _DURATION[unit] == 0:
            return f"{int(exact / _DURATION[unit])}{unit}"
    return f"{_plain(exact * 1000)}ms" if exact < 1000 else f"{_plain(exact)}s"


def size_text(count: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % int(_SIZE[unit]) == 0:
            return f"{count // int(_SIZE[unit])}{unit}"
    return f"{count}B"


def percent_text(ratio: float) -> str:
    return f"{_plain(Decimal(repr(ratio)) * 100)}%"


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Duration(Single):
    words = "a duration such as 300ms or 2s"
    suffix = "_s"

    def __init__(self, least: str, most: str, example: str) -> None:
        self.least = least
        self.most = most
        self.example = example
        self._bounds = float(_seconds(least) or 0), float(_seconds(most) or 0)

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        value = self.parse(node.text, key)
        if isinstance(value, str):
            reader.report(node, value)
            return BAD
        return value

    def parse(self, text: str, key: str) -> float | str:
        """Seconds, or what is wrong."""
        seconds = _seconds(text)
        if seconds is None:
            return _duration_wrong(text)
        least, most = self._bounds
        if not least <= seconds <= most:
            return f"{key} is {text}; write a duration from {self.least} to {self.most}."
        return float(seconds)

    def write(self, value: float) -> str:
        return duration_text(value)

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "string", "pattern": f"^{_DURATION_PATTERN}$"}


_DURATION_MATCH = re.compile(rf"{_DURATION_PATTERN}\Z")


def _seconds(text: str) -> Decimal | None:
    found = _DURATION_MATCH.match(text)
    if not found:
        return None
    unit = found.group(2)
    return Decimal(text[: -len(unit)]) * _DURATION[unit]


def _duration_wrong(text: str) -> str:
    found = _NUMBER.match(text)
    if found and not found.group(2):
        likely = (
            f"{text}s or 300ms"
            if text.isdigit() and 0 < int(text) < 100
            else f"{_short(text, '300')}ms or 2s"
        )
        return f"{shown(text)} has no unit; write a duration such as {likely}."
    if found and (unit := _DURATION_ALIASES.get(found.group(2).lower(), found.group(2).lower())) in _DURATION:
        return f"{shown(text)} is not a duration; write {found.group(1)}{unit}."
    return (
        f"{shown(text)} is not a duration; write one number and one of ms, s, m, h, d, such as 300ms or 2s."
    )


def _short(text: str, otherwise: str) -> str:
    return text if len(text) <= 6 and text.isdigit() and text != "0" else otherwise


class Span(Single):
    """Two durations, first to last, as `1s..5m`."""

    words = "two durations such as 1s..5m"

    def __init__(self, ends: Duration, example: str) -> None:
        self.ends = ends
        self.example = example

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        first, dots, last = node.text.partition("..")
        if not dots:
            reader.report(node, f"{key} is {shown(node.text)}; write {self.words}.")
            return BAD
        ends = []
        for text in (first, last):
            value = self.ends.parse(text, key)
            if isinstance(value, str):
                reader.report_within(node, 0 if text is first else len(first) + 2, text or "..", value)
            else:
                ends.append(value)
        if len(ends) < 2:
            return BAD
        if ends[0] > ends[1]:
            reader.report(
                node, f"{key} goes from {first} down to {last}; write the shorter one first: {last}..{first}."
            )
            return BAD
        return tuple(ends)

    def write(self, value: tuple[float, float]) -> str:
        return f"{duration_text(value[0])}..{duration_text(value[1])}"

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "string", "pattern": rf"^{_DURATION_PATTERN}\.\.{_DURATION_PATTERN}$"}


class Size(Single):
    words = "a size such as 512KiB or 10GiB"
    suffix = "_bytes"

    def __init__(self, least: str, most: str, example: str) -> None:
        self.least = least
        self.most = most
        self.example = example
        self._bounds = int(_bytes(least) or 0), int(_bytes(most) or 0)

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        count = _bytes(node.text)
        if count is None:
            reader.report(node, _size_wrong(node.text))
            return BAD
        if count % 1:
            reader.report(
                node, f"{key} is {node.text}, which is no whole number of bytes; write {self.words}."
            )
            return BAD
        if not self._bounds[0] <= count <= self._bounds[1]:
            reader.report(node, f"{key} is {node.text}; write a size from {self.least} to {self.most}.")
            return BAD
        return int(count)

    def write(self, value: int) -> str:
        return size_text(value)

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "string", "pattern": r"^[0-9]{1,15}(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)$"}


_SIZE_MATCH = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)(B|KiB|MiB|GiB|TiB)\Z")


def _bytes(text: str) -> Decimal | None:
    found = _SIZE_MATCH.match(text)
    return Decimal(found.group(1)) * _SIZE[found.group(2)] if found else None


def _size_wrong(text: str) -> str:
    found = _NUMBER.match(text)
    if found and not found.group(2):
        return f"{shown(text)} has no unit; write a size such as {_short(text, '512')}MiB or 10GiB."
    unit = _SIZE_ALIASES.get(found.group(2).lower()) if found else None
    if found and unit:
        return f"{shown(text)} is not a size; write {found.group(1)}{unit}."
    return f"{shown(text)} is not a size; write a number and one of B, KiB, MiB, GiB, TiB, such as 512KiB or 10GiB."


class Percent(Single):
    words = "a percentage such as 70%"
    suffix = "_ratio"

    def __init__(self, least: str, most: str, example: str) -> None:
        self.least = least
        self.most = most
        self.example = example
        self._bounds = _ratio(least), _ratio(most)

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        text = node.text
        if not _PERCENT_MATCH.match(text):
            number = _NUMBER.match(text)
            if number and not number.group(2):
                share = Decimal(text) * 100 if "." in text and Decimal(text) <= 1 else Decimal(text)
                reader.report(
                    node, f"{shown(text)} has no unit; write a percentage such as {_plain(share)}%."
                )
            else:
                reader.report(
                    node, f"{shown(text)} is not a percentage; write a number and '%', such as 70%."
                )
            return BAD
        ratio = _ratio(text)
        if not self._bounds[0] <= ratio <= self._bounds[1]:
            reader.report(node, f"{key} is {text}; write a percentage from {self.least} to {self.most}.")
            return BAD
        return float(ratio)

    def write(self, value: float) -> str:
        return percent_text(value)

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,4})?%$"}


_PERCENT_MATCH = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?%\Z")


def _ratio(text: str) -> Decimal:
    return Decimal(text[:-1]) / 100


class Cpu(Single):
    words = "CPU such as 250m or 2"
    suffix = "_millicores"
    example = "250m"

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        found = _CPU_MATCH.match(node.text)
        milli = Decimal(found.group(1)) * (1 if found.group(3) else 1000) if found else Decimal(-1)
        if not 1 <= milli <= 1_000_000 or milli % 1:
            reader.report(
                node,
                f"{key} is {shown(node.text)}; write CPU in thousandths of a core such as 250m, or in cores such as 2.",
            )
            return BAD
        return int(milli)

    def write(self, value: int) -> str:
        return f"{value}m"

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,3})?m?$"},
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
            ]
        }


_CPU_MATCH = re.compile(r"([0-9]{1,7}(\.[0-9]{1,3})?)(m?)\Z")
