"""The fold: facts may come late, twice and in any order, and the world stays consistent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.types import ModuleName
from idi.world.events import (
    Event,
    InstanceDied,
    InstanceFailed,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    InstanceStopping,
    InstanceUnready,
    PartChanged,
    RevisionDegraded,
    RevisionEnsured,
    RevisionRemoved,
)
from idi.world.fold import fold, fold_all
from idi.world.invariants import validate
from idi.world.types import InstanceId, RevisionId, World
from tests.support.worlds import instance, spec

CAM = ModuleName("cam")
ONE = InstanceId("cam-1")


def up(*states: str) -> World:
    events: list[Event] = [RevisionEnsured(spec("cam", "aaaa"), len(states))]
    events += [InstanceSeen(instance("cam", slot, "aaaa", state)) for slot, state in enumerate(states, 1)]
    return fold_all(World(), events)[0]


def state(world: World, instance_id: str = "cam-1") -> str:
    return world.modules[CAM].instances[InstanceId(instance_id)].state


@pytest.mark.requirement("D1")
def test_a_death_takes_the_endpoint_and_marks_one_module() -> None:
    world, dirty = fold(up("ready", "ready"), InstanceDied(CAM, ONE, 5.0, "killed by signal 9"))
    assert dirty == {CAM}
    dead = world.modules[CAM].instances[ONE]
    assert (dead.state, dead.since, dead.restarts, dead.reason) == ("starting", 5.0, 1, "killed by signal 9")
    assert state(world, "cam-2") == "ready"


def test_an_instance_that_never_served_makes_nothing_dirty() -> None:
    assert fold(up("starting"), InstanceUnready(CAM, ONE, 5.0, "refused"))[1] == frozenset()
    assert fold(up("starting"), InstanceReady(CAM, ONE, 5.0))[1] == {CAM}


def test_what_was_chosen_to_go_never_comes_back() -> None:
    world, _ = fold(up("ready"), InstanceStopping(CAM, ONE, 5.0))
    late: list[Event] = [
        InstanceReady(CAM, ONE, 6.0),
        InstanceDied(CAM, ONE, 6.0, "x"),
        InstanceFailed(CAM, ONE, 6.0, "x"),
    ]
    for event in late:
        world, dirty = fold(world, event)
        assert (state(world), dirty) == ("stopping", frozenset())


def test_late_facts_about_the_gone_change_nothing() -> None:
    world, _ = fold(up("ready"), InstanceGone(CAM, ONE, 5.0))
    for event in (InstanceReady(CAM, ONE, 6.0), InstanceGone(CAM, ONE, 6.0)):
        assert fold(world, event) == (world, frozenset())


def test_a_module_vanishes_with_its_last_revision() -> None:
    world, _ = fold_all(up("ready"), [InstanceGone(CAM, ONE, 5.0), RevisionRemoved(CAM, RevisionId("aaaa"))])
    assert world == World()


def test_since_counts_from_the_change_of_state() -> None:
    world, _ = fold_all(
        World(), [PartChanged("gateway", "starting", 1.0), PartChanged("gateway", "ready", 2.0, 7)]
    )
    world, _ = fold(world, PartChanged("gateway", "ready", 9.0, 7))
    assert world.parts["gateway"].since == 2.0
    world, _ = fold(world, PartChanged("gateway", "ready", 10.0, 8))
    assert world.parts["gateway"].restarts == 1


slots = st.integers(1, 3).map(lambda slot: InstanceId(f"cam-{slot}"))
times = st.floats(0, 100)
words = st.sampled_from(["", "refused"])
events = st.one_of(
    st.builds(RevisionEnsured, st.just(spec("cam", "aaaa")), st.integers(0, 3)),
    st.builds(RevisionDegraded, st.just(CAM), st.just(RevisionId("aaaa")), words),
    st.builds(lambda slot: InstanceSeen(instance("cam", slot, "aaaa", "starting")), st.integers(1, 3)),
    st.builds(InstanceReady, st.just(CAM), slots, times),
    st.builds(InstanceUnready, st.just(CAM), slots, times, words),
    st.builds(InstanceStopping, st.just(CAM), slots, times),
    st.builds(InstanceDied, st.just(CAM), slots, times, words),
    st.builds(InstanceFailed, st.just(CAM), slots, times, words),
    st.builds(InstanceGone, st.just(CAM), slots, times),
    st.builds(PartChanged, st.just("gateway"), st.sampled_from(["ready", "failed"]), times),
)


@given(st.lists(events, max_size=30))
def test_any_order_of_facts_leaves_a_consistent_world(happened: list[Event]) -> None:
    world, _ = fold(World(), RevisionEnsured(spec("cam", "aaaa"), 1))
    for event in happened:
        before = world
        world, dirty = fold(world, event)
        validate(world)
        served = {i.id for i in world.instances() if i.state == "ready"}
        if served != {i.id for i in before.instances() if i.state == "ready"}:
            assert dirty, "the endpoints changed and nobody was told"
