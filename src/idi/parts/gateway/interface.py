"""What every data plane can do: take a view of traffic, and say who has it.

`publish` and `publish_endpoints` only mark and send; they never wait. Waiting is `barrier`: it returns
when every proxy that subscribed to what was published before has acknowledged it or counts as lost.
Nothing that takes endpoints away is done before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from idi.traffic.types import Assignment, Traffic


@dataclass(frozen=True, slots=True)
class Identity:
    """A workload's certificate: PEM chain (leaf first), PEM key, PEM roots that it trusts.
    `not_after` is wall-clock seconds since the epoch."""

    spiffe_id: str
    chain: bytes
    key: bytes
    roots: bytes
    not_after: float

    def __repr__(self) -> str:  # the key must never reach a log through a repr
        return f"Identity({self.spiffe_id}, not_after={self.not_after})"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A proxy refused an update: its words, shortened; the last good one keeps serving."""

    node: str
    resource: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class BarrierResult:
    acknowledged: tuple[str, ...]
    lost: tuple[str, ...]
    rejected: tuple[Rejection, ...]


class DataPlane(Protocol):
    def publish(self, traffic: Traffic) -> None:
        """Replace the whole view. Unchanged resources cause no message."""

    def publish_endpoints(self, assignment: Assignment) -> None:
        """Replace the endpoints of one service: the fast path of a birth or a death."""

    def set_identity(self, node: str, identity: Identity) -> None:
        """Give one proxy (instance id or one of the gateways) its certificate; a second call rotates it."""

    async def barrier(self, timeout_s: float) -> BarrierResult:
        """Wait until all that was published before this call is acknowledged, rejected or lost."""

    def rejections(self) -> tuple[Rejection, ...]:
        """Updates that are refused right now."""

    def connected(self) -> Mapping[str, bool]:
        """Node -> whether it has acknowledged all of its listeners."""
