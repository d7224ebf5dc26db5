"""Values that were set beside the file, laid over its tree before anything is read.

Laid over the tree and not over the typed modules, because then they are read and checked by the very code that
reads the file: the same kinds, the same references, the same names that are taken, in the same words. A scalar that
stands in no file says in its `place` where it comes from, which is what a mistake about it shows.

What says no more than the file, and what belongs to a module that is not there, is not laid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from idi.declaration.nodes import Entry, Node, Scalar, Table, find
from idi.declaration.reader import Reader
from idi.declaration.references import ambiguous
from idi.declaration.scalars import Kind, impossible, kind_of, quoted, shown
from idi.declaration.types import ModuleName, Origin

SET_BY = "idi config set"

Plain = str | int | float | bool

KINDS: Mapping[Kind, str] = {
    "text": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
"""What a value of configuration can be; every other kind is refused wherever it stands."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value as a file would hold it; `plain` without quotes: 8080 is a number then, with them it is text."""

    text: str
    plain: bool = False

    def kind(self) -> Kind:
        return kind_of(Scalar(self.text, self.plain, 0, 0))


Config = Mapping[ModuleName, Mapping[str, Value]]
"""By module and variable."""


@dataclass(frozen=True, slots=True)
class Laid:
    """One value that holds instead of the file's; `before` is where that stands, None where there is none."""

    module: ModuleName
    name: str
    value: Value
    before: Origin | None = None


def value_of(given: Plain) -> Value:
    """What JSON holds, as a file would hold it."""
    if isinstance(given, bool):
        return Value("true" if given else "false", plain=True)
    return Value(given) if isinstance(given, str) else Value(repr(given), plain=True)


def plain_of(value: Value) -> Plain:
    """The same as JSON holds it."""
    match value.kind():
        case "boolean":
            return value.text == "true"
        case "integer":
            return int(value.text)
        case "number":
            return float(value.text)
    return value.text


def place_of(module: str, name: str) -> str:
    return f"{SET_BY} {module} {name}"


def lay(tree: Table, config: Config, reader: Reader) -> tuple[Table, tuple[Laid, ...]]:
    """The tree with these values in it, and which of them are."""
    modules = tree.get("modules")
    if not isinstance(modules, Table):
        return tree, ()
    laid: list[Laid] = []
    for name in sorted(config):
        module = modules.get(name)
        if not isinstance(module, Table):
            continue
        new = _new(name, module, config[name], reader)
        laid += (_laid(name, module, entry, config[name], reader.file) for entry in new)
        if new:
            modules = _with(modules, name, _over(module, new))
    return (_with(tree, "modules", modules) if laid else tree), tuple(laid)


def _new(name: ModuleName, module: Table, values: Mapping[str, Value], reader: Reader) -> list[Entry]:
    """What differs from the file; what can be told from the values alone to be wrong is reported."""
    found = []
    for variable in sorted(values):
        value, before = values[variable], find(module, "config", variable)
        if isinstance(before, Scalar) and (before.text, kind_of(before)) == (value.text, value.kind()):
            continue
        place = place_of(name, variable)
        key = Scalar(variable, False, 0, 0, place=place)
        node = Scalar(value.text, value.plain, 0, 0, place=place)
        if find(module, "secrets", variable) is not None:
            reader.report(node, f"{variable} stands under both config and secrets; keep one.")
            continue
        why = impossible(value.text) or _other_kind(variable, value, before)
        if why:
            reader.report(node, why)
        found.append(Entry(key, node, "overlay"))
    return found


def _other_kind(name: str, value: Value, before: Node | None) -> str:
    """Why a value cannot stand for the file's, by its kind. What a reference will be nobody knows yet."""
    if not isinstance(before, Scalar) or "${" in before.text or "${" in value.text:
        return ""
    was, now = kind_of(before), value.kind()
    if was == now or was not in KINDS or now not in KINDS or (was, now) == ("number", "integer"):
        return ""
    remedy = f"quote it to pass it as text: {quoted(value.text)}" if was == "text" else f"write {KINDS[was]}"
    there = f"in line {before.line} of the file it is {KINDS[was]}"
    return f"{name} is {shown(value.text)}, {KINDS[now]}, and {there}; {remedy}."


def _laid(name: ModuleName, module: Table, entry: Entry, values: Mapping[str, Value], file: str) -> Laid:
    variable = entry.key.text
    section = module.get("config")
    below = section.entry(variable) if isinstance(section, Table) else None
    before = Origin(below.layer, file, below.value.line, below.value.column) if below else None
    return Laid(name, variable, values[variable], before)


def _over(module: Table, new: list[Entry]) -> Table:
    section = module.get("config")
    if section is not None and not isinstance(section, Table):
        return module  # a mistake of the file, which is reported when it is read
    kept = section.without(*(entry.key.text for entry in new)).entries if section else ()
    line, column = (section.line, section.column) if section else (module.line, module.column)
    return _with(module, "config", Table((*kept, *new), line, column))


def _with(table: Table, key: str, value: Node) -> Table:
    if table.entry(key) is None:
        entry = Entry(Scalar(key, True, table.line, table.column), value, "overlay")
        return Table((*table.entries, entry), table.line, table.column)
    entries = tuple(Entry(e.key, value, e.layer) if e.key.text == key else e for e in table.entries)
    return Table(entries, table.line, table.column)


def read_word(word: str) -> Value | str:
    """What somebody typed after `NAME=`, or what is wrong with it. Quotes make text of anything; nothing at all is
    the empty text, as in every shell."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        inner = word[1:-1]
        return Value(inner.replace("''", "'") if word[0] == "'" else _unescaped(inner))
    value = Value(word, plain=bool(word))
    if not word or value.kind() in KINDS:
        return value
    node = Scalar(word, True, 0, 0)
    return (
        ambiguous(node) or f"{shown(word)} is no value in YAML; quote it to pass it as text: {quoted(word)}."
    )


def _unescaped(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)
