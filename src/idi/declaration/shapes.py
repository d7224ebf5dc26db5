"""Shapes: what a value may look like. One object reads it, writes it, explains it and gives its schema.

A shape's `read` reports what is wrong and answers `BAD`; it never raises. `write` is its inverse: the
plain value that a file would hold. Shapes with a unit carry the suffix of the typed field's name, so
`every: 500ms` becomes `every_s` without anybody saying so twice.
"""

from __future__ import annotations

import re
from typing import Any, Final

from idi.declaration.nodes import Items, Node, Scalar, Table, kind_words
from idi.declaration.reader import Reader
from idi.declaration.scalars import kind_of, shown, why_not_text

BAD: Final[Any] = type("Bad", (), {"__repr__": lambda _: "BAD", "__slots__": ()})()
"""Stands for a value that could not be read; what is wrong has been reported."""

Schema = dict[str, Any]


class Shape:
    """`words` completes "expects ..."; `example` is a plain value; `suffix` ends the typed field's name."""

    words: str = "a value"
    example: Any = None
    suffix: str = ""
    many: str = ""
    """What several of them are called, for "a list of ..."."""

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        return value

    def schema(self, partial: bool, definitions: Schema) -> Schema:
        """JSON Schema; `partial` where an environment overrides and so nothing is required."""
        raise NotImplementedError


class Single(Shape):
    """A shape whose value is one scalar."""

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        if not isinstance(node, Scalar):
            reader.report(node, f"{key} expects {self.words}, not {kind_words(node)}.")
            return BAD
        if kind_of(node) == "null":
            reader.report(node, f"{key} has no value; write {self.words}, or remove the line.")
            return BAD
        return self.read_scalar(node, reader, key)

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        raise NotImplementedError


class Text(Single):
    """Text that matches a pattern; `words` says the pattern to a person."""

    def __init__(self, words: str, pattern: str, example: str, longest: int = 0, many: str = "") -> None:
        self.words = words
        self.pattern = pattern
        self.example = example
        self.longest = longest
        self.many = many
        self._compiled: re.Pattern[str] | None = None  # on first use: most files need few of them

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        why = why_not_text(node)
        if why is not None:
            reader.report(node, why)
            return BAD
        if not self.fits(node.text):
            reader.report(node, self.wrong(node.text, key))
            return BAD
        return node.text

    def fits(self, text: str) -> bool:
        if self._compiled is None:
            self._compiled = re.compile(rf"(?:{self.pattern})\Z")
        return (not self.longest or len(text) <= self.longest) and self._compiled.match(text) is not None

    def wrong(self, text: str, key: str) -> str:
        near = text.strip().lower().replace("_", "-").replace(" ", "-")
        hint = f" Did you mean '{near}'?" if near != text and self.fits(near) else ""
        return f"{key} is {shown(text)}; write {self.words}.{hint}"

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        found: Schema = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        if self.longest:
            found["maxLength"] = self.longest
        return found


class Choice(Single):
    """One of a few words."""

    def __init__(self, *choices: str, otherwise: str = "") -> None:
        self.choices = choices
        self.example = choices[0]
        self.words = choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
        if otherwise:
            self.words += f", or {otherwise}"

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        if node.text in self.choices:
            return node.text
        hint = reader.hint(node.text, self.choices)
        reader.report(node, f"{key} is {shown(node.text)}; write {self.words}.{hint}")
        return BAD

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"enum": list(self.choices)} if len(self.choices) > 1 else {"const": self.choices[0]}


class Flag(Single):
    """true or false; with `only`, just that one, since its opposite is to leave the line out."""

    words = "true or false"
    example = True

    def __init__(self, only: bool | None = None) -> None:
        self.only = only
        if only is not None:
            self.words = str(only).lower()
            self.example = only

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        kind = kind_of(node)
        if kind != "boolean":
            reader.report(node, f"{key} is {shown(node.text)}; write {self.words}{_unquoted(node)}.")
            return BAD
        value = node.text == "true"
        if self.only is not None and value is not self.only:
            reader.report(node, f"{key} is {node.text}; write {self.words}, or remove the line.")
            return BAD
        return value

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "boolean"} if self.only is None else {"const": self.only}


class Whole(Single):
    """A whole number within bounds."""

    def __init__(self, least: int, most: int, example: int | None = None) -> None:
        self.least = least
        self.most = most
        self.example = least if example is None else example
        self.words = f"a whole number from {least} to {most}"

    def read_scalar(self, node: Scalar, reader: Reader, key: str) -> Any:
        if kind_of(node) == "integer" and len(node.text) <= 18 and self.least <= int(node.text) <= self.most:
            return int(node.text)
        reader.report(node, f"{key} is {shown(node.text)}; write {self.words}{_unquoted(node)}.")
        return BAD

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


def _unquoted(node: Scalar) -> str:
    return ", without quotes" if not node.plain else ""


class Many(Shape):
    """A list. Without `ordered` its order means nothing: it is kept sorted, so that the same set is equal."""

    def __init__(self, item: Shape, *, least: int = 0, most: int = 1000, ordered: bool = False) -> None:
        self.item = item
        self.least = least
        self.most = most
        self.ordered = ordered
        self.unique = isinstance(item, Single)
        self.words = f"a list of {item.many}" if item.many else "a list"
        self.example = [item.example]
        self.suffix = ""

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        if not isinstance(node, Items):
            if isinstance(node, Scalar) and kind_of(node) == "null":
                reader.report(
                    node, f"{key} has no value; write {self.words} ([] for none), or remove the line."
                )
            elif isinstance(node, Scalar) and isinstance(self.item, Single):
                reader.report(node, f"{key} expects a list; write [{node.text}].")
            else:
                reader.report(node, f"{key} expects a list, not {kind_words(node)}.")
            return BAD
        if not self.least <= len(node.items) <= self.most:
            least = f"at least {self.least}" if len(node.items) < self.least else f"at most {self.most}"
            reader.report(node, f"{key} has {len(node.items)} entries; it needs {least}.")
            return BAD
        values: list[Any] = []
        seen: set[Any] = set()
        for item in node.items:
            value = self.item.read(item, reader, f"an entry of {key}")
            if value is BAD:
                continue
            if self.unique and value in seen:
                reader.report(item, f"{key} names {shown(str(self.item.write(value)))} twice; remove one.")
                continue
            values.append(value)
            if self.unique:
                seen.add(value)
        return tuple(values if self.ordered else sorted(values))

    def write(self, value: Any) -> Any:
        return [self.item.write(item) for item in value]

    def schema(self, partial: bool, definitions: Schema) -> Schema:  # noqa: ARG002
        found: Schema = {
            "type": "array",
            "items": self.item.schema(False, definitions),
            "maxItems": self.most,
        }
        if self.least:
            found["minItems"] = self.least
        if self.unique:
            found["uniqueItems"] = True
        return found


class Either(Shape):
    """One scalar, or a map that says more."""

    def __init__(self, single: Single, table: Shape) -> None:
        self.single = single
        self.table = table
        self.words = single.words if ", or " in single.words else f"{single.words}, or a map"
        self.example = single.example

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        if isinstance(node, Items):
            reader.report(node, f"{key} expects {self.words}, not a list.")
            return BAD
        return (self.table if isinstance(node, Table) else self.single).read(node, reader, key)

    def schema(self, partial: bool, definitions: Schema) -> Schema:
        return {"anyOf": [shape.schema(partial, definitions) for shape in (self.single, self.table)]}
