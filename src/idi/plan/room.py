"""Whether the instances that are wanted have room in the environment's quota, before any of them is asked for.

What `idi validate` says of the file, said of the file with the numbers of `idi scale` in it. What only the cluster
knows (a quota of somebody else's, pods of somebody else's) shows when a pod is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from idi.declaration.demand import bounds, least, quota_of
from idi.declaration.frozen import Frozen
from idi.declaration.types import KubernetesTarget, ModuleName, Platform


def lacking(platform: Platform, instances: Mapping[ModuleName, int]) -> tuple[str, str]:
    """What is short, and what helps; empty where everything has room."""
    if not isinstance(platform.target, KubernetesTarget):
        return "", ""
    modules = {
        name: replace(module, instances=instances.get(name, module.instances))
        for name, module in platform.modules.items()
    }
    needs = least(replace(platform, modules=Frozen(modules)))
    short = [
        (name, text(need), text(bound))
        for name, bound, need, text in bounds(quota_of(platform.target), needs)
        if need > bound
    ]
    if not short:
        return "", ""
    counted = ", ".join(f"{need} of {name} where the quota has {bound}" for name, need, bound in short)
    more = ", ".join(f"{name}: {need}" for name, need, _ in short)
    return (
        f"The quota of {platform.namespace} has no room for that: with one pod more to roll, everything asks for "
        f"{counted}.",
        f"Write quota: {{{more}}} or more under target.kubernetes and run idi up, or lower instances or resources.",
    )
