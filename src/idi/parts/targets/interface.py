"""What every target can do: keep instances of revisions running.

A plan speaks of revisions and counts; which instances there are, where they listen and when a crashed
one starts again is the target's matter. Everything it learns goes out as events through `emit`, which
never blocks and never raises.

Retiring an instance keeps one order, because a request must not meet a closed door: the target emits
`InstanceStopping`, then awaits `retire(instance)` (control takes the endpoint out, waits until every
proxy has acknowledged that, and drains the sidecar), then ends the process within its grace period,
then the sidecar, then emits `InstanceGone`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import PartError
from idi.world.events import Event
from idi.world.types import Instance, InstanceId, RevisionId, RevisionSpec

Emit = Callable[[Event], None]
Retire = Callable[[Instance], Awaitable[None]]

Supply = Callable[[RevisionSpec, Collection[str]], Awaitable[Mapping[str, bytes]]]
"""The values of these secrets, by path, in the versions that the revision names. May wait for the store for a
while; raises `Unsupplied`. The values go into the process that starts and are kept nowhere else."""


class Unsupplied(PartError):
    """An instance cannot start now for want of a secret. It stays and is tried again; where that is not
    `retryable` somebody has to do something first, and it counts as failed at once."""


def text_of(value: bytes) -> str | None:
    """A secret as a variable holds it; None where it is no text: a C string in UTF-8 is all that an environment can
    hold."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


@dataclass(frozen=True, slots=True)
class SidecarSpec:
    """How to start the sidecar of one instance: what to run, which files it needs (path -> bytes,
    written with mode 0600 before it starts), and where its log goes is the target's matter."""

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


MakeSidecar = Callable[[Instance], SidecarSpec]


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a module's environment. `value` None: a secret that is not shown (`secret`), or one that only an
    instance has."""

    name: str
    value: str | None
    secret: bool = False


class Target(Protocol):
    """Implementations are async context managers: leaving one stops watching and ends nothing."""

    async def adopt(self) -> None:
        """Find what still lives from before, watch it again, emit `RevisionEnsured`/`InstanceSeen`
        for it (and `InstanceDied` for what died meanwhile). Changes nothing else."""

    async def ensure(self, spec: RevisionSpec, count: int, around: str = "") -> None:
        """Converge on exactly `count` instances of this revision, and on what is kept `around` them (a digest; a
        target that keeps nothing needs none). Idempotent.

        Returns when missing ones are started (not ready: that is an event) and surplus ones are
        retired and gone. Raises `PartError` when an instance cannot be started at all.
        """

    async def retry(self, module: ModuleName, revision: RevisionId) -> None:
        """Start what has failed of the revision again at once, each in its place, and forget that it failed.
        Idempotent: what has not failed is left alone."""

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        """`ensure(0)`, then forget the revision. Idempotent."""

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        """The data plane says whether this instance's sidecar has all of its listeners. Said again for
        each sidecar that connects: a restarted one is not ready until it is."""

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        """The last lines of an instance's output, for messages."""


@dataclass(frozen=True, slots=True)
class Objection:
    """What would be refused of a revision, in the words of who refuses it, and what helps."""

    object: str
    words: str
    way_out: str = ""


class Surveyed(Protocol):
    """A target where others can change what it keeps, and which can be asked before something is done (a cluster is
    one)."""

    async def survey(self, modules: Collection[ModuleName] | None = None) -> None:
        """Look at what is kept for these modules (None: for all), and emit `RevisionDrifted` where that is another
        than it was, or none any more. Changes nothing. Raises `PartError` where it cannot be looked at."""

    async def trial(
        self, spec: RevisionSpec, count: int, around: str = "", platform: Platform | None = None
    ) -> list[Objection]:
        """What `ensure` with the same would be refused once `platform` (None: the one that runs) is what runs; changes
        nothing. Raises `PartError` where nobody judged it."""


class Attaching(Protocol):
    """A target that can take in instances which somebody else runs (a laptop can)."""

    async def attach(self, spec: RevisionSpec, port: int) -> Instance:
        """Give a module that somebody else runs on loopback `port` a sidecar of its own."""

    async def detach(self, instance: InstanceId) -> None:
        """Retire an attached instance's sidecar. Idempotent."""

    def attached(self) -> list[InstanceId]:
        """The instances that were attached."""


class Lending(Protocol):
    """A target that can lend a seat to whoever starts a module themselves (a laptop can)."""

    async def lend(self, spec: RevisionSpec, by: str, holder: int) -> Instance:
        """A seat with ports and a sidecar; it is theirs as long as process `holder` lives. Idempotent."""

    def take(self, instance: InstanceId, pid: int, asking: int) -> None:
        """The process that was started in it, as its holder says."""

    def over(self, instance: InstanceId) -> str:
        """Why it is to be given back; empty as long as it is in use."""

    async def environment(
        self, spec: RevisionSpec, instance: InstanceId | None, *, reveal: bool
    ) -> list[Variable]:
        """What a module's process gets from the platform."""
