"""JSON Schema of the declaration, so that editors complete, explain and check it.

It is made from the same shapes that the loader reads with. It accepts all that the loader accepts;
what holds only between parts (a name that exists, two routes that collide) is the loader's alone.
"""

from __future__ import annotations

from typing import Any

from idi.declaration.spec_platform import ROOT


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    definitions: dict[str, Any] = {}
    ROOT.schema(False, definitions)
    root = definitions.pop(ROOT.name)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Declaration of a platform",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }
