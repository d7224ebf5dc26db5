"""What a call writes, decided before anything is written.

`Tip` is all that has to be known of the journal to extend it: the tree's frontier and the open changes. Each
function here takes a tip and gives the next one together with the rows to write, touching nothing. So several
calls are composed one after another into one transaction, a wrong call fails before the database has heard of
it, and after a failed commit the old tip is still true. The simulator and the real journal share this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Generic, TypeVar

from idi.ledger import entry as entries
from idi.ledger.canonical import JSON
from idi.ledger.changes import Open, OpenChange, fold
from idi.ledger.entry import Actor, ChangeId, Entry, Phase, StepId
from idi.ledger.merkle import Frontier, Node, leaf_hash
from idi.ledger.problem import Problem
from idi.parts.errors import Bug, Refused
from idi.parts.store.interface import MAX_DOCUMENT_BYTES, MAX_STEPS, Documents, Step

T = TypeVar("T")

PLATFORM = Actor("idi", "idi")
"""Who writes what nobody asked for: the journal's own notes."""


@dataclass(frozen=True, slots=True)
class Tip:
    frontier: Frontier = field(default_factory=Frontier)
    open: Open = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.frontier.size


@dataclass(frozen=True, slots=True)
class Row:
    """One entry to write. `change` is the open change that it belongs to; None if it belongs to none or ends it."""

    index: int
    data: bytes
    change: ChangeId | None


@dataclass(slots=True)
class Writes:
    """Rows of one transaction, in order. `closed` are the changes that it finishes; `delivered`, if not None,
    is the highest index that leaves the outbox."""

    rows: list[Row] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    closed: list[ChangeId] = field(default_factory=list)
    documents: dict[str, tuple[bytes | None, int]] = field(default_factory=dict)
    delivered: int | None = None

    def add(self, other: Writes) -> None:
        self.rows += other.rows
        self.nodes += other.nodes
        self.closed += other.closed
        self.documents |= other.documents
        if other.delivered is not None:
            self.delivered = max(other.delivered, self.delivered or 0)


@dataclass(frozen=True, slots=True)
class Composed(Generic[T]):
    tip: Tip
    writes: Writes
    value: T


Compose = Callable[[Tip, float], Composed[T]]
"""(tip, wall-clock seconds) -> what to write."""


def begin(
    actor: Actor, action: str, subject: str, detail: Mapping[str, JSON], documents: Documents, relief: bool
) -> Compose[ChangeId]:
    def compose(tip: Tip, now: float) -> Composed[ChangeId]:
        change = ChangeId(tip.size)
        one = _Draft(actor, "begin", action, subject, change, detail=detail, relief=relief)
        return _extend(tip, now, [one], documents, change)

    return compose


def intend(change: ChangeId, steps: Sequence[Step], documents: Documents) -> Compose[list[StepId]]:
    def compose(tip: Tip, now: float) -> Composed[list[StepId]]:
        if not 0 < len(steps) <= MAX_STEPS:
            raise Bug(f"{len(steps)} steps were announced at once, 1 to {MAX_STEPS} can be.")
        actor = _known(tip, change).actor
        ids = [StepId(tip.size + at) for at in range(len(steps))]
        drafts = [
            _Draft(actor, "intent", step.action, step.subject, change, step=id_, detail=step.detail)
            for step, id_ in zip(steps, ids, strict=True)
        ]
        return _extend(tip, now, drafts, documents, ids)

    return compose


def outcome(step: StepId, ok: bool, detail: Mapping[str, JSON], documents: Documents) -> Compose[None]:
    def compose(tip: Tip, now: float) -> Composed[None]:
        for change in tip.open.values():
            known = change.step(step)
            if known is not None:
                draft = _Draft(
                    change.actor, "outcome", known.action, known.subject, change.id, step, ok, detail
                )
                return _extend(tip, now, [draft], documents, None)
        raise Bug(f"Step {step} belongs to no change that is open.")

    return compose


