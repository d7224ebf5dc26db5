"""YAML that is no declaration, such as values of a chart: read without places and without mistakes of its own, and
written."""

from __future__ import annotations

from typing import Any

import yaml

FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe as the other; what Helm renders is long."""


def plain(text: str) -> Any:
    """What the one document in it says; raises `ValueError` where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def written(document: Any) -> str:
    """As a person would write it; `plain` reads the same."""
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def plains(text: str) -> list[Any]:
    """What each of its documents says; empty ones are left out. Raises `ValueError` as well."""
    try:
        return [one for one in yaml.load_all(text, Loader=FAST) if one is not None]
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
