"""Bytes to text: size, encoding and characters are refused here, before any parser sees them."""

from __future__ import annotations

import re

from idi.declaration.mistakes import Mistake

MOST_BYTES = 1024 * 1024

_ASCII = re.compile("[^\t\n\r\x20-\x7e]")
_PRINTABLE = "\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_WIDE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def text_of(given: bytes | str, file: str, most_bytes: int = MOST_BYTES) -> str | Mistake:
    """The text of a declaration (a UTF-8 byte order mark dropped), or why it cannot be one."""
    if len(given) > most_bytes:
        size = f"{len(given)} bytes; a declaration has at most {most_bytes}"
        return Mistake(
            file, 1, 1, f"this file has {size}; split the platform, or take out what does not belong here."
        )
    if isinstance(given, bytes):
        for mark, encoding in _WIDE.items():
            if given.startswith(mark):
                return Mistake(file, 1, 1, f"this file is {encoding}; save it as UTF-8.")
        if given[:4].count(0) >= 2:
            return Mistake(file, 1, 1, "this file is UTF-16 or UTF-32; save it as UTF-8.")
        try:
            text = given.decode("utf-8")
        except UnicodeDecodeError as error:
            before = given[: error.start]
            line_start = before.rfind(b"\n") + 1
            column = len(before[line_start:].decode("utf-8", "replace")) + 1
            byte = given[error.start]
            return Mistake(
                file,
                before.count(b"\n") + 1,
                column,
                f"byte 0x{byte:02x} is not UTF-8; save the file as UTF-8.",
            )
    else:
        text = given
    if text.startswith("\ufeff"):
        text = text[1:]
    # most declarations are ASCII, and the wide pattern takes long to compile
    wrong = (_ASCII if text.isascii() else re.compile(f"[^{_PRINTABLE}]")).search(text)
    if wrong:
        line, column = position(text, wrong.start())
        if wrong.group() == "\0":
            return Mistake(file, line, column, "a NUL character has no place in a text file; remove it.")
        name = f"the unprintable character U+{ord(wrong.group()):04X}"
        return Mistake(
            file, line, column, f"{name} has no place here; remove it, or write an escape in double quotes."
        )
    return text


_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def position(text: str, index: int) -> tuple[int, int]:
    """1-based line and column of a character, counted as the YAML parser counts."""
    line, start = 1, 0
    for found in _BREAK.finditer(text, 0, index):
        line, start = line + 1, found.end()
    return line, index - start + 1
