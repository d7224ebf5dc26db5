"""The machines of a cluster against what a declaration asks of them: pools, taints, room for one pod.

A module runs only on nodes with label `idi.dev/pool` of its pool and puts up with a taint of that key and value, and
with no other; control and gateways run anywhere and put up with none. Pure: it is given what the cluster told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from idi.api.finding import Finding
from idi.declaration.demand import Demand, cpu_text, memory_text, pod
from idi.declaration.types import KubernetesTarget, Module, Platform
from idi.parts.clients.kubernetes_quantity import amount

POOL = "idi.dev/pool"
KEEPS_OUT = ("NoSchedule", "NoExecute")

Node = Mapping[str, Any]


def nodes(every: Sequence[Node], platform: Platform) -> Iterator[Finding]:
    """A finding for the whole, and one for each pool that modules name."""
    usable = [node for node in every if ready(node)]
    free = [node for node in usable if not taints(node)]
    away = "" if len(usable) == len(every) else f" of {len(every)}; the others are not ready, or cordoned"
    if not free:
        what = "no node is ready" if not usable else "every node has a taint"
        yield Finding(
            "nodes",
            "fail",
            f"{what}, so control and gateways can run nowhere",
            "Add a node without taints, or take one away: kubectl taint nodes NAME KEY-",
        )
    else:
        yield Finding("nodes", "ok", f"{len(usable)} that pods can run on{away}")
    resource = platform.target.gpu if isinstance(platform.target, KubernetesTarget) else ""
    pools: dict[str, list[Module]] = {}
    for module in platform.modules.values():
        pools.setdefault(module.pool, []).append(module)
    for name, modules in pools.items():
        largest = Demand()
        for module in modules:
            largest = largest.at_least(pod(module))
        yield pool(name, [module.name for module in modules], usable, largest)
        if asking := [module for module in modules if module.resources.gpu]:
            yield gpu(name, resource, asking, usable)


def pool(name: str, modules: Sequence[str], usable: Sequence[Node], largest: Demand) -> Finding:
    title, whose = f"pool {name}", ", ".join(modules)
    own = labelled(usable, name)
    if not own:
        return Finding(
            title,
            "fail",
            f"no node has the label {POOL}={name}, which {whose} need{'s' if len(modules) == 1 else ''}",
            f"kubectl label nodes NAME {POOL}={name}, better in the node pool's own settings; a pool that grows from "
            "nothing has no node to be seen here.",
        )
    open_ones = [node for node in own if not taints(node, name)]
    if not open_ones:
        kept = ", ".join(sorted({text for node in own for text in taints(node, name)}))
        return Finding(
            title,
            "fail",
            f"its nodes keep modules out by the taint {kept}",
            f"Modules put up with {POOL}={name}:NoSchedule only: kubectl taint nodes -l {POOL}={name} KEY-",
        )
    if not any(fits(node, largest) for node in open_ones):
        return Finding(
            title,
            "fail",
            f"no node has room for one pod of {cpu_text(largest.cpu_millicores)} and "
            f"{memory_text(largest.memory_bytes)}",
            "Use larger nodes, or lower the module's resources.",
        )
    many = f"{len(open_ones)} node{'s' if len(open_ones) != 1 else ''} for {whose}"
    tainted = any(taint.get("key") == POOL for node in open_ones for taint in _taints(node))
    if name != "general" and not tainted:
        return Finding(
            title,
            "warn",
            f"{many}, where anybody else's pods land too",
            f"kubectl taint nodes -l {POOL}={name} {POOL}={name}:NoSchedule",
        )
    return Finding(title, "ok", many)


def gpu(pool: str, resource: str, modules: Sequence[Module], usable: Sequence[Node]) -> Finding:
    whose = ", ".join(module.name for module in modules)
    most = max(module.resources.gpu for module in modules)
    own = labelled(usable, pool)
    having = [
        node for node in own if amount(node["status"].get("allocatable", {}).get(resource, "0")) >= most
    ]
    if having:
        many = f"{len(having)} node{'s' if len(having) != 1 else ''} of pool {pool}"
        return Finding("gpu", "ok", f"{resource} on {many} for {whose}")
    count = f"{most} of " if most > 1 else ""
    asks = f"ask{'s' if len(modules) == 1 else ''}"
    return Finding(
        "gpu",
        "fail",
        f"no node of pool {pool} has {count}{resource}, which {whose} {asks} for",
        "Install the maker's device plugin on nodes that have one, name what they call it (target.kubernetes.gpu), or "
        "take gpu out of the module's resources; a pool that grows from nothing has no node to be seen here.",
    )


def labelled(usable: Sequence[Node], pool: str) -> list[Node]:
    return [node for node in usable if node["metadata"].get("labels", {}).get(POOL) == pool]


def ready(node: Node) -> bool:
    conditions = {one["type"]: one["status"] for one in node.get("status", {}).get("conditions", ())}
    windows = node["metadata"].get("labels", {}).get("kubernetes.io/os") == "windows"
    return conditions.get("Ready") == "True" and not node.get("spec", {}).get("unschedulable") and not windows


def taints(node: Node, pool: str = "") -> list[str]:
    """Those that keep out who tolerates nothing but the pool's own."""
    return [
        f"{one['key']}{'=' if one.get('value') else ''}{one.get('value', '')}:{one['effect']}"
        for one in _taints(node)
        if one["effect"] in KEEPS_OUT
        and not (pool and (one["key"], one.get("value", ""), one["effect"]) == (POOL, pool, "NoSchedule"))
    ]


def fits(node: Node, demand: Demand) -> bool:
    """Whether the empty node would have room for it."""
    has = node.get("status", {}).get("allocatable", {})
    return (
        amount(has.get("cpu", "0")) * 1000 >= demand.cpu_millicores
        and amount(has.get("memory", "0")) >= demand.memory_bytes
    )


def _taints(node: Node) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = node.get("spec", {}).get("taints") or ()
    return found
