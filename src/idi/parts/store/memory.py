"""The journal in memory: the same rules without a disk, for tests of whoever writes into one.

It keeps the same entries, tree and documents by the same code (`draft`), and it can crash: `crash_after(n)`
lets n more writes pass and stops at the next one, before or after it became durable, by raising `Crash`. Then
every call raises it, as from a process that is dead, until `restart()`, which keeps what was durable and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from idi.ledger import checkpoint
from idi.ledger.canonical import JSON
from idi.ledger.checkpoint import Checkpoint
from idi.ledger.entry import decode
from idi.ledger.merkle import leaf_hash
from idi.ledger.note import Signer
from idi.ledger.problem import Problem
from idi.ledger.verify import Report, Stored, verify
from idi.parts.errors import Bug, Refused
from idi.parts.store import draft
from idi.parts.store.draft import PLATFORM, Compose, Tip, Writes
from idi.parts.store.interface import (
    MAX_READ,
    OUTBOX_ALERT,
    Actor,
    ChangeId,
    Documents,
    Entry,
    Filter,
    OpenChange,
    Pending,
    State,
    Step,
    StepId,
)

T = TypeVar("T")

_NOTHING: Mapping[str, JSON] = MappingProxyType({})
_NO_DOCUMENTS: Documents = MappingProxyType({})
_ANY = Filter()


class Crash(BaseException):
    """The process that wrote is dead. Not an Exception: nothing that recovers from errors may catch it."""


class MemoryStore:
    def __init__(
        self,
        clock: Callable[[], float] = lambda: 0.0,
        *,
        origin: str = "simulator.example/log",
        outbox_alert: int = OUTBOX_ALERT,
    ) -> None:
        self._clock = clock
        self._signer = Signer(origin, bytes(32))
        self._outbox_alert = outbox_alert
        self._tip = Tip()
        self._rows: list[bytes] = []
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._outbox: list[int] = []
        self._open: dict[int, int] = {}
        self._documents: dict[str, tuple[bytes, int]] = {}
        self._previous = 0
        self._dead = False
        self._fuse: tuple[int, Literal["before", "after"]] | None = None
        self.degraded = False
        verifier = self._signer.verifier.encode()
        self._write(draft.note(PLATFORM, "journal.create", "", {"origin": origin, "verifier": verifier}, {}))

    # --- the knobs

    def crash_after(self, writes: int, when: Literal["before", "after"] = "after") -> None:
        """Let `writes` more writes pass; the next one crashes, before it is durable or after."""
        self._fuse = (writes, when)

    def restart(self) -> None:
        """Be a new process that finds what was durable."""
        self._dead = False
        self._fuse = None

    def fill_disk(self) -> None:
        """From here on only relief is taken."""
        self.degraded = True

    def make_room(self) -> None:
        self.degraded = False

    def verify(self) -> Report:
        """What an offline verifier says."""
        return verify(
            Stored(
                origin=self._signer.verifier.name,
                verifier=self._signer.verifier.encode(),
                previous=self._previous,
                entries=list(enumerate(self._rows)),
                stored_hash=lambda level, position: self._nodes.get((level, position)),
                hash_count=len(self._nodes),
                open_entries=list(self._open.items()),
                outbox=[(index,) for index in self._outbox],
                documents=[(name, data, index) for name, (data, index) in self._documents.items()],
                head=self._head(),
            ),
            self._signer.verifier,
        )

    # --- the interface

    async def begin(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = _NO_DOCUMENTS,
        relief: bool = False,
    ) -> ChangeId:
        return self._write(draft.begin(actor, action, subject, detail, documents, relief), not relief)

    async def intend(
        self, change: ChangeId, steps: Sequence[Step], documents: Documents = _NO_DOCUMENTS
    ) -> list[StepId]:
        return self._write(draft.intend(change, steps, documents), draft.is_forward(self._tip, change))

    async def outcome(
        self,
        step: StepId,
        ok: bool,
        detail: Mapping[str, JSON] = _NOTHING,
        documents: Documents = _NO_DOCUMENTS,
    ) -> None:
        self._write(draft.outcome(step, ok, detail, documents))

    async def finish(
        self, change: ChangeId, ok: bool, reason: str = "", documents: Documents = _NO_DOCUMENTS
    ) -> None:
        self._write(draft.finish(change, ok, reason, documents))

    async def note(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = _NO_DOCUMENTS,
    ) -> int:
        return self._write(draft.note(actor, action, subject, detail, documents))

    async def unfinished(self) -> list[OpenChange]:
        self._alive()
        return sorted(self._tip.open.values(), key=lambda change: change.id)

    async def document(self, name: str) -> bytes | None:
        self._alive()
        found = self._documents.get(name)
        return None if found is None else found[0]

    async def entries(
        self, start: int = 0, limit: int = 100, *, newest: bool = False, only: Filter = _ANY
    ) -> list[Entry]:
        self._alive()
        rows = self._rows[::-1] if newest else self._rows
        read = [decode(data) for data in rows[start:]]
        found = [entry for entry in read if not isinstance(entry, Problem) and only.matches(entry)]
        return found[: max(0, min(limit, MAX_READ))]

    async def pending(self, limit: int = 100) -> list[Pending]:
        self._alive()
        first = self._outbox[: min(limit, MAX_READ)]
        return [Pending(index, self._rows[index], leaf_hash(self._rows[index])) for index in first]

    async def delivered(self, upto: int) -> None:
        self._write(draft.delivered(upto))

    async def head(self) -> bytes:
        self._alive()
        return self._head()

    @property
    def state(self) -> State:
        alerts = []
        if self.degraded:
            alerts.append("the disk is full: only stop, down and rollback are taken")
        if len(self._outbox) > self._outbox_alert:
            alerts.append(f"{len(self._outbox)} audit entries wait for EAT, more than {self._outbox_alert}")
        verifier = self._signer.verifier
        return State(
            verifier.name, verifier.encode(), len(self._rows), len(self._outbox), self.degraded, tuple(alerts)
        )

    # --- one transaction

    def _alive(self) -> None:
        if self._dead:
            raise Crash

    def _write(self, compose: Compose[T], forward: bool = False) -> T:
        self._alive()
        if self.degraded and forward:
            raise Refused(
                "The disk is full: only changes that stop something or go back are taken.", "Make room."
            )
        composed = compose(self._tip, self._clock())
        when: str | None = None
        if self._fuse is not None:
            left, moment = self._fuse
            self._fuse = (left - 1, moment)
            when = moment if left == 0 else None
        if when != "before":
            self._apply(composed.writes)
            self._tip = composed.tip
        if when is not None:
            self._dead = True
            raise Crash
        return composed.value

    def _apply(self, writes: Writes) -> None:
        if writes.rows:
            self._previous = len(self._rows)
        for row in writes.rows:
            if row.index != len(self._rows):
                raise Bug(f"Entry {row.index} was written at {len(self._rows)}.")
            self._rows.append(row.data)
            self._outbox.append(row.index)
            if row.change is not None:
                self._open[row.index] = row.change
        for node in writes.nodes:
            self._nodes[node.level, node.position] = node.hash
        self._open = {index: change for index, change in self._open.items() if change not in writes.closed}
        for name, (data, index) in writes.documents.items():
            self._documents.pop(name, None)
            if data is not None:
                self._documents[name] = (data, index)
        if writes.delivered is not None:
            upto = writes.delivered
            self._outbox = [index for index in self._outbox if index > upto]

    def _head(self) -> bytes:
        frontier = self._tip.frontier
        return checkpoint.sign(
            Checkpoint(self._signer.verifier.name, frontier.size, frontier.root()), self._signer
        )


if TYPE_CHECKING:
    from idi.parts.store.interface import Store

    _: Store = MemoryStore()
