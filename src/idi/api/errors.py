"""The root of all errors with words for people, for who may not look into the parts."""

from __future__ import annotations

from idi.parts.errors import IdiError

__all__ = ["IdiError"]
