"""YAML that is no declaration, such as values of a chart: read without places and without mistakes of its own."""

from __future__ import annotations

from typing import Any

import yaml


def plain(text: str) -> Any:
    """What the one document in it says; raises `ValueError` where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
