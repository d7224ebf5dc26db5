"""What holds between entries: changes begin, their steps are intended and have outcomes, changes finish.

One fold, used by everybody: the store refuses to write what it does not accept, an opening store rebuilds the
unfinished changes with it, and a verifier runs it over the whole log. It keeps only the changes that are open,
so its state stays small however long the log grows.

A change that finishes well has an outcome for each of its steps. One that finishes badly may have steps
without any: a crash came in between, and nobody knows more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace

from idi.ledger.canonical import JSON
from idi.ledger.entry import Actor, ChangeId, Entry, StepId
from idi.ledger.problem import Problem


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    detail: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step of an open change; `outcome` is None while nobody has said how it ended."""

    id: StepId
    action: str
    subject: str
    detail: Mapping[str, JSON]
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class OpenChange:
    """A change without a finish. `begun` is the time of its first entry, RFC 3339."""

    id: ChangeId
    actor: Actor
    action: str
    subject: str
    detail: Mapping[str, JSON]
    begun: str
    relief: bool
    steps: tuple[OpenStep, ...] = ()

    def step(self, id_: StepId) -> OpenStep | None:
        at = _place(self.steps, id_)
        return self.steps[at] if at < len(self.steps) and self.steps[at].id == id_ else None


def _place(steps: tuple[OpenStep, ...], id_: StepId) -> int:
    """Steps are in the order of their ids, since an id is the index of an entry."""
    return bisect_left(steps, id_, key=lambda step: step.id)


Open = Mapping[ChangeId, OpenChange]


def fold(open_changes: Open, entry: Entry) -> Open | Problem:
    """The open changes after this entry."""
    if entry.phase == "note":
        return open_changes if _bare(entry) else Problem("a note belongs to no change and has no outcome")
    if entry.phase == "begin":
        if entry.change != entry.index or entry.step is not None or entry.ok is not None:
            return Problem("it begins a change, which is not named by its own index")
        begun = OpenChange(
            id=ChangeId(entry.index),
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            detail=entry.detail,
            begun=entry.time,
            relief=entry.relief,
        )
        return {**open_changes, begun.id: begun}
    change = None if entry.change is None else open_changes.get(entry.change)
    if change is None or entry.relief:
        return Problem(f"it belongs to change {entry.change}, which is not open")
    if entry.phase == "intent":
        return _intent(open_changes, change, entry)
    if entry.phase == "outcome":
        return _outcome(open_changes, change, entry)
    return _finish(open_changes, change, entry)


def _bare(entry: Entry) -> bool:
    return entry.change is None and entry.step is None and entry.ok is None and not entry.relief


def _intent(open_changes: Open, change: OpenChange, entry: Entry) -> Open | Problem:
    if entry.step != entry.index or entry.ok is not None:
        return Problem("it is an intent, which is not named by its own index")
    step = OpenStep(StepId(entry.index), entry.action, entry.subject, entry.detail)
    return {**open_changes, change.id: replace(change, steps=(*change.steps, step))}


def _outcome(open_changes: Open, change: OpenChange, entry: Entry) -> Open | Problem:
    step = None if entry.step is None else change.step(entry.step)
    if step is None:
        return Problem(f"it is the outcome of step {entry.step}, which change {change.id} does not have")
    if step.outcome is not None:
        return Problem(f"step {step.id} has an outcome already")
    if entry.ok is None or (entry.action, entry.subject) != (step.action, step.subject):
        return Problem(f"it is not an outcome of {step.action} {step.subject}, which step {step.id} intends")
    done = replace(step, outcome=Outcome(entry.ok, entry.detail))
    at = _place(change.steps, step.id)
    steps = (*change.steps[:at], done, *change.steps[at + 1 :])
    return {**open_changes, change.id: replace(change, steps=steps)}


def _finish(open_changes: Open, change: OpenChange, entry: Entry) -> Open | Problem:
    if entry.ok is None or entry.step is not None or entry.action != change.action:
        return Problem(f"it does not finish {change.action}, which change {change.id} began")
    missing = [step.id for step in change.steps if step.outcome is None]
    if entry.ok and missing:
        return Problem(f"change {change.id} finishes well, but step {missing[0]} has no outcome")
    return {other.id: other for other in open_changes.values() if other.id != change.id}
