"""What can happen to the world, in the past tense.

Events are facts from the edge (a target, the registry, the data plane). They only wake: whoever
decides reads the world that they were folded into. `at` is wall-clock seconds since the epoch, taken
where the fact was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from idi.declaration.types import ModuleName
from idi.world.types import Drift, Instance, InstanceId, PartState, RevisionId, RevisionSpec


@dataclass(frozen=True, slots=True)
class RevisionEnsured:
    """The target now keeps `count` instances of this revision (they may still be starting)."""

    spec: RevisionSpec
    count: int
    around: str = ""


@dataclass(frozen=True, slots=True)
class RevisionDrifted:
    """What the target keeps for this revision was changed by somebody else (`drift`), or is as it should be (empty).
    Whoever ensures the revision puts it back."""

    module: ModuleName
    revision: RevisionId
    drift: tuple[Drift, ...]


@dataclass(frozen=True, slots=True)
class RevisionRemoved:
    module: ModuleName
    revision: RevisionId


@dataclass(frozen=True, slots=True)
class RevisionDegraded:
    """Instances of this revision crash in a loop (`reason`), or do no longer (empty)."""

    module: ModuleName
    revision: RevisionId
    reason: str


@dataclass(frozen=True, slots=True)
class RevisionScaled:
    """An autoscaler wants so many instances of this revision; 0: none has a say in it."""

    module: ModuleName
    revision: RevisionId
    count: int


@dataclass(frozen=True, slots=True)
class RevisionAnew:
    """All instances of this revision are being made anew, though it is the same; or all of them were."""

    module: ModuleName
    revision: RevisionId
    under_way: bool


@dataclass(frozen=True, slots=True)
class SharesSet:
    """Explicit traffic weights by revision; empty: by number of ready instances."""

    module: ModuleName
    shares: tuple[tuple[RevisionId, int], ...]


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """An instance exists in the state that it carries: started, adopted, registered, restarted."""

    instance: Instance


@dataclass(frozen=True, slots=True)
class InstanceReady:
    module: ModuleName
    instance: InstanceId
    at: float


@dataclass(frozen=True, slots=True)
class InstanceUnready:
    module: ModuleName
    instance: InstanceId
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceStopping:
    """Chosen to go: no new traffic from now on; it ends after its sidecar has drained."""

    module: ModuleName
    instance: InstanceId
    at: float


@dataclass(frozen=True, slots=True)
class InstanceDied:
    """Its process (or its sidecar) ended without being asked; the supervisor starts it again."""

    module: ModuleName
    instance: InstanceId
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceFailed:
    """It crash-loops or missed its readiness deadline; tried again with the longest backoff."""

    module: ModuleName
    instance: InstanceId
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceGone:
    """It exists no more."""

    module: ModuleName
    instance: InstanceId
    at: float


@dataclass(frozen=True, slots=True)
class PartChanged:
    """One of IDI's own processes changed its state."""

    name: str
    state: PartState
    at: float
    pid: int = 0
    reason: str = ""


Event = (
    RevisionEnsured
    | RevisionDrifted
    | RevisionRemoved
    | RevisionDegraded
    | RevisionScaled
    | RevisionAnew
    | SharesSet
    | InstanceSeen
    | InstanceReady
    | InstanceUnready
    | InstanceStopping
    | InstanceDied
    | InstanceFailed
    | InstanceGone
    | PartChanged
)
