"""What every journal does: the simulator that other tests write into, and the one on disk."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest

from idi.ledger import checkpoint, note
from idi.ledger.checkpoint import Head
from idi.ledger.entry import MAX_BYTES, StepId
from idi.ledger.merkle import leaf_hash
from idi.ledger.note import Verifier
from idi.parts.errors import Bug, Refused
from idi.parts.store.interface import MAX_DOCUMENT_BYTES, Actor, ChangeId, Filter, Step, Store
from idi.parts.store.memory import Crash, MemoryStore
from idi.parts.store.sqlite import open_store
from idi.parts.store.sqlite.check import verify_journal

pytestmark = pytest.mark.requirement("S5")

ADA = Actor("peer", "ada", 1000, 4711)
BOB = Actor("peer", "bob", 1001)
START = Step("start", "jede", {"revision": "0a1b2c3d"})


class Case:
    """One journal under test, and how its kind is verified at the end."""

    def __init__(self, store: Store, verify: Callable[[], list[str]]) -> None:
        self.store = store
        self.verify = verify


@pytest.fixture(params=["memory", "sqlite"])
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    times = iter(range(1_700_000_000, 1_800_000_000))
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            memory = MemoryStore(lambda: float(next(times)), outbox_alert=20)
            made = Case(memory, lambda: [one.text for one in memory.verify().findings])
        else:
            directory, keys = tmp_path / "journal", tmp_path / "keys"
            opening = open_store(
                directory, keys, origin="example.com/idi", clock=lambda: float(next(times)), outbox_alert=20
            )
            store = await stack.enter_async_context(opening)
            made = Case(store, lambda: [one.text for one in verify_journal(directory, key_dir=keys).findings])
        yield made
        assert made.verify() == [], "the log holds after every test"


@pytest.fixture
def store(case: Case) -> Store:
    return case.store


async def test_a_change_from_beginning_to_end(store: Store) -> None:
    change = await store.begin(
        ADA, "up", {"file": "platform.yaml"}, documents={"declaration": b"modules: {}"}
    )
    steps = await store.intend(change, [START, Step("publish", "routes")])
    await store.outcome(steps[0], True)
    await store.outcome(steps[1], False, {"why": "rejected"})
    await store.finish(change, False, "one step failed")
    assert await store.unfinished() == []
    read = await store.entries()
    assert [entry.phase for entry in read] == [
        "note",
        "begin",
        "intent",
        "intent",
        "outcome",
        "outcome",
        "finish",
    ]
    assert [entry.index for entry in read] == list(range(7))
    assert {entry.actor for entry in read[1:]} == {ADA}, "who began a change is the actor of all of it"
    assert {entry.change for entry in read[1:]} == {change}
    assert [entry.step for entry in read] == [None, None, *steps, *steps, None]
    assert read[4].action == "start"
    assert read[4].subject == "jede"
    assert read[5].detail == {"why": "rejected"}
    assert read[6].ok is False
    assert read[6].detail == {"reason": "one step failed"}
    assert read[1].time == "2023-11-14T22:13:21.000000Z"
    assert await store.document("declaration") == b"modules: {}"


async def test_the_first_entry_says_whose_log_it_is(store: Store) -> None:
    (first,) = await store.entries()
    assert first.action == "journal.create"
    assert first.detail == {"origin": store.state.origin, "verifier": store.state.verifier}


async def test_what_is_unfinished(store: Store) -> None:
    first = await store.begin(ADA, "up", {})
    steps = await store.intend(first, [START, START])
    second = await store.begin(BOB, "scale", {"jede": 3}, subject="jede", relief=True)
    await store.outcome(steps[1], True, {"pid": 12})
    one, two = await store.unfinished()
    assert (one.id, one.actor, one.action, one.relief) == (first, ADA, "up", False)
    assert [(step.id, step.subject, step.outcome and step.outcome.ok) for step in one.steps] == [
        (steps[0], "jede", None),
        (steps[1], "jede", True),
    ]
    assert one.steps[0].detail == START.detail
    assert one.steps[1].outcome is not None
    assert one.steps[1].outcome.detail == {"pid": 12}
    assert (two.id, two.subject, two.detail, two.steps, two.relief) == (second, "jede", {"jede": 3}, (), True)
    await store.finish(first, False, "given up")
    assert [change.id for change in await store.unfinished()] == [second]


async def test_a_good_end_needs_every_outcome(store: Store) -> None:
    change = await store.begin(ADA, "up", {})
    await store.intend(change, [START])
    with pytest.raises(Bug, match="no outcome"):
        await store.finish(change, True)
    await store.finish(change, False)


async def test_what_no_change_can_do(store: Store) -> None:
    change = await store.begin(ADA, "up", {})
    (step,) = await store.intend(change, [START])
    await store.outcome(step, True)
    before = store.state.size
    with pytest.raises(Bug):
        await store.outcome(step, True)
    with pytest.raises(Bug):
        await store.outcome(StepId(999), True)
    with pytest.raises(Bug):
        await store.intend(ChangeId(999), [START])
    with pytest.raises(Bug):
        await store.intend(change, [])
    await store.finish(change, True)
    with pytest.raises(Bug):
        await store.intend(change, [START])
    with pytest.raises(Bug):
        await store.finish(change, True)
    with pytest.raises(Bug):
        await store.note(ADA, "measured", {"share": 0.5})  # type: ignore[dict-item]
    assert store.state.size == before + 1, "a wrong call writes nothing"


async def test_what_is_too_large_is_refused_with_its_size(store: Store) -> None:
    with pytest.raises(Refused, match=f"{MAX_BYTES} is the most"):
        await store.note(ADA, "drift", {"text": "x" * MAX_BYTES})
    with pytest.raises(Refused, match=f"{MAX_DOCUMENT_BYTES} is the most"):
        await store.begin(ADA, "up", {}, documents={"declaration": bytes(MAX_DOCUMENT_BYTES + 1)})
    await store.note(ADA, "drift", {"text": "x" * (MAX_BYTES - 500)})
    assert store.state.size == 2


async def test_documents_follow_their_entries(store: Store) -> None:
    assert await store.document("overlay") is None
    change = await store.begin(ADA, "scale", {}, documents={"overlay": b"1", "other": b""})
    (step,) = await store.intend(change, [START], {"overlay": b"2"})
    assert await store.document("overlay") == b"2"
    assert await store.document("other") == b""
    await store.outcome(step, True, {}, {"overlay": b"3"})
    await store.finish(change, True, documents={"overlay": None})
    assert await store.document("overlay") is None
    named = [dict(entry.documents) for entry in await store.entries()]
    assert named[1].keys() == {"overlay", "other"}
    assert named[4] == {"overlay": None}


async def test_a_document_belongs_to_the_first_step_of_its_call(store: Store) -> None:
    change = await store.begin(ADA, "up", {})
    steps = await store.intend(change, [START, START], {"plan": b"x"})
    assert [bool(entry.documents) for entry in await store.entries(start=steps[0])] == [True, False]


async def test_reading_forwards_backwards_and_by_what(store: Store) -> None:
    for number in range(5):
        await store.note(ADA if number % 2 else BOB, "drift", {"number": number}, subject=f"module{number}")
    change = await store.begin(ADA, "up", {})
    assert [entry.index for entry in await store.entries(2, 2)] == [2, 3]
    assert [entry.index for entry in await store.entries(newest=True, limit=2)] == [6, 5]
    assert [entry.index for entry in await store.entries(1, 2, newest=True)] == [5, 4]
    assert [entry.index for entry in await store.entries(99)] == []
    assert [entry.index for entry in await store.entries(0, 0)] == []
    by_bob = await store.entries(only=Filter(actor="bob"))
    assert [entry.detail["number"] for entry in by_bob] == [0, 2, 4]
    newest = await store.entries(newest=True, limit=1, only=Filter(action="drift", subject="module3"))
    assert [entry.index for entry in newest] == [4]
    assert [entry.index for entry in await store.entries(only=Filter(change=change))] == [change]
    assert [entry.index for entry in await store.entries(only=Filter(phase="begin"))] == [change]


async def test_the_outbox_keeps_until_it_is_acknowledged(store: Store) -> None:
    for number in range(4):
        await store.note(ADA, "drift", {"number": number})
    waiting = await store.pending()
    assert [one.index for one in waiting] == [0, 1, 2, 3, 4]
    assert all(leaf_hash(one.data) == one.leaf for one in waiting)
    assert [one.index for one in await store.pending(2)] == [0, 1]
    size = store.state.size
    await store.delivered(2)
    await store.delivered(1)
    assert [one.index for one in await store.pending()] == [3, 4]
    assert store.state.outbox == 2
    assert store.state.size == size, "an acknowledgement is bookkeeping and no entry"
    with pytest.raises(Bug, match="only 5 entries"):
        await store.delivered(5)


async def test_a_full_outbox_alerts_and_refuses_nothing(store: Store) -> None:
    while store.state.outbox <= 20:
        assert store.state.alerts == ()
        await store.note(ADA, "drift", {})
    assert "21 audit entries wait for EAT" in store.state.alerts[0]
    change = await store.begin(ADA, "up", {})
    await store.finish(change, True)
    await store.delivered(store.state.size - 1)
    assert store.state.alerts == ()


async def test_every_acknowledged_entry_is_under_the_signed_head(store: Store) -> None:
    verifier = note.parse_verifier(store.state.verifier)
    assert isinstance(verifier, Verifier)
    sizes = []
    for _ in range(5):
        index = await store.note(ADA, "drift", {})
        head = checkpoint.open_head(await store.head(), [verifier], store.state.origin)
        assert isinstance(head, Head)
        assert head.checkpoint.size == index + 1
        sizes.append(head.checkpoint.size)
    assert sizes == sorted(set(sizes))


async def test_many_at_once_each_get_their_own(store: Store) -> None:
    change = await store.begin(ADA, "up", {})
    answers = await asyncio.gather(
        *(store.intend(change, [Step("start", f"module{number}")]) for number in range(50)),
        *(store.outcome(StepId(10**6 + number), True) for number in range(5)),
        return_exceptions=True,
    )
    assert [type(one) for one in answers[50:]] == [Bug] * 5, "a wrong call fails alone"
    steps = [one[0] for one in answers[:50] if isinstance(one, list)]
    assert len(set(steps)) == 50
    await asyncio.gather(*(store.outcome(step, True) for step in steps))
    (open_change,) = await store.unfinished()
    subjects = {step.id: step.subject for step in open_change.steps}
    assert [subjects[step] for step in steps] == [f"module{number}" for number in range(50)]
    await store.finish(change, True)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_simulator_crashes_at_every_write_and_keeps_what_was_durable(
    when: Literal["before", "after"],
) -> None:
    async def run(store: MemoryStore) -> None:
        change = await store.begin(ADA, "up", {}, documents={"declaration": b"x"})
        steps = await store.intend(change, [START, START])
        for step in steps:
            await store.outcome(step, True)
        await store.finish(change, True)

    for writes in range(5):
        store = MemoryStore()
        store.crash_after(writes, when)
        with pytest.raises(Crash):
            await run(store)
        with pytest.raises(Crash):
            await store.note(ADA, "drift", {})
        with pytest.raises(Crash):
            await store.unfinished()
        store.restart()
        assert store.verify().holds
        durable = writes + (when == "after")
        assert store.state.size == 1 + durable + (durable >= 2)
        assert len(await store.unfinished()) == (0 < durable < 5)
        for change in await store.unfinished():
            await store.finish(change.id, False, "interrupted")
        assert store.verify().holds


async def test_the_simulator_s_full_disk_takes_relief_alone() -> None:
    store = MemoryStore()
    up = await store.begin(ADA, "up", {})
    (step,) = await store.intend(up, [START])
    store.fill_disk()
    assert store.state.degraded
    assert store.state.alerts
    with pytest.raises(Refused):
        await store.begin(ADA, "up", {})
    with pytest.raises(Refused):
        await store.intend(up, [START])
    await store.outcome(step, True)
    await store.finish(up, True)
    down = await store.begin(ADA, "down", {}, relief=True)
    (step,) = await store.intend(down, [Step("stop", "jede")])
    await store.outcome(step, True)
    await store.finish(down, True)
    store.make_room()
    await store.begin(ADA, "up", {})
    assert store.verify().holds
