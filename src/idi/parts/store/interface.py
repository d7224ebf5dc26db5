"""What every journal can do.

The order that everything rests on: an intent is durable, and under a signed head, before the effect that it
announces; the outcome comes after the effect. So whoever finds an intent without an outcome knows that the
effect may or may not have happened, and repeats the (idempotent) step.

There is no second way to change anything: a document is written only together with the entry that says why,
and that entry names its SHA-256. Every call returns when what it wrote is durable. A call that is cancelled
may have been written or not: like a crash, it is settled by reading the journal.

Errors: `Refused` (a forward change while the disk is full; an entry or a document that is too large),
`PartError` (the disk; nothing may be taken as written), `Bug` (a step of a change that is not open).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from idi.ledger.canonical import JSON
from idi.ledger.changes import OpenChange, OpenStep, Outcome
from idi.ledger.entry import Actor, ChangeId, Entry, Phase, StepId

__all__ = [
    "JSON",
    "Actor",
    "ChangeId",
    "Documents",
    "Entry",
    "Filter",
    "OpenChange",
    "OpenStep",
    "Outcome",
    "Pending",
    "Phase",
    "State",
    "Step",
    "StepId",
    "Store",
]

MAX_DOCUMENT_BYTES = 1 << 20
MAX_STEPS = 1000
MAX_READ = 1000
OUTBOX_ALERT = 100_000

Documents = Mapping[str, bytes | None]
"""Small named blobs (the declaration, an overlay); None takes one away."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan, in words that a person reads in the audit log."""

    action: str
    subject: str
    detail: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filter:
    """What `entries` has to match; an empty one matches everything."""

    actor: str = ""
    action: str = ""
    subject: str = ""
    phase: Phase | None = None
    change: ChangeId | None = None

    def matches(self, entry: Entry) -> bool:
        return (
            self.actor in ("", entry.actor.name)
            and self.action in ("", entry.action)
            and self.subject in ("", entry.subject)
            and self.phase in (None, entry.phase)
            and self.change in (None, entry.change)
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """One entry that EAT has not acknowledged, with its own bytes and its leaf hash."""

    index: int
    data: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class State:
    """How the journal is. `degraded`: the disk is full, only changes that take away or go back are taken.
    `alerts` are sentences for `idi status`. `verifier` is the log's public key as signed notes write it."""

    origin: str
    verifier: str
    size: int
    outbox: int
    degraded: bool
    alerts: tuple[str, ...]


class Store(Protocol):
    async def begin(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = ...,
        relief: bool = False,
    ) -> ChangeId:
        """Begin a change. `relief` is for one that only takes away or goes back (stop, down, rollback): it and
        its steps are taken even when the disk is full."""

    async def intend(
        self, change: ChangeId, steps: Sequence[Step], documents: Documents = ...
    ) -> list[StepId]:
        """Announce steps, all in one transaction. Their effects may begin when this returns."""

    async def outcome(
        self, step: StepId, ok: bool, detail: Mapping[str, JSON] = ..., documents: Documents = ...
    ) -> None:
        """Say how a step ended."""

    async def finish(self, change: ChangeId, ok: bool, reason: str = "", documents: Documents = ...) -> None:
        """End a change. A good end needs an outcome of every step."""

    async def note(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = ...,
    ) -> int:
        """Write a fact that belongs to no change (adopted after a crash, drift); returns its index."""

    async def unfinished(self) -> list[OpenChange]:
        """The changes without a finish, oldest first, with their steps and outcomes."""

    async def document(self, name: str) -> bytes | None:
        """The newest content of a document."""

    async def entries(
        self, start: int = 0, limit: int = 100, *, newest: bool = False, only: Filter = ...
    ) -> list[Entry]:
        """Read up to `limit` (at most `MAX_READ`) entries from index `start` on; with `newest` backwards,
        skipping the `start` newest ones."""

    async def pending(self, limit: int = 100) -> list[Pending]:
        """The oldest entries of the outbox."""

    async def delivered(self, upto: int) -> None:
        """Take every entry with an index up to and including `upto` out of the outbox."""

    async def head(self) -> bytes:
        """The signed head (a C2SP checkpoint) under which everything acknowledged so far stands."""

    @property
    def state(self) -> State:
        """How the journal is, without waiting."""
