"""What control makes of its replicas' reports: moves between them, losses, barriers; and the wire that they go over."""

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.gateway.envoy.barriers import Barrier
from idi.parts.gateway.envoy.plane import Standing
from idi.parts.gateway.envoy.render.secrets import secret_resources
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment
from idi.parts.gateway.envoy.replicas import changes
from idi.parts.gateway.envoy.replicas.changes import View
from idi.parts.gateway.envoy.replicas.fold import Fold
from idi.parts.gateway.envoy.replicas.frames import (
    Certificate,
    Malformed,
    Put,
    Report,
    Secrets,
    ViewChange,
    decode_down,
    decode_report,
    encode,
)
from idi.parts.gateway.envoy.replicas.links import MAX_WAITING_FRAMES, Link
from idi.parts.gateway.envoy.replicas.replica import Numbers
from idi.parts.gateway.envoy.resources import Kind
from idi.parts.gateway.interface import Identity, Rejection
from tests.unit.gateway.test_plane import cam_at, view

RECONNECT_S = 2.0


class Harness:
    def __init__(self, *nodes: str) -> None:
        self.events: list[tuple[str, bool]] = []
        self.now = 100.0
        self.fold = Fold(lambda *event: self.events.append(event), RECONNECT_S)
        self.fold.declare(nodes)

    def report(self, replica: str, applied: int, *, whole: bool = False, **nodes: Standing | None) -> None:
        self.fold.reported(replica, Report(applied, nodes, whole), self.now)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.fold.passed(self.now)

    async def barrier(self, seq: int) -> tuple[Barrier, "asyncio.Task[None]"]:
        made = self.fold.barrier(seq, self.now)
        task = asyncio.get_running_loop().create_task(self.fold.barriers.wait(made, 5))
        await asyncio.sleep(0)
        return made, task


def stands(
    behind: int | None = None, *, age: float = 1.0, complete: bool = True, fresh: bool = False
) -> Standing:
    return Standing(complete, fresh, behind, age, ())


async def settled(task: "asyncio.Task[None]") -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return task.done()


async def test_a_barrier_ends_when_replica_and_proxy_have_the_change() -> None:
    h = Harness("a", "b", "never")
    h.report("x", 4, a=stands(), b=stands())
    barrier, task = await h.barrier(5)
    assert not await settled(task)
    h.report("x", 5, a=stands(5))
    assert not await settled(task)
    assert barrier.acknowledged == {"b"}
    h.report("x", 6, a=stands(6))
    assert await settled(task)
    assert (barrier.acknowledged, barrier.lost) == ({"a", "b"}, set())


async def test_a_proxy_on_its_way_to_another_replica_is_waited_for_and_then_counts_there() -> None:
    h = Harness("a")
    h.report("x", 5, a=stands())
    h.report("y", 5)
    h.fold.detached("x", h.now)
    barrier, task = await h.barrier(5)
    h.passes(1)
    assert h.fold.connected() == {"a": True}
    # It has connected, and said nothing yet.
    h.report("y", 5, a=stands(0, age=0.0, complete=False))
    assert not await settled(task)
    h.report("y", 5, a=stands(None, age=0.1))
    assert await settled(task)
    assert barrier.acknowledged == {"a"}
    assert h.events == [("a", True)]


async def test_who_stays_away_is_lost_and_not_ready() -> None:
    h = Harness("a", "b")
    h.report("x", 5, a=stands(), b=stands())
    h.fold.detached("x", h.now)
    barrier, task = await h.barrier(5)
    h.passes(1)
    h.report("y", 5, b=stands(age=0.0))
    assert not await settled(task)
    h.passes(1)
    assert await settled(task)
    assert (barrier.acknowledged, barrier.lost) == ({"b"}, {"a"})
    assert h.events == [("a", True), ("b", True), ("a", False)]
    assert h.fold.barrier(6, h.now).lost == {"a"}


