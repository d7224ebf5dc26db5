"""Maps: with fixed keys (`Record`) and with names as keys (`Named`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from idi.declaration.frozen import Frozen
from idi.declaration.nearest import listed
from idi.declaration.nodes import Node, Scalar, Table, kind_words
from idi.declaration.reader import Reader
from idi.declaration.scalars import kind_of, shown
from idi.declaration.shapes import BAD, Schema, Shape, Text

Given = dict[str, Any]
"""What was written in a record, by the typed field's name; a key that is missing was not written."""

Build = Callable[[Given, Table, Reader], Any]


class Field:
    """A key of a record. Its default is the typed field's own; `default` says in words what depends."""

    __slots__ = ("about", "attr", "default", "example", "key", "needed", "quiet", "shape")

    def __init__(
        self,
        key: str,
        shape: Shape,
        about: str,
        *,
        attr: str | None = None,
        needed: bool = False,
        quiet: bool = False,
        default: str = "",
        example: Any = None,
    ) -> None:
        self.key = key
        self.shape = shape
        self.about = about
        self.attr = attr or key + shape.suffix
        self.needed = needed
        self.quiet = quiet  # an empty value is not written out: it says that there is none
        self.default = default
        self.example = shape.example if example is None else example


class Record(Shape):
    """A map with fixed keys that becomes a `type`, or what `build` makes of it.

    `alone` holds sets of keys of which a map has at most one. `unbuild` turns the typed value back
    into what was given, where `build` does more than name fields.
    """

    def __init__(
        self,
        name: str,
        about: str,
        type_: type | None,
        *fields: Field,
        build: Build | None = None,
        unbuild: Callable[[Any], Given] | None = None,
        named: bool = False,
        alone: tuple[tuple[str, ...], ...] = (),
        words: str = "",
    ) -> None:
        self.name = name
        self.about = about
        self.type = type_
        self.fields = {field.key: field for field in fields}
        self.build = build
        self.unbuild = unbuild
        self.named = named
        self.alone = alone
        self.words = (
            words or f"a map ({', '.join(list(self.fields)[:4])}{', ...' if len(fields) > 4 else ''})"
        )
        self.example = {field.key: field.example for field in fields if field.needed} or None

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        if not isinstance(node, Table):
            if isinstance(node, Scalar) and kind_of(node) == "null":
                reader.report(node, f"{key} has no value; write {self.words}, or remove the line.")
            else:
                reader.report(node, f"{key} expects {self.words}, not {kind_words(node)}.")
            return BAD
        given: Given = {"name": key} if self.named else {}
        whole, meant = True, set()
        for entry in node.entries:
            field = self.fields.get(entry.key.text)
            if field is None:
                near = reader.nearest(entry.key.text, self.fields)
                meant.add(near)
                hint = f"Did you mean '{near}'?" if near else f"It may have {listed(self.fields, 24)}."
                reader.report(
                    entry.key, f"{key or 'a declaration'} has no key {shown(entry.key.text)}. {hint}"
                )
                continue
            value = field.shape.read(entry.value, reader, field.key)
            if value is not BAD:
                given[field.attr] = value
            elif field.needed:
                whole = False
        for field in self.fields.values():
            if field.needed and node.entry(field.key) is None:
                whole = False
                if field.key not in meant:  # else it has been asked whether this key was meant
                    reader.report(node, f"{key or 'a declaration'} needs '{field.key}': {field.shape.words}.")
        for group in self.alone:
            self._at_most_one(group, node, reader, key)
        if not whole:
            return BAD
        return self.build(given, node, reader) if self.build else self.type(**given) if self.type else given

    def _at_most_one(self, group: tuple[str, ...], node: Table, reader: Reader, key: str) -> None:
        present = [entry.key for entry in node.entries if entry.key.text in group]
        for extra in present[1:]:
            reader.report(extra, f"{key} has both {present[0].text} and {extra.text}; keep one.")

    def write(self, value: Any) -> Any:
        if self.unbuild is not None:
            given = self.unbuild(value)
        else:
            given = {field.attr: getattr(value, field.attr) for field in self.fields.values()}
        written = {}
        for field in self.fields.values():
            part = given.get(field.attr)
            if part is None or (field.quiet and not part):
                continue
            written[field.key] = field.shape.write(part)
        return written

    def default_of(self, field: Field) -> Any:
        """The plain value a file would hold for the default, or None where there is none to write."""
        if self.type is None or field.default or field.needed:
            return None
        for typed in dataclasses.fields(self.type):
            if typed.name == field.attr:
                value = typed.default
                if typed.default_factory is not dataclasses.MISSING:
                    value = typed.default_factory()
                if value is dataclasses.MISSING or value is None or (field.quiet and not value):
                    return None
                return field.shape.write(value)
        return None

    def schema(self, partial: bool, definitions: Schema) -> Schema:
        label = f"{self.name}-override" if partial else self.name
        if label not in definitions:
            definitions[label] = {}
            definitions[label].update(self._schema(partial, definitions))
        return {"$ref": f"#/$defs/{label}"}

    def _schema(self, partial: bool, definitions: Schema) -> Schema:
        properties = {}
        for field in self.fields.values():
            part = field.shape.schema(partial, definitions)
            part = {
                **part,
                "description": field.about + (f" Default: {field.default}." if field.default else ""),
            }
            default = self.default_of(field)
            if default is not None:
                part["default"] = default
            if field.example is not None:
                part["examples"] = [field.example]
            properties[field.key] = part
        found: Schema = {
            "description": self.about,
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }
        needed = [field.key for field in self.fields.values() if field.needed]
        if needed and not partial:
            found["required"] = needed
        pairs = [(a, b) for group in self.alone for i, a in enumerate(group) for b in group[i + 1 :]]
        if pairs:
            found["allOf"] = [{"not": {"required": list(pair)}} for pair in pairs]
        return found


