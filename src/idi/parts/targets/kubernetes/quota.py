"""Whether a namespace's quotas have room for so many pods: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from idi.parts.clients.kubernetes_quantity import amount, quantity

ZERO = Decimal(0)


def lacking(pod: Mapping[str, Any], count: int, quotas: Iterable[Mapping[str, Any]]) -> str:
    """What is short for `count` pods like this one, in words; empty where nothing is. Quotas that count only some pods
    (scopes) are left out: which, only the API server knows."""
    for quota in quotas:
        if quota["spec"].get("scopes") or quota["spec"].get("scopeSelector"):
            continue
        status = quota.get("status", {})
        for name, most in (status.get("hard") or {}).items():
            wanted = of_pod(pod, name) * count
            there = amount((status.get("used") or {}).get(name, "0"))
            limit = quantity(most)
            if wanted and limit is not None and there + wanted > limit:
                return (
                    f"quota {quota['metadata']['name']} has no room for {count} of them: {name} "
                    f"{plain(wanted)} more, {plain(there)} of {plain(limit)} in use"
                )
    return ""


def of_pod(pod: Mapping[str, Any], name: str) -> Decimal:
    """What one pod takes of it."""
    if name in ("pods", "count/pods"):
        return Decimal(1)
    kind, _, resource = name.partition(".")
    kind, resource = (kind, resource) if kind in ("requests", "limits") else ("requests", name)
    spec = pod["spec"]
    beside = [one for one in spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    return sum(
        (
            amount(one.get("resources", {}).get(kind, {}).get(resource, "0"))
            for one in (*spec["containers"], *beside)
        ),
        ZERO,
    )


def plain(number: Decimal) -> str:
    """`1.5`, and memory in MiB where it is large."""
    if number >= 1 << 20:
        return f"{number / (1 << 20):.0f}Mi"
    return f"{number.normalize():f}"