async def test_the_newest_stream_of_a_proxy_counts() -> None:
    """The first replica does not know yet that its stream hangs."""
    h = Harness("a")
    h.report("x", 5, a=stands(age=10))
    h.report("y", 5, a=stands(3, age=1))
    barrier, task = await h.barrier(5)
    assert not await settled(task)
    h.report("x", 6, whole=True, a=stands(age=10))
    assert not await settled(task)
    h.report("y", 5, a=stands(age=1))
    assert await settled(task)
    # The old one ends at last; nobody left.
    h.report("x", 6, a=None)
    h.passes(RECONNECT_S)
    assert h.fold.connected() == {"a": True}
    assert barrier.acknowledged == {"a"}
    # And the other way round: the newer one goes, and what hangs is all there is.
    h.report("x", 6, a=stands(2, age=10))
    h.report("y", 6, a=None)
    assert h.fold.barrier(2, h.now).waiting == {"a"}


async def test_a_whole_report_takes_away_what_it_does_not_name() -> None:
    h = Harness("a", "b")
    h.report("x", 5, a=stands(), b=stands())
    h.report("x", 5, whole=True, a=stands())
    assert h.fold.barrier(5, h.now).waiting == {"b"}
    h.passes(RECONNECT_S)
    assert h.events[-1] == ("b", False)


async def test_a_new_process_is_not_ready_and_one_that_resumes_stays_so() -> None:
    h = Harness("a")
    h.report("x", 5, a=stands())
    h.report("x", 5, a=stands(0, complete=False))
    assert h.fold.connected() == {"a": True}
    h.report("x", 5, a=stands(0, complete=False, fresh=True))
    assert h.fold.connected() == {"a": False}
    h.report("x", 5, a=stands(fresh=True))
    assert h.events == [("a", True), ("a", False), ("a", True)]


async def test_who_goes_from_the_view_is_waited_for_no_longer_and_who_was_not_in_it_counts_from_then_on() -> (
    None
):
    h = Harness("a", "b")
    h.report("x", 5, a=stands(), b=stands(2), later=stands())
    barrier, task = await h.barrier(5)
    assert not await settled(task)
    h.fold.declare(("a", "later"))
    assert await settled(task)
    assert barrier.result(()).lost == ()
    assert h.fold.connected() == {"a": True, "later": True}
    assert ("later", True) in h.events


async def test_proxies_of_an_earlier_control_are_expected() -> None:
    h = Harness("a")
    h.fold.expect(h.now)
    assert h.fold.barrier(1, h.now).waiting == {"a"}
    h.passes(RECONNECT_S)
    assert h.fold.barrier(1, h.now).lost == {"a"}


