"""What holds between entries: every order that is right is taken, every other one is named."""

import random

import pytest

from idi.ledger.changes import Open, OpenChange, fold
from idi.ledger.entry import Actor, ChangeId, Entry, Phase, StepId
from idi.ledger.problem import Problem

pytestmark = pytest.mark.requirement("S5")

ADA = Actor("peer", "ada", 1000)


def entry(index: int, phase: Phase, action: str = "up", subject: str = "", **rest: object) -> Entry:
    return Entry(index, "2026-01-02T03:04:05.000000Z", ADA, phase, action, subject, **rest)  # type: ignore[arg-type]


def run(*entries: Entry) -> Open | Problem:
    state: Open = {}
    for one in entries:
        after = fold(state, one)
        if isinstance(after, Problem):
            return after
        state = after
    return state


BEGIN = entry(1, "begin", change=ChangeId(1))
INTENT = entry(2, "intent", "start", "jede", change=ChangeId(1), step=StepId(2))
OUTCOME = entry(3, "outcome", "start", "jede", change=ChangeId(1), step=StepId(2), ok=True)


def test_a_whole_change() -> None:
    state = run(BEGIN, INTENT)
    assert isinstance(state, dict)
    (change,) = state.values()
    assert isinstance(change, OpenChange)
    assert [(step.id, step.outcome) for step in change.steps] == [(2, None)]
    state = run(BEGIN, INTENT, OUTCOME)
    assert isinstance(state, dict)
    outcome = state[ChangeId(1)].steps[0].outcome
    assert outcome is not None
    assert outcome.ok
    assert run(BEGIN, INTENT, OUTCOME, entry(4, "finish", change=ChangeId(1), ok=True)) == {}


def test_a_bad_end_needs_no_outcomes_and_a_good_one_does() -> None:
    assert run(BEGIN, INTENT, entry(3, "finish", change=ChangeId(1), ok=False)) == {}
    found = run(BEGIN, INTENT, entry(3, "finish", change=ChangeId(1), ok=True))
    assert found == Problem("change 1 finishes well, but step 2 has no outcome")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry(1, "begin", change=ChangeId(2))], "own index"),
        ([entry(1, "begin")], "own index"),
        ([INTENT], "not open"),
        ([BEGIN, entry(2, "intent", "start", "jede", change=ChangeId(1), step=StepId(1))], "own index"),
        ([BEGIN, OUTCOME], "does not have"),
        ([BEGIN, INTENT, OUTCOME, OUTCOME], "already"),
        (
            [BEGIN, INTENT, entry(3, "outcome", "start", "cam", change=ChangeId(1), step=StepId(2), ok=True)],
            "intends",
        ),
        (
            [BEGIN, INTENT, entry(3, "outcome", "start", "jede", change=ChangeId(1), step=StepId(2))],
            "intends",
        ),
        ([BEGIN, entry(2, "finish", "down", change=ChangeId(1), ok=True)], "does not finish"),
        ([BEGIN, entry(2, "finish", change=ChangeId(1))], "does not finish"),
        ([entry(0, "note", change=ChangeId(0))], "no change"),
        ([entry(0, "note", relief=True)], "no change"),
    ],
)
def test_what_cannot_follow(entries: list[Entry], words: str) -> None:
    found = run(*entries)
    assert isinstance(found, Problem)
    assert words in found.text


def test_any_history_of_right_entries_keeps_only_what_is_open(seeded: random.Random) -> None:
    state: Open = {}
    began, finished = 0, 0
    for index in range(2000):
        changes = list(state.values())
        change = seeded.choice(changes) if changes else None
        waiting = [step for step in change.steps if step.outcome is None] if change else []
        choice = seeded.random()
        if change is None or choice < 0.1:
            one = entry(index, "begin", change=ChangeId(index))
            began += 1
        elif choice < 0.4:
            one = entry(index, "intent", "start", "jede", change=change.id, step=StepId(index))
        elif choice < 0.8 and waiting:
            step = seeded.choice(waiting)
            one = entry(index, "outcome", "start", "jede", change=change.id, step=step.id, ok=True)
        elif choice < 0.9:
            one = entry(index, "finish", change=change.id, ok=not waiting)
            finished += 1
        else:
            one = entry(index, "note", "drift")
        after = fold(state, one)
        assert not isinstance(after, Problem), (one, state)
        state = after
    assert len(state) == began - finished
