"""What was recorded on top of the file, as a document: control writes it, the command line reads it without control.

The name and the version are of the whole document, which has the declaration that was applied beside it
(`idi.control.change.wanted`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idi.declaration.overlay import plain_of, value_of
from idi.declaration.types import ModuleName
from idi.plan.types import KeptSecret, Overlays, Run

DOCUMENT = "wanted"
VERSION = 1


def document_of(overlays: Overlays) -> dict[str, object]:
    """As control keeps them; the same overlays are the same document."""
    return {
        "instances": dict(overlays.instances),
        "generations": dict(overlays.generations),
        "config": {
            module: {name: plain_of(value) for name, value in values.items()}
            for module, values in overlays.config.items()
        },
        "versions": dict(overlays.versions),
        "secrets": {path: [kept.version, kept.since] for path, kept in overlays.secrets.items()},
        "runs": {name: [run.by, run.pid, run.standing] for name, run in overlays.runs.items()},
    }


def from_document(document: Mapping[str, Any]) -> Overlays:
    """What `document_of` made, also before there was configuration in it."""
    config = {
        ModuleName(module): {name: value_of(value) for name, value in values.items()}
        for module, values in document.get("config", {}).items()
    }
    counts = [
        {ModuleName(name): count for name, count in document.get(key, {}).items()}
        for key in ("instances", "generations", "versions")
    ]
    secrets = {path: KeptSecret(*kept) for path, kept in document.get("secrets", {}).items()}
    runs = {ModuleName(name): Run(*run) for name, run in document.get("runs", {}).items()}
    return Overlays(counts[0], counts[1], config, counts[2], secrets, runs)
