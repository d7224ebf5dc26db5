"""A ResourceQuota's refusal as people read it: what is short, how much is asked for, how much is used of how much.

The API server says it to whoever makes a pod or a volume: to Helm in an error, to a Deployment in a condition of its
status, both in the same words.
"""

from __future__ import annotations

import re

PATTERN = re.compile(
    r"exceeded quota: (?P<quota>[^,\s]+), requested: (?P<asked>.+?), used: (?P<used>.+?), "
    r"limited: (?P<most>.+?)(?:$|\s*[(;])"
)
WAY_OUT = (
    "Raise quota under target.kubernetes and run idi up, or lower instances or resources; where the quota is somebody "
    "else's, have it raised. kubectl get resourcequota shows them."
)


def explained(said: str) -> str:
    """Empty where it is about no quota."""
    found = PATTERN.search(said)
    if found is None:
        return ""
    asked, used, most = (_counts(found[name]) for name in ("asked", "used", "most"))
    short = "; ".join(
        f"{used.get(name, '?')} of {most.get(name, '?')} {name} in use, {count} more asked for"
        for name, count in asked.items()
    )
    return f"the quota {found['quota']} of the namespace is used up: {short}"


def _counts(text: str) -> dict[str, str]:
    """`pods=1,requests.cpu=100m` by name."""
    return dict(one.partition("=")[::2] for one in text.split(",") if "=" in one)
