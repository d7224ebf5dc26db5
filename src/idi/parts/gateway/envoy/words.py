"""Envoy's refusals for people: the reason, without the resource that it repeats."""

from __future__ import annotations

import re

MAX_CHARACTERS = 300


def shorten(message: str) -> str:
    """One line. Validation errors repeat the whole message after the reason; names and values stay."""
    text = message.split(" in message ", 1)[0].split("\n[[", 1)[0]
    # "Proto constraint validation failed (AValidationError.B: embedded message failed validation | caused
    # by CValidationError.D: value must be ...): name: ..." -> the innermost cause.
    constraint = re.search(r"Proto constraint validation failed \((.*?)\): ", text, re.DOTALL)
    if constraint:
        text = text[: constraint.start()] + _innermost(constraint.group(1))
    text = " ".join(text.split())
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def _innermost(chain: str) -> str:
    last = chain.rsplit("caused by ", 1)[-1]
    return last.replace("ValidationError.", ".").strip(" |")
