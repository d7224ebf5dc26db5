"""An entry of the journal: who did what, as bytes.

There is one kind of entry with a phase. A change (one command of a person, or one act of the platform) begins,
each of its steps is an intent and later an outcome, and it finishes; a note stands alone. A change is named by
the index of the entry that began it and a step by the index of its intent, so that identifiers need no source
of their own and cannot clash.

A field that says nothing is left out of the bytes, and the writer has no other choice, so that one entry has
one encoding. Documents (the declaration, an overlay) are kept beside the log; the entry that wrote one names
its SHA-256, and null where it was taken away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType, get_args

from idi.ledger import canonical
from idi.ledger.canonical import JSON
from idi.ledger.problem import Problem

MAX_BYTES = 65_535
"""The longest entry that a tlog-tiles bundle can hold (its length is a 16-bit number)."""

ChangeId = NewType("ChangeId", int)
"""Index of the entry that began the change."""

StepId = NewType("StepId", int)
"""Index of the step's intent."""

Phase = Literal["begin", "intent", "outcome", "finish", "note"]
PHASES: tuple[Phase, ...] = get_args(Phase)

_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Actor:
    """A verified identity. `kind` says by what it was verified (`peer`: the credential of the socket; `idi`:
    the platform itself); `uid` and `pid` are None where it has none."""

    kind: str
    name: str
    uid: int | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """`time` is RFC 3339 in UTC with microseconds; the order is the index's, clocks may jump.

    `change` is None for a note, `step` for everything but an intent and an outcome, `ok` for everything but an
    outcome and a finish. `relief` marks the beginning of a change that only takes away or goes back.
    """

    index: int
    time: str
    actor: Actor
    phase: Phase
    action: str
    subject: str = ""
    change: ChangeId | None = None
    step: StepId | None = None
    ok: bool | None = None
    relief: bool = False
    detail: Mapping[str, JSON] = field(default_factory=dict)
    documents: Mapping[str, str | None] = field(default_factory=dict)


def encode(entry: Entry) -> bytes:
    """Raises ValueError where something has no one way to be written; the length is the caller's to check."""
    actor: dict[str, JSON] = {"kind": entry.actor.kind, "name": entry.actor.name}
    if entry.actor.uid is not None:
        actor["uid"] = entry.actor.uid
    if entry.actor.pid is not None:
        actor["pid"] = entry.actor.pid
    value: dict[str, JSON] = {
        "index": entry.index,
        "time": entry.time,
        "actor": actor,
        "phase": entry.phase,
        "action": entry.action,
    }
    if entry.subject:
        value["subject"] = entry.subject
    if entry.change is not None:
        value["change"] = entry.change
    if entry.step is not None:
        value["step"] = entry.step
    if entry.ok is not None:
        value["ok"] = entry.ok
    if entry.relief:
        value["relief"] = True
    if entry.detail:
        value["detail"] = entry.detail
    if entry.documents:
        value["documents"] = dict(entry.documents)
    return canonical.encode(value)


def decode(data: bytes) -> Entry | Problem:
    """Read an entry; what does not encode to the same bytes again is a problem."""
    value = canonical.parse(data)
    if isinstance(value, Problem):
        return value
    if not isinstance(value, dict):
        return Problem("it is not an object")
    reader = _Reader(value)
    actor_reader = _Reader(reader.mapping("actor"))
    actor = Actor(
        kind=actor_reader.text("kind"),
        name=actor_reader.text("name"),
        uid=actor_reader.integer("uid"),
        pid=actor_reader.integer("pid"),
    )
    change, step = reader.integer("change"), reader.integer("step")
    index, phase = reader.integer("index"), reader.text("phase")
    entry = Entry(
        index=-1 if index is None else index,
        time=reader.text("time"),
        actor=actor,
        phase=next((known for known in PHASES if known == phase), "note"),
        action=reader.text("action"),
        subject=reader.text("subject", ""),
        change=None if change is None else ChangeId(change),
        step=None if step is None else StepId(step),
        ok=reader.boolean("ok"),
        relief=reader.boolean("relief") or False,
        detail=reader.mapping("detail", {}),
        documents=reader.digests("documents"),
    )
    wrong = reader.wrong or actor_reader.wrong
    if wrong:
        return Problem(wrong)
    if phase not in PHASES:
        return Problem(f"its phase is {phase!r}")
    if index is None or index < 0:
        return Problem("it has no index")
    if not _TIME.fullmatch(entry.time):
        return Problem("its time is not RFC 3339 in UTC with microseconds")
    try:
        again = encode(entry)
    except (ValueError, RecursionError) as error:
        return Problem(f"its bytes are not canonical JSON ({error})")
    # Also a field that is unknown or says nothing: it would not have been written.
    return entry if again == data else Problem("its bytes are not the one way to write it")


class _Reader:
    """Takes fields of a stranger's object by type; `wrong` is the first one that had another."""

    def __init__(self, value: Mapping[str, JSON]) -> None:
        self._value = value
        self.wrong = ""

    def _bad(self, name: str, wanted: str) -> None:
        self.wrong = self.wrong or f"its {name} is not {wanted}"

    def text(self, name: str, default: str | None = None) -> str:
        value = self._value.get(name, default)
        if isinstance(value, str):
            return value
        self._bad(name, "text")
        return ""

    def integer(self, name: str) -> int | None:
        value = self._value.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self._bad(name, "a whole number")
        return None

    def boolean(self, name: str) -> bool | None:
        value = self._value.get(name)
        if value is None or isinstance(value, bool):
            return value
        self._bad(name, "true or false")
        return None

    def mapping(self, name: str, default: Mapping[str, JSON] | None = None) -> Mapping[str, JSON]:
        value = self._value.get(name, default)
        if isinstance(value, Mapping):
            return value
        self._bad(name, "an object")
        return {}

    def digests(self, name: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for key, value in self.mapping(name, {}).items():
            if value is None:
                found[key] = None
            elif isinstance(value, str) and _DIGEST.fullmatch(value):
                found[key] = value
            else:
                self._bad(name, "the SHA-256 of each document or null")
        return found
