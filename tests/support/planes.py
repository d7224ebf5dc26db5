"""A data plane that remembers what it was given and acknowledges at once: the simulator of tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from idi.parts.gateway.interface import BarrierResult, Identity, Rejection
from idi.traffic.types import Assignment, Traffic


@dataclass
class RememberingPlane:
    """`calls` is everything in order: ("traffic", …), ("endpoints", …), ("barrier",)."""

    calls: list[tuple[str, object]] = field(default_factory=list)
    identities: dict[str, Identity] = field(default_factory=dict)

    def publish(self, traffic: Traffic) -> None:
        self.calls.append(("traffic", traffic))

    def publish_endpoints(self, assignment: Assignment) -> None:
        self.calls.append(("endpoints", assignment))

    def set_identity(self, node: str, identity: Identity) -> None:
        self.identities[node] = identity

    async def barrier(self, timeout_s: float) -> BarrierResult:
        self.calls.append(("barrier", timeout_s))
        return BarrierResult((), (), ())

    def rejections(self) -> tuple[Rejection, ...]:
        return ()

    def connected(self) -> Mapping[str, bool]:
        return {}
