"""The last published view on disk, so that proxies can start before control knows anything.

After a restart of control (or a reboot) the plane serves this until the first `publish`; the versions are
hashes of content, so a proxy that has the same already gets nothing. Private keys are never in it: a proxy
that lost its certificate waits for the authority. A damaged file or one of another format is no file.

The file is replaced whole (write, sync, rename), 0600 in a folder that must be private already.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Shelf, Store

FORMAT = 1


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
        "shared": {kind.name: [_plain(r) for r in store.shared(kind).values()] for kind in Kind},
        "nodes": {
            node: {
                "sees": {kind.name: sorted(names) for kind, names in resources.sees.items()},
                "own": {kind.name: [_plain(r) for r in own.values()] for kind, own in resources.own.items()},
            }
            for node, resources in store.nodes().items()
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def parse(body: bytes) -> tuple[Shelf, Mapping[str, NodeResources]]:
    document = json.loads(body)
    if document["format"] != FORMAT:
        raise ValueError("another format")
    nodes = {
        node: NodeResources(
            sees={Kind[kind]: frozenset(names) for kind, names in plain["sees"].items()},
            own=_shelf(plain["own"]),
        )
        for node, plain in document["nodes"].items()
    }
    return _shelf(document["shared"]), nodes


def _plain(resource: Resource) -> dict[str, Any]:
    return {
        "name": resource.name,
        "version": resource.version,
        "entry": base64.b64encode(resource.entry).decode(),
        "needs": [[kind.name, name] for kind, name in resource.needs],
    }


def _shelf(document: Mapping[str, list[dict[str, Any]]]) -> Shelf:
    return {
        Kind[kind]: {
            plain["name"]: Resource(
                Kind[kind],
                plain["name"],
                plain["version"],
                base64.b64decode(plain["entry"]),
                tuple((Kind[need], name) for need, name in plain["needs"]),
            )
            for plain in resources
        }
        for kind, resources in document.items()
    }
