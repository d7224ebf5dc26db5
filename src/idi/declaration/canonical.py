"""One sequence of bytes for one declaration, for hashing and for keeping.

The bytes are themselves a declaration, with every default written out and one environment in it:
reading them back gives an equal `Platform`, also with a later version whose defaults differ.
"""

from __future__ import annotations

import json
import re
from typing import Any

from idi.declaration.records import Record
from idi.declaration.shapes import Shape
from idi.declaration.spec_module import MODULE_RECORD
from idi.declaration.spec_platform import ROOT, TARGET
from idi.declaration.types import Module, Platform

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may hold bare and YAML may not, or takes for the end of a line."""


def canonical(platform: Platform) -> bytes:
    """The same bytes for equal platforms, whatever the order of keys in their files."""
    document = {
        "platform": platform.name,
        **{
            key: _shape(ROOT, key).write(getattr(platform, key))
            for key in ("gateway", "certificates", "modules", "externals", "events")
        },
        "environments": {platform.environment: {"target": TARGET.write(platform.target)}},
    }
    return _bytes(document)


def canonical_module(module: Module) -> bytes:
    """The same for one module alone: what a release of it depends on."""
    return _bytes({module.name: MODULE_RECORD.write(module)})


def _shape(record: Record, key: str) -> Shape:
    return record.fields[key].shape


def _bytes(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, indent=1)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", text).encode()
