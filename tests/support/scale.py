"""How large a count a test runs with, and what it does when a real part is missing on this machine."""

import os
from typing import TypeVar

import pytest

Count = TypeVar("Count", int, float)


def scale(short: Count, full: Count) -> Count:
    """The short count, or the count of acceptance under `make test-long` (IDI_TEST_SCALE=full)."""
    return full if os.environ.get("IDI_TEST_SCALE") == "full" else short


def need_part(name: str, there: object, how_to_get: str) -> None:
    """Skip with the reason where a real part is missing; with CI=true that is a failure.

    `there` is anything true when the part can be used (the path of its program, an answer of its daemon).
    """
    if there:
        return
    reason = f"needs {name}: {how_to_get}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has every real part, but this one is missing: {reason}", pytrace=False)
    pytest.skip(reason)
