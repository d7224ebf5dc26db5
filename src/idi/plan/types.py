"""What somebody wants, and the steps that lead there, as values.

A plan speaks of revisions and counts, never of processes. Steps of one module are in order; modules do
not wait for each other. Every step is idempotent, so that a step whose outcome is unknown (a crash in
between) is simply done again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from idi.declaration.overlay import Config
from idi.declaration.types import ModuleName, Strategy
from idi.world.types import InstanceId, RevisionId, RevisionSpec


@dataclass(frozen=True, slots=True)
class KeptSecret:
    """What may be known of a secret: which version holds, and since when (seconds since the epoch)."""

    version: int
    since: float


@dataclass(frozen=True, slots=True)
class Run:
    """Somebody runs one instance of a module themselves (`idi run`). `pid` is the command that holds it for them.
    `standing`: theirs stands for one of ours, which is gone for that time."""

    by: str
    pid: int
    standing: bool = False


@dataclass(frozen=True, slots=True)
class Overlays:
    """Recorded changes on top of the file: `idi scale`, `idi restart`, `idi config set`,
    `idi secrets` and `idi run`.

    `generations` counts restarts: it is part of a revision's address, so that a restart is a new
    revision like any other change. `versions` counts the changes of a module's `config`, for ever: a number
    that somebody has seen never comes back with other values.
    `secrets` are by path.
    """

    instances: Mapping[ModuleName, int] = field(default_factory=dict)
    generations: Mapping[ModuleName, int] = field(default_factory=dict)
    config: Config = field(default_factory=dict)
    versions: Mapping[ModuleName, int] = field(default_factory=dict)
    secrets: Mapping[str, KeptSecret] = field(default_factory=dict)
    runs: Mapping[ModuleName, Run] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """Where the platform runs: the declaration's folder, the gateway's URL, the version's label. `sidecar` is the image
    of what stands beside a module on a cluster, `relay` that of relay and broker there. `places` says what further
    references stand for that do not depend on one instance (`bus.program`)."""

    directory: str
    gateway_url: str
    version: str = "dev"
    sidecar: str = ""
    relay: str = ""
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DesiredModule:
    """`origin` says where the number of instances came from; `run` that somebody runs one of them. `rolls`: the target
    brings a new revision in and the old one out by itself (a Deployment does). `around` is a digest of what the target
    keeps for it beside its instances: who may reach it. `most`: an autoscaler says how many, from `count` to that."""

    spec: RevisionSpec
    count: int
    strategy: Strategy
    origin: str = ""
    run: Run | None = None
    rolls: bool = False
    around: str = ""
    most: int = 0

    @property
    def ours(self) -> int:
        """How many of them the target keeps."""
        return max(0, self.count - 1) if self.run and self.run.standing else self.count


@dataclass(frozen=True, slots=True)
class Desired:
    """`parts` are IDI's own processes, in the order in which they start."""

    modules: Mapping[ModuleName, DesiredModule] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StartPart:
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StopPart:
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ensure:
    """Keep exactly `count` instances of this revision. `was` is what there is now, `most` up to how many an autoscaler
    may make of them (both for people).

    `brief` is the reason without the values of configuration: what the journal keeps, for ever.
    """

    spec: RevisionSpec
    count: int
    was: int
    reason: str = ""
    brief: str = ""
    around: str = ""
    most: int = 0


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Go on only when `count` instances of the revision are ready; `deadline_s` is how long the next may take. With
    `alone` also when none of another serves any more: where the target takes the former ones out by itself."""

    module: ModuleName
    revision: RevisionId
    count: int
    deadline_s: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Remove:
    """Retire every instance of the revision and forget it."""

    module: ModuleName
    revision: RevisionId
    was: int
    reason: str = ""
    brief: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Start what has failed of a revision again, each in its place. Whoever asks again has mended something, and
    the target by itself would try only after its longest pause."""

    module: ModuleName
    revision: RevisionId
    failed: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lend:
    """Make a seat for an instance that somebody runs themselves: ports, sidecar, environment."""

    spec: RevisionSpec
    run: Run


@dataclass(frozen=True, slots=True)
class Detach:
    """Let an instance go that somebody else runs: its traffic and its sidecar. A registered one's process is never
    touched; of one that was lent (`by`), the process ends with it."""

    module: ModuleName
    instance: InstanceId
    reason: str = ""
    by: str = ""


Step = StartPart | StopPart | Ensure | Retry | AwaitReady | Remove | Lend | Detach
StepKind = Literal[
    "start-part", "stop-part", "ensure", "retry", "await-ready", "remove", "lend", "detach", "rotate"
]


@dataclass(frozen=True, slots=True)
class Plan:
    """`first` in order, then all lanes beside each other (each in order), then `last` in order.

    A lane is a module or one of IDI's own parts. Parts start beside the modules: a sidecar waits for
    its certificate by itself, so nothing is gained by waiting for it here.
    """

    first: tuple[Step, ...] = ()
    lanes: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    last: tuple[Step, ...] = ()

    def steps(self) -> tuple[Step, ...]:
        return (*self.first, *(step for steps in self.lanes.values() for step in steps), *self.last)

    def only(self, names: Collection[str]) -> Plan:
        """What concerns these modules and parts."""
        return Plan(lanes={name: steps for name, steps in self.lanes.items() if name in names})

    def empty(self) -> bool:
        return not self.steps()

    def changes(self) -> tuple[Step, ...]:
        """The steps that change something; waiting is not one."""
        return tuple(step for step in self.steps() if not isinstance(step, AwaitReady))