def test_rejections_are_the_newest_streams() -> None:
    h = Harness("a")
    old, new = (Rejection("a", "listener x", words, 1.0) for words in ("old", "new"))
    h.report("x", 5, a=Standing(True, False, None, 10.0, (old,)))
    h.report("y", 5, a=Standing(True, False, None, 1.0, (new,)))
    assert h.fold.rejections() == (new,)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "close", "ack", "apply", "die", "pass"]),
        st.sampled_from(["x", "y"]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_nobody_counts_who_does_not_have_it(steps: list[tuple[str, str, str]]) -> None:
    """Against a model that knows where each proxy's newest stream is and what it has."""
    h = Harness("a", "b")
    seq = 1
    applied: dict[str, int] = {}
    streams: dict[tuple[str, str], list[float]] = {}
    for what, replica, node in steps:
        h.now += 0.01
        if what == "apply":
            seq += 1
            applied[replica] = seq
        elif what == "open":
            streams[replica, node] = [h.now, 0]
        elif what == "close":
            streams.pop((replica, node), None)
        elif what == "ack" and (replica, node) in streams:
            streams[replica, node][1] = applied.get(replica, 0)
        elif what == "die":
            applied.pop(replica, None)
            streams = {key: each for key, each in streams.items() if key[0] != replica}
            h.fold.detached(replica, h.now)
            continue
        elif what == "pass":
            h.passes(0.5)
        said: dict[str, Standing | None] = {}
        # A change concerns all its proxies, and a replica says with it who has yet to take it.
        for one in ("a", "b") if what == "apply" else (node,):
            held = streams.get((replica, one))
            # A proxy has all up to what it acknowledged: it is behind from the next one on.
            behind = None if held is None or held[1] >= applied.get(replica, 0) > 0 else int(held[1]) + 1
            said[one] = None if held is None else stands(behind, age=h.now - held[0])
        h.fold.reported(replica, Report(applied.get(replica, 0), said), h.now)
    made = h.fold.barrier(seq, h.now)
    assert made.acknowledged | made.waiting | made.lost <= {"a", "b"}
    assert not made.acknowledged & made.waiting
    for node in ("a", "b"):
        here = [(each[0], replica) for (replica, other), each in streams.items() if other == node]
        if here:
            _, replica = max(here)
            has = applied.get(replica, 0) >= seq and streams[replica, node][1] >= seq
            assert (node in made.acknowledged) == has
            assert (node in made.waiting) == (not has)
        else:
            assert node not in made.acknowledged


# --- the wire -------------------------------------------------------------------------------------


@given(st.lists(st.sets(st.sampled_from(["j", "k", "l"])), min_size=1, max_size=5))
def test_changes_one_after_another_give_what_all_at_once_gives(views: list[set[str]]) -> None:
    renderer, here, there = Renderer(), View(), View()
    for index, nodes in enumerate(views):
        shared, each = renderer.render(view(*sorted(nodes)))
        document = changes.difference(here, shared, each)
        here = View({kind: dict(shelf) for kind, shelf in shared.items()}, dict(each))
        if index == 0:
            document = changes.whole(here)
        sent = decode_down(encode(ViewChange(1, document)))
        assert isinstance(sent, ViewChange)
        there.apply(sent.document)
        for kind in Kind:
            assert there.shared[kind] == here.shared.get(kind, {})
        assert there.nodes == here.nodes
    assert changes.is_empty(changes.difference(here, here.shared, here.nodes))


def test_the_birth_of_an_instance_is_a_document_of_one() -> None:
    renderer = Renderer()
    before = View(*map(dict, renderer.render(view("j"))))  # type: ignore[arg-type]
    document = changes.difference(before, *renderer.render(view("j", "k")))
    assert set(document["nodes"]) == {"k"}
    assert not document["shared"]


def test_documents_come_over_as_they_were() -> None:
    resource = render_assignment(cam_at(1))
    secrets = secret_resources(Identity("spiffe://t/j", b"c", b"k", b"r", 0.0))
    for frame in (Put(3, resource), Secrets(4, {"j": secrets}), Certificate(b"chain", b"key")):
        assert decode_down(encode(frame)) == frame
    standing = Standing(True, False, 3, 1.5, (Rejection("j", "listener x", "no", 2.0),))
    report = Report(7, {"j": standing, "k": None}, whole=True)
    assert decode_report(encode(report)) == report
    assert "key" not in repr(Certificate(b"chain", b"key")).replace("Certificate", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"do":"else"}',
        b'{"do":"put","seq":1}',
        b'{"do":"view","seq":"x","view":{}}',
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode_down(data)
    with pytest.raises(Malformed):
        decode_report(data)


def test_numbers_are_translated_and_what_was_before_counts_as_the_oldest() -> None:
    numbers = Numbers()
    assert numbers.of(5) == 0
    assert numbers.of(None) is None
    for ours, controls in ((10, 3), (11, 4), (13, 5)):
        numbers.note(ours, controls)
    expected: Mapping[int, int] = {9: 0, 10: 3, 11: 4, 12: 5, 13: 5, 14: 5}
    assert {ours: numbers.of(ours) for ours in expected} == expected


async def test_a_replica_that_takes_nothing_is_cut_off() -> None:
    link = Link("x")
    for _ in range(MAX_WAITING_FRAMES):
        link.send(b"x")
    assert not link.closed.is_set()
    link.send(b"x")
    assert link.closed.is_set()
    assert await link.next() is None
