"""What is different between two views, as a document: what a replica needs to have the later one.

Rendering hands out the same objects for what did not change (`render.view.Renderer`), so the comparison costs
little, and the birth of an instance is a document of one instance. From nothing it is the whole view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Shelf, Store
from idi.parts.gateway.envoy.snapshot import node_of, plain, plain_node, shelf


@dataclass
class View:
    """A view that grows by documents; `shared` and `nodes` are what `EnvoyPlane.take` wants."""

    shared: dict[Kind, dict[str, Resource]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    nodes: dict[str, NodeResources] = field(default_factory=dict)

    @staticmethod
    def of(store: Store) -> View:
        return View({kind: dict(store.shared(kind)) for kind in Kind}, dict(store.nodes()))

    def apply(self, document: Mapping[str, Any]) -> None:
        """Malformed documents raise `ValueError`, `KeyError` or `TypeError`."""
        new = shelf(document["shared"])
        nodes = {node: node_of(each) for node, each in document["nodes"].items()}
        if document["whole"]:
            self.shared, self.nodes = {kind: {} for kind in Kind}, {}
        for kind, names in document["shared_gone"].items():
            for name in names:
                self.shared[Kind[kind]].pop(name, None)
        for kind, resources in new.items():
            self.shared[kind].update(resources)
        for node in document["nodes_gone"]:
            self.nodes.pop(node, None)
        self.nodes |= nodes


def whole(view: View) -> dict[str, Any]:
    return {**difference(View(), view.shared, view.nodes), "whole": True}


def difference(before: View, shared: Shelf, nodes: Mapping[str, NodeResources]) -> dict[str, Any]:
    changed: dict[str, list[dict[str, Any]]] = {}
    gone: dict[str, list[str]] = {}
    for kind in Kind:
        old, new = before.shared.get(kind, {}), shared.get(kind, {})
        if different := [plain(r) for name, r in new.items() if not _same(old.get(name), r)]:
            changed[kind.name] = different
        if vanished := sorted(old.keys() - new.keys()):
            gone[kind.name] = vanished
    return {
        "whole": False,
        "shared": changed,
        "shared_gone": gone,
        "nodes": {node: plain_node(each) for node, each in nodes.items() if before.nodes.get(node) != each},
        "nodes_gone": sorted(before.nodes.keys() - nodes.keys()),
    }


def is_empty(document: Mapping[str, Any]) -> bool:
    return not any(document.values())


def _same(one: Resource | None, other: Resource) -> bool:
    return one is not None and one.version == other.version
