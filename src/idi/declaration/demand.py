"""What an environment's pods ask a cluster for, all together: as the charts render them.

The charts' own figures are here too (what control, xDS, a gateway and a sidecar ask for, what a module gets that
declares nothing); a test holds them against the charts. `least` is what has to have room at once, or a pod is never
made; `most` is for the day on which every module is at its largest and rolls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from idi.declaration.types import KubernetesTarget, Module, Platform, Quota

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests; `memory_limit_bytes` is what they may take at most."""

    pods: int = 0
    cpu_millicores: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    claims: int = 0
    storage_bytes: int = 0

    def __add__(self, other: Demand) -> Demand:
        return Demand(
            self.pods + other.pods,
            self.cpu_millicores + other.cpu_millicores,
            self.memory_bytes + other.memory_bytes,
            self.memory_limit_bytes + other.memory_limit_bytes,
            self.claims + other.claims,
            self.storage_bytes + other.storage_bytes,
        )

    def __mul__(self, count: int) -> Demand:
        return Demand(
            self.pods * count,
            self.cpu_millicores * count,
            self.memory_bytes * count,
            self.memory_limit_bytes * count,
            self.claims * count,
            self.storage_bytes * count,
        )

    def at_least(self, other: Demand) -> Demand:
        """The larger of each."""
        return Demand(
            max(self.pods, other.pods),
            max(self.cpu_millicores, other.cpu_millicores),
            max(self.memory_bytes, other.memory_bytes),
            max(self.memory_limit_bytes, other.memory_limit_bytes),
            max(self.claims, other.claims),
            max(self.storage_bytes, other.storage_bytes),
        )


CONTROL = Demand(1, 200, 512 * MIB, GIB, 1, 5 * GIB)
GATEWAY = Demand(1, 100, 128 * MIB, 512 * MIB)
GATEWAYS = 2
XDS = Demand(1, 100, 128 * MIB, 512 * MIB)
XDSES = 2
SIDECAR = Demand(0, 20, 96 * MIB, 256 * MIB)
UNDECLARED = Demand(1, 100, 64 * MIB, 256 * MIB)
"""A module's container that declares no resources."""
BROKER = UNDECLARED + SIDECAR + Demand(0, 0, 448 * MIB, 256 * MIB, 1, 8 * GIB)
RELAY = UNDECLARED + SIDECAR
"""The two modules that come with events; an update of the broker ends the old one first."""
SURGE = 4
"""One more pod for as many as these, rounded up, while a module rolls."""
QUOTA = Quota(20_000, 40 * GIB, 150)
"""What the platform's chart sets where the environment declares nothing."""

UNDECLARED_QUOTA = Demand(memory_limit_bytes=80 * GIB, claims=20, storage_bytes=500 * GIB)
"""What the chart bounds besides, and no declaration does."""


def pod(module: Module) -> Demand:
    """One instance with its sidecar, without its volume."""
    memory = module.resources.memory_bytes
    own = Demand(
        1,
        module.resources.cpu_millicores or UNDECLARED.cpu_millicores,
        memory or UNDECLARED.memory_bytes,
        memory or UNDECLARED.memory_limit_bytes,
    )
    return own + SIDECAR


def least(platform: Platform) -> Demand:
    """What has to be there at once: every instance, and the one pod more with which an update goes on."""
    largest = GATEWAY.at_least(XDS)
    whole = CONTROL + GATEWAY * GATEWAYS + XDS * XDSES
    if brings_bus(platform):
        whole += BROKER + RELAY
        largest = largest.at_least(RELAY)
    for module in platform.modules.values():
        whole += pod(module) * module.instances + volume(module)
        if rolls(module):
            largest = largest.at_least(pod(module))
    return whole + largest


def surge(count: int) -> int:
    """How many more there are while so many are rolled: a Deployment brings new ones in before it takes any out."""
    return -(-count // SURGE)


def most(platform: Platform) -> Demand:
    """All scaled to their largest, and all of them rolling at the same time."""
    whole = CONTROL + GATEWAY * (GATEWAYS + 1) + XDS * (XDSES + 1)
    if brings_bus(platform):
        whole += BROKER + RELAY * 2
    for module in platform.modules.values():
        count = max(module.instances, module.scale.max if module.scale else 0)
        whole += pod(module) * (count + (surge(count) if rolls(module) else 0)) + volume(module)
    return whole


def brings_bus(platform: Platform) -> bool:
    """Whether broker and relay come with it, and are not among its modules yet."""
    modules = platform.modules.values()
    return "bus" not in platform.modules and any(module.uses_events() for module in modules)


def rolls(module: Module) -> bool:
    """Whether new pods come before the old ones go."""
    return bool(module.instances) and not module.storage and module.release.strategy != "recreate"


def volume(module: Module) -> Demand:
    return Demand(claims=1, storage_bytes=module.storage.size_bytes) if module.storage else Demand()


def quota_of(target: KubernetesTarget) -> Quota:
    """What holds in the namespace: declared, else the chart's."""
    declared = target.quota
    return Quota(
        declared.cpu_millicores or QUOTA.cpu_millicores,
        declared.memory_bytes or QUOTA.memory_bytes,
        declared.pods or QUOTA.pods,
    )


def bounds(quota: Quota, demand: Demand) -> Iterator[tuple[str, int, int, Callable[[int], str]]]:
    """What is bounded, to how much, how much of it is asked for, and how to write that."""
    yield "cpu", quota.cpu_millicores, demand.cpu_millicores, cpu_text
    yield "memory", quota.memory_bytes, demand.memory_bytes, memory_text
    yield "pods", quota.pods, demand.pods, str


def cpu_text(millicores: int) -> str:
    """`250m`, `2`."""
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def memory_text(count: int) -> str:
    """In whole MiB or GiB, rounded up: what may be written as a quota."""
    mib = -(-count // MIB)
    return f"{mib}MiB" if mib % 1024 else f"{mib // 1024}GiB"
