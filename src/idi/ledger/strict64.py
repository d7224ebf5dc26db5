"""Base64 with one text for one value, so that no byte of a signed or hashed text can change without being seen."""

from __future__ import annotations

import base64
import binascii


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes | None:
    """None for anything that `encode` would not have written."""
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if encode(data) == text else None
