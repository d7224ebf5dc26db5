"""`${...}` in texts: what a value may refer to, and the shapes that hold it.

Only the form is checked here; whether the peer, port or secret exists is checked when everything
has been read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from idi.declaration.nearest import nearest
from idi.declaration.nodes import Scalar
from idi.declaration.reader import Reader
from idi.declaration.scalars import kind_of, quoted, shown, why_not_text
from idi.declaration.shapes import BAD, Schema, Single
from idi.declaration.types import Reference, Template

FORMS: dict[str, str] = {
    "${port}": "number of the module's default port",
    "${port.NAME}": "number of the module's port NAME",
    "${peer.NAME.address}": "HOST:PORT at which the module reaches what it calls (its own sidecar)",
    "${peer.NAME.url}": "the same as a URL",
    "${peer.NAME.PORT.address}": "HOST:PORT of a named port of what it calls",
    "${peer.NAME.PORT.url}": "the same as a URL",
    "${data_dir}": "folder of the module's storage",
    "${bus.url}": "URL of the event broker",
    "${events.url}": "URL to which events are posted",
    "${gateway.url}": "URL of the gateway",
    "${secret.PATH}": "value of one of the module's secrets",
}
"""Everything a value may refer to, and what it becomes."""

MOST_REFERENCES = 100
"""In one text."""

_ROOTS = ("port", "peer", "data_dir", "bus", "events", "gateway", "secret")
_WHOLE = {("port",), ("data_dir",), ("bus", "url"), ("events", "url"), ("gateway", "url")}


class Wrong(ValueError):
    """A `${...}` that cannot be meant: where in the text, which piece, and the message."""

    def __init__(self, offset: int, piece: str, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.piece = piece


def pieces(text: str) -> Iterator[tuple[int, str, Reference | Wrong | None]]:
    """The pieces of a text: offset, the piece as written, and its reference (None for plain text)."""
    at = 0
    while at < len(text):
        start = text.find("${", at)
        if start < 0:
            yield at, text[at:], None
            return
        if start > 0 and text[start - 1] == "$" and start - 1 >= at:
            yield at, text[at : start - 1] + "${", None
            at = start + 2
            continue
        if start > at:
            yield at, text[at:start], None
        end = text.find("}", start)
        if end < 0:
            message = "'${' is never closed; write '}' after the name, or $${ for the text '${' itself."
            yield start, text[start:], Wrong(start, "${", message)
            return
        raw = text[start : end + 1]
        path = _path(raw[2:-1])
        yield start, raw, Reference(path) if path else Wrong(start, raw, _why(raw))
        at = end + 1


def _path(inner: str) -> tuple[str, ...]:
    """The path of a reference of a known form, else nothing."""
    root, _, rest = inner.partition(".")
    if root == "secret":
        return (root, rest) if rest and not any(c in rest for c in " ${") else ()
    path = tuple(inner.split("."))
    if not all(path):
        return ()
    if path in _WHOLE or (root == "port" and len(path) == 2):
        return path
    if root == "peer" and len(path) in (3, 4) and path[-1] in ("address", "url"):
        return path
    return ()


def _why(raw: str) -> str:
    inner = raw[2:-1]
    root = inner.split(".")[0]
    if root == "peer":
        name = inner.split(".")[1] if inner.count(".") else "NAME"
        name = name or "NAME"
        return f"{shown(raw)} is incomplete; write ${{peer.{name}.address}} or ${{peer.{name}.url}}."
    if root in ("bus", "events", "gateway"):
        return f"{shown(raw)} is incomplete; write ${{{root}.url}}."
    if root == "secret":
        return f"{shown(raw)} is incomplete; write ${{secret.PATH}} with a path under 'secrets'."
    if root in _ROOTS:
        return f"{shown(raw)} is not complete; write ${{{root}}}."
    near = nearest(root, _ROOTS)
    hint = f" Did you mean '{near}'?" if near else ""
    known = "port, port.NAME, peer.NAME.address, peer.NAME.url, data_dir, bus.url, events.url, gateway.url, secret.PATH"
    return (
        f"{shown(raw)} refers to nothing that is given; it can be {known}.{hint}"
        f" For a variable of the shell write ${root or 'NAME'}, for the text itself ${raw}."
    )


def template(text: str) -> Template:
    """A text as a template; wrong pieces are left out (whoever reads them reports them)."""
    parts: list[str | Reference] = []
    for _, piece, reference in pieces(text):
        if isinstance(reference, Reference):
            parts.append(reference)
        elif reference is None and parts and isinstance(parts[-1], str):
            parts[-1] += piece
        elif reference is None:
            parts.append(piece)
    return Template(tuple(parts))


def written(value: Template) -> str:
    """A template as a file would hold it."""
    return "".join(
        part.replace("${", "$${") if isinstance(part, str) else "${" + ".".join(part.path) + "}"
        for part in value.parts
    )


class Phrase(Single):
    """A text that may hold references."""

    def __init__(self, words: str, example: str) -> None:
        self.words = words
        self.example = example

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        why = why_not_text(node)
        if why is not None:
            reader.report(node, why)
            return BAD
        return self.read_text(node, reader, key)

    def read_text(self, node: Scalar, reader: Reader, key: str) -> Any:
        if not node.text.strip():
            reader.report(node, f"{key} is empty; write {self.words}, or remove the line.")
            return BAD
        return _checked(node, reader)

    def write(self, value: Template) -> str:
        return written(value)

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "string", "minLength": 1}


def ambiguous(node: Scalar) -> str:
    """Why a value is not the same to every reader of YAML; empty where it is."""
    kind = kind_of(node)
    if kind not in ("truth", "odd", "date"):
        return ""
    what = {"truth": "true or false", "date": "a date"}.get(kind, "a number, and not always the same one")
    return (
        f"{shown(node.text)} is ambiguous: some YAML readers take it for {what}; quote it to pass it as text: "
        f"{quoted(node.text)}."
    )


class Setting(Phrase):
    """A config value: text, a whole number, or true/false; the program gets it exactly as written."""

    short = "text, number or true/false"

    def __init__(self) -> None:
        super().__init__("a value (text, a whole number, true or false)", "info")

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:  # noqa: ARG002
        why = ambiguous(node)
        if why:
            reader.report(node, why)
            return BAD
        return _checked(node, reader)

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": ["string", "integer", "number", "boolean"]}


def _checked(node: Scalar, reader: Reader) -> Any:
    if "${" not in node.text:
        return Template((node.text,)) if node.text else Template(())
    if node.text.count("${") > MOST_REFERENCES:
        reader.report(node, f"this text has more than {MOST_REFERENCES} references ('${{'); write fewer.")
        return BAD
    wrong = [found for _, _, found in pieces(node.text) if isinstance(found, Wrong)]
    for one in wrong:
        reader.report_within(node, one.offset, one.piece, str(one))
    return BAD if wrong else template(node.text)
