"""What YAML makes of a plain scalar, and so which texts must be quoted.

YAML reads `no`, `1.10`, `12:30` and `2024-01-01` as something other than text, and its versions
disagree about which. Where text is wanted, all of these are refused with the remedy.
"""

from __future__ import annotations

import re
from typing import Literal

from idi.declaration.nodes import Scalar

Kind = Literal["text", "null", "boolean", "truth", "integer", "number", "odd", "date"]
"""`boolean` is true/false; `truth` yes, no, on, off and their like; `odd` numbers in octal, base 60 and such."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTH = frozenset(
    form
    for word in ("true", "false", "yes", "no", "on", "off")
    for form in (word, word.capitalize(), word.upper())
) - {"true", "false"}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_ODD = re.compile(
    r"[-+]?0b[01_]+\Z|[-+]?0o?[0-7_]+\Z|[-+]?0x[0-9a-fA-F_]+\Z|[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?\Z"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z"
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?\Z")
_FIRST = frozenset("-+.0123456789")


def kind_of(scalar: Scalar) -> Kind:
    if not scalar.plain:
        return "text"
    text = scalar.text
    if text in _NULL:
        return "null"
    if text in ("true", "false"):
        return "boolean"
    if text in _TRUTH:
        return "truth"
    if text[0] not in _FIRST or len(text) > 100:
        return "text"
    if _INTEGER.match(text):
        return "integer"
    if _ODD.match(text):
        # 0.5 and 2.25 are read the same by everybody; 1.10, 007 and 1_000 are not
        return "number" if _NUMBER.match(text) and _same(text) else "odd"
    if _NUMBER.match(text):
        return "number" if _same(text) else "odd"
    return "date" if _DATE.match(text) else "text"


def _same(text: str) -> bool:
    return repr(float(text)) == text


def shown(text: str) -> str:
    """A written text for a message: in single quotes, cut, and with nothing that upsets a terminal."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return "'" + "".join(map(printable, cut)) + "'"


def printable(character: str) -> str:
    """A character, or its escape where a terminal would not just show it."""
    return character if character.isprintable() else f"\\u{ord(character):04x}"


def impossible(text: str) -> str:
    """Why no program can be given this text; empty where it can."""
    for character in text:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            return f"{shown(text)} holds U+{ord(character):04X}, which no program can be given; remove it."
    return ""


def quoted(text: str) -> str:
    """How a text is written so that it stays a text."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def why_not_text(scalar: Scalar) -> str | None:
    """Why a scalar is no text in YAML and how to make it one; None where it is a text."""
    kind = kind_of(scalar)
    if kind == "text" or kind == "null":
        return None
    what = {"boolean": "a truth value", "truth": "a truth value", "date": "a date"}.get(kind, "a number")
    return f"{shown(scalar.text)} is read as {what} in YAML; quote it: {quoted(scalar.text)}."
