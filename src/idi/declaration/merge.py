"""Putting trees over trees: an environment over the base, a module over the defaults.

Maps merge by key; lists and single values replace. Keys that exclude each other (ways of being
ready, a release's strategy and its steps) replace each other too.
"""

from __future__ import annotations

from idi.declaration.nodes import Entry, Items, Layer, Node, Scalar, Table

_REPLACES = {
    "readiness": (frozenset({"http", "tcp", "command"}), frozenset({"http", "tcp", "command"})),
    "release": (frozenset({"strategy"}), frozenset({"strategy", "steps", "bake"})),
}
"""In the map of this name: where the upper one has one of these, the lower one's of those give way."""

_NOT_STORED = ("instances", "scale", "release")
"""Defaults that do not reach a module with storage: it has one writer."""


def over(upper: Table, lower: Table, name: str = "") -> Table:
    """`upper` merged over `lower`; the order of `lower` is kept, what is new comes after it."""
    above = {entry.key.text: entry for entry in upper.entries}
    gone: frozenset[str] = frozenset()
    if name in _REPLACES:
        triggers, replaced = _REPLACES[name]
        if triggers & above.keys():
            gone = replaced
    merged: list[Entry] = []
    for entry in lower.entries:
        key = entry.key.text
        new = above.pop(key, None)
        if new is None:
            if key not in gone:
                merged.append(entry)
        elif isinstance(new.value, Table) and isinstance(entry.value, Table):
            merged.append(Entry(new.key, over(new.value, entry.value, key), new.layer))
        else:
            merged.append(new)
    merged.extend(above.values())
    return Table(tuple(merged), upper.line, upper.column)


def on_layer(node: Node, layer: Layer) -> Node:
    """The same tree with every entry marked as of a layer."""
    if isinstance(node, Table):
        entries = tuple(Entry(entry.key, on_layer(entry.value, layer), layer) for entry in node.entries)
        return Table(entries, node.line, node.column)
    if isinstance(node, Items):
        return Items(tuple(on_layer(item, layer) for item in node.items), node.line, node.column)
    return node


def with_defaults(tree: Table) -> Table:
    """The tree with `defaults` merged under each module, as far as they fit it."""
    defaults, modules = tree.get("defaults"), tree.get("modules")
    if not isinstance(defaults, Table) or not isinstance(modules, Table):
        return tree
    filled = []
    for entry in modules.entries:
        module = entry.value
        if isinstance(module, Table):
            module = over(module, _fitting(defaults, module))
        filled.append(Entry(entry.key, module, entry.layer))
    whole = Table(tuple(filled), modules.line, modules.column)
    entries = tuple(Entry(e.key, whole, e.layer) if e.key.text == "modules" else e for e in tree.entries)
    return Table(entries, tree.line, tree.column)


def _fitting(defaults: Table, module: Table) -> Table:
    if module.get("storage") is not None:
        defaults = defaults.without(*_NOT_STORED)
    ports, readiness = module.get("ports"), defaults.get("readiness")
    if isinstance(ports, Table) and isinstance(readiness, Table):
        speaks = [entry.value for entry in ports.entries]
        if not any(isinstance(port, Scalar) and port.text == "http" for port in speaks):
            fitting = readiness.without("http", "port")
            entries = tuple(
                Entry(e.key, fitting, e.layer) if e.value is readiness else e for e in defaults.entries
            )
            defaults = Table(entries, defaults.line, defaults.column)
    return defaults