def finish(change: ChangeId, ok: bool, reason: str, documents: Documents) -> Compose[None]:
    def compose(tip: Tip, now: float) -> Composed[None]:
        known = _known(tip, change)
        detail: dict[str, JSON] = {"reason": reason} if reason else {}
        one = _Draft(known.actor, "finish", known.action, known.subject, change, ok=ok, detail=detail)
        return _extend(tip, now, [one], documents, None)

    return compose


def note(
    actor: Actor, action: str, subject: str, detail: Mapping[str, JSON], documents: Documents
) -> Compose[int]:
    def compose(tip: Tip, now: float) -> Composed[int]:
        one = _Draft(actor, "note", action, subject, detail=detail)
        return _extend(tip, now, [one], documents, tip.size)

    return compose


def delivered(upto: int) -> Compose[None]:
    """Bookkeeping, not a change: it takes the index of entries out of the outbox and writes no entry."""

    def compose(tip: Tip, now: float) -> Composed[None]:
        del now
        if upto >= tip.size:
            raise Bug(f"Entry {upto} was acknowledged, but there are only {tip.size} entries.")
        return Composed(tip, Writes(delivered=upto), None)

    return compose


def is_forward(tip: Tip, change: ChangeId) -> bool:
    """Whether more steps of this change may be put off: it is open, and no relief."""
    known = tip.open.get(change)
    return known is not None and not known.relief


@dataclass(frozen=True, slots=True)
class _Draft:
    """An entry that has no index and no time yet."""

    actor: Actor
    phase: Phase
    action: str
    subject: str
    change: ChangeId | None = None
    step: StepId | None = None
    ok: bool | None = None
    detail: Mapping[str, JSON] = field(default_factory=dict)
    relief: bool = False

    def at(self, index: int, time: str, documents: Mapping[str, str | None]) -> Entry:
        return Entry(
            index=index,
            time=time,
            actor=self.actor,
            phase=self.phase,
            action=self.action,
            subject=self.subject,
            change=self.change,
            step=self.step,
            ok=self.ok,
            relief=self.relief,
            detail=self.detail,
            documents=documents,
        )


def _known(tip: Tip, change: ChangeId) -> OpenChange:
    known = tip.open.get(change)
    if known is None:
        raise Bug(f"Change {change} is not open.")
    return known


def _extend(tip: Tip, now: float, drafts: Iterable[_Draft], documents: Documents, value: T) -> Composed[T]:
    """Turn drafts into rows. The documents belong to the first of them."""
    time = rfc3339(now)
    writes = Writes()
    named = {name: _digest(name, content) for name, content in documents.items()}
    for draft in drafts:
        entry = draft.at(tip.size, time, named)
        data = encode(entry)
        after = fold(tip.open, entry)
        if isinstance(after, Problem):
            raise Bug(f"Entry {entry.index} cannot be written: {after.text}.")
        if named:
            writes.documents |= {name: (content, entry.index) for name, content in documents.items()}
            named = {}
        frontier, nodes = tip.frontier.append(leaf_hash(data))
        writes.rows.append(Row(entry.index, data, entry.change if entry.change in after else None))
        writes.nodes += nodes
        if draft.phase == "finish" and draft.change is not None:
            writes.closed.append(draft.change)
        tip = replace(tip, frontier=frontier, open=after)
    return Composed(tip, writes, value)


def encode(entry: Entry) -> bytes:
    try:
        data = entries.encode(entry)
    except ValueError as error:
        raise Bug(f"An entry of {entry.action} cannot be written: {error}.") from error
    if len(data) > entries.MAX_BYTES:
        raise Refused(
            f"The audit entry of {entry.action} {entry.subject} would be {len(data)} bytes long, "
            f"{entries.MAX_BYTES} is the most.",
            "Put what is large into a file and name the file.",
        )
    return data


def _digest(name: str, content: bytes | None) -> str | None:
    if content is None:
        return None
    if len(content) > MAX_DOCUMENT_BYTES:
        raise Refused(
            f"The document {name} is {len(content)} bytes long, {MAX_DOCUMENT_BYTES} is the most.",
            "Make it smaller.",
        )
    return sha256(content).hexdigest()


def rfc3339(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
