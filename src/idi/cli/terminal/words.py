"""Numbers and texts as people read them: durations, figures, cut and wrapped lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

UNPRINTABLE = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+"
)


def is_environment(name: str) -> bool:
    """Whether this can name an environment; it becomes a folder's name."""
    return bool(re.fullmatch(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", name))


def plain(text: str) -> str:
    """On one line and without control characters: what others wrote must not move our cursor."""
    return " ".join(UNPRINTABLE.sub(" ", text).split())


def age(seconds: float) -> str:
    """`0.9 s`, `12 s`, `4 min`, `3 h`, `2 d`."""
    seconds = max(0.0, seconds)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} d"


def took(seconds: float) -> str:
    """A measured duration: `40 ms`, `3.1 s`, `4 min 10 s`."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def figure(value: float) -> str:
    """Three digits that count: `0`, `0.4`, `12`, `850`, `12.3k`."""
    if value <= 0:
        return "0"
    if value < 0.05:
        return "<0.1"
    if value < 9.95:
        return f"{value:.1f}".removesuffix(".0")
    if value < 9999.5:
        return f"{value:.0f}"
    return f"{value / 1000:.1f}k" if value < 999_950 else f"{value / 1_000_000:.1f}M"


def ratio(value: float) -> str:
    """A share as per cent: `0`, `0.1%`, `12%`."""
    if value <= 0:
        return "0"
    if value < 0.0005:
        return "<0.1%"
    return f"{value * 100:.1f}%" if value < 0.0995 else f"{value * 100:.0f}%"


def milliseconds(value: float) -> str:
    if value < 9.95:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 999.5 else f"{value / 1000:.1f} s"


def seconds_of(time: str) -> float:
    """Seconds since the epoch of an RFC 3339 time in UTC; 0 where it is none.

    By hand, because `datetime` would cost `idi status` more than its whole table.
    """
    try:
        year, month, day = int(time[0:4]), int(time[5:7]), int(time[8:10])
        clock = int(time[11:13]) * 3600 + int(time[14:16]) * 60 + int(time[17:19])
        fraction = float("0" + time[19:].rstrip("Zz+:0")) if time[19:20] == "." else 0.0
    except ValueError:
        return 0.0
    year -= month <= 2
    month += 9 if month <= 2 else -3
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1
    return (days - 719_468) * 86_400 + clock + fraction


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def fitting(text: str, width: int) -> int:
    """How many characters of it fit into so many columns."""
    if text.isascii():
        return min(len(text), max(width, 0))
    taken = 0
    for at, character in enumerate(text):
        taken += columns(character)
        if taken > width:
            return at
    return len(text)


def cut(text: str, width: int) -> str:
    if not width or columns(text) <= width:
        return text
    return text[: fitting(text, width - 1)] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of the same number of cells as lines, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def wrap(text: str, width: int, most: int) -> list[str]:
    """Lines of at most `width` (0: one line), at most `most` of them; the last one says that it is cut."""
    text = text.strip()
    if not width or columns(text) <= width:
        return [text] if text else []
    width = max(width, 8)
    lines: list[str] = []
    while text and len(lines) < most:
        if columns(text) <= width:
            lines.append(text)
            return lines
        most_characters = fitting(text, width)
        at = text.rfind(" ", 1, most_characters + 1)
        if at < most_characters // 2:
            at = most_characters
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip()
    if text and lines:
        lines[-1] = cut(lines[-1] + " " + text, width)
    return lines


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """` Did you mean '--json'?` with its leading space, or nothing."""
    from idi.declaration.nearest import nearest

    found = nearest(wrong.lstrip("-"), [name.lstrip("-") for name in valid])
    dashes = "--" if wrong.startswith("-") else ""
    return f" Did you mean '{dashes}{found}'?" if found else ""
