"""What a declaration may say already and this version cannot do yet: run anywhere but on this machine."""

from __future__ import annotations

from idi.declaration.types import LocalTarget, Platform

LOCAL = "Use an environment with target: local."


def elsewhere(platform: Platform) -> str:
    """A sentence where the environment is one that this version cannot reach; else empty."""
    if isinstance(platform.target, LocalTarget):
        return ""
    return f"Environment '{platform.environment}' runs on Kubernetes, which this version cannot do yet."
