"""The last published view on disk, so that proxies can start before control knows anything.

After a restart of control (or a reboot) the plane serves this until the first `publish`; the versions are
hashes of content, so a proxy that has the same already gets nothing. Private keys are never in it: a proxy
that lost its certificate waits for the authority. A damaged file or one of another format is no file.

The file is replaced whole (write, sync, rename), 0600 in a folder that must be private already.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Shelf, Store

log = logging.getLogger(__name__)

FORMAT = 1


class Saved:
    """The file kept up to date; without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._changed = False

    def load(self) -> tuple[Shelf, Mapping[str, NodeResources]] | None:
        return None if self._path is None else load(self._path)

    def changed(self) -> None:
        self._changed = True

    async def keep(self, store: Store) -> None:
        """Write if it changed since the last time."""
        if self._path is not None and self._changed:
            self._changed = False
            await asyncio.to_thread(self._write, self._path, store.copy())

    def finish(self, store: Store) -> None:
        """The same, at the end of the process."""
        if self._path is not None and self._changed:
            self._write(self._path, store)

    @staticmethod
    def _write(path: Path, store: Store) -> None:
        """A disk that takes nothing must not stop the traffic: what was saved before stays, and the next
        change tries again."""
        try:
            write(dump(store), path)
        except OSError as error:
            log.warning("the view of traffic cannot be saved in %s: %s", path, error)


def write(body: bytes, path: Path) -> None:
    """Replace the file by what `dump` gave."""
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(sha256(body).hexdigest().encode() + b"\n" + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def load(path: Path) -> tuple[Shelf, Mapping[str, NodeResources]] | None:
    """The saved view; None where there is none that can be read."""
    try:
        digest, _, body = path.read_bytes().partition(b"\n")
        if sha256(body).hexdigest().encode() != digest:
            return None
        return parse(body)
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return None


def dump(store: Store) -> bytes:
    document = {
        "format": FORMAT,
        "shared": {kind.name: [plain(r) for r in store.shared(kind).values()] for kind in Kind},
        "nodes": {node: plain_node(resources) for node, resources in store.nodes().items()},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def parse(body: bytes) -> tuple[Shelf, Mapping[str, NodeResources]]:
    document = json.loads(body)
    if document["format"] != FORMAT:
        raise ValueError("another format")
    nodes = {node: node_of(each) for node, each in document["nodes"].items()}
    return shelf(document["shared"]), nodes


def plain(resource: Resource) -> dict[str, Any]:
    return {
        "name": resource.name,
        "version": resource.version,
        "entry": base64.b64encode(resource.entry).decode(),
        "needs": [[kind.name, name] for kind, name in resource.needs],
    }


def resource_of(kind: Kind, document: Mapping[str, Any]) -> Resource:
    return Resource(
        kind,
        document["name"],
        document["version"],
        base64.b64decode(document["entry"]),
        tuple((Kind[need], name) for need, name in document["needs"]),
    )


def plain_node(resources: NodeResources) -> dict[str, Any]:
    return {
        "sees": {kind.name: sorted(names) for kind, names in resources.sees.items()},
        "own": {kind.name: [plain(r) for r in own.values()] for kind, own in resources.own.items()},
        "admits": {port_name: list(allowed) for port_name, allowed in resources.admits.items()},
    }


def node_of(document: Mapping[str, Any]) -> NodeResources:
    """Also of what a control before this version wrote, or says to a replica."""
    return NodeResources(
        sees={Kind[kind]: frozenset(names) for kind, names in document["sees"].items()},
        own=shelf(document["own"]),
        admits={port_name: tuple(allowed) for port_name, allowed in document.get("admits", {}).items()},
    )


def shelf(document: Mapping[str, list[dict[str, Any]]]) -> dict[Kind, dict[str, Resource]]:
    return {
        Kind[kind]: {each["name"]: resource_of(Kind[kind], each) for each in resources}
        for kind, resources in document.items()
    }