class Named(Shape):
    """A map from names to values of one shape. `ordered` where the order in the file means something."""

    def __init__(
        self,
        keys: Text,
        values: Shape,
        *,
        kind: str,
        example: Any = None,
        least: int = 0,
        most: int = 1000,
        ordered: bool = False,
    ) -> None:
        self.keys = keys
        self.values = values
        self.kind = kind
        self.least = least
        self.most = most
        self.ordered = ordered
        self.words = f"a map from {kind} to {getattr(values, 'short', values.words)}"
        if isinstance(values, Record):
            self.words = f"a map from {kind} to what it is"
        self.example = example if example is not None else {keys.example: values.example}

    def read(self, node: Node, reader: Reader, key: str) -> Any:
        if not isinstance(node, Table):
            if isinstance(node, Scalar) and kind_of(node) == "null":
                reader.report(
                    node, f"{key} has no value; write {self.words} ({{}} for none), or remove the line."
                )
            else:
                reader.report(node, f"{key} expects {self.words}, not {kind_words(node)}.")
            return BAD
        if not self.least <= len(node.entries) <= self.most:
            bound = f"at least {self.least}" if len(node.entries) < self.least else f"at most {self.most}"
            reader.report(node, f"{key} has {len(node.entries)} entries; it needs {bound}.")
            return BAD
        found = {}
        for entry in node.entries:
            name = entry.key.text
            if not self.keys.fits(name):
                reader.report(entry.key, self.keys.wrong(name, self.kind))
            value = self.values.read(entry.value, reader, name)
            if value is not BAD and self.keys.fits(name):
                found[name] = value
        return Frozen(found)

    def write(self, value: Mapping[str, Any]) -> Any:
        names = list(value) if self.ordered else sorted(value)
        return {name: self.values.write(value[name]) for name in names}

    def schema(self, partial: bool, definitions: Schema) -> Schema:
        found: Schema = {
            "type": "object",
            "propertyNames": self.keys.schema(False, definitions),
            "additionalProperties": self.values.schema(partial, definitions),
            "maxProperties": self.most,
        }
        if self.least and not partial:
            found["minProperties"] = self.least
        return found
