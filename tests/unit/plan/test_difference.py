"""A plan leads from any world to the desired one, wherever it is cut, and then there is no plan."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idi.declaration.types import ModuleName
from idi.plan.describe import describe
from idi.plan.difference import PULL_S, difference, spec_changes
from idi.plan.types import AwaitReady, Desired, DesiredModule, Ensure, Remove, StartPart, StopPart
from idi.world.events import (
    InstanceFailed,
    InstanceGone,
    InstanceSeen,
    InstanceUnready,
    PartChanged,
    RevisionEnsured,
)
from idi.world.fold import fold, fold_all
from idi.world.invariants import validate
from idi.world.types import PartState, World
from tests.support.worlds import instance, perform, spec

NAMES = ("cam", "jede", "sfl")
STRATEGIES = ("rolling", "blue-green", "recreate", "canary")

desired_modules = st.builds(
    lambda revision, count, strategy: (revision, count, strategy),
    st.sampled_from(["aaaa", "bbbb", "cccc"]),
    st.integers(0, 5),
    st.sampled_from(STRATEGIES),
)
desireds = st.dictionaries(st.sampled_from(NAMES), desired_modules, max_size=3).map(
    lambda chosen: Desired(
        {
            ModuleName(name): DesiredModule(spec(name, revision), count, strategy)
            for name, (revision, count, strategy) in chosen.items()
        },
        ("openbao", "gateway") if chosen else (),
    )
)


def settle(world: World, desired: Desired, rounds: int = 1) -> World:
    for _ in range(rounds):
        for step in difference(desired, world).steps():
            world = perform(world, step)
            validate(world)
    return world


@pytest.mark.requirement("D1")
@given(first=desireds, second=desireds)
def test_applying_a_plan_leaves_no_plan(first: Desired, second: Desired) -> None:
    world = settle(World(), first)
    assert difference(first, world).empty()
    world = settle(world, second)
    assert difference(second, world).empty()


@pytest.mark.requirement("S5")
@settings(max_examples=100)
@given(first=desireds, second=desireds, cuts=st.lists(st.integers(0, 6), max_size=5))
def test_cut_anywhere_and_computed_again_it_reaches_the_same_end(
    first: Desired, second: Desired, cuts: list[int]
) -> None:
    whole = settle(settle(World(), first), second)
    world = settle(World(), first)
    for cut in cuts:
        for step in difference(second, world).steps()[:cut]:
            world = perform(world, step)
            validate(world)
    world = settle(world, second)
    assert difference(second, world).empty()
    assert {n: set(m.revisions) for n, m in world.modules.items()} == {
        n: set(m.revisions) for n, m in whole.modules.items()
    }
    assert {n: len(m.instances) for n, m in world.modules.items()} == {
        n: len(m.instances) for n, m in whole.modules.items()
    }


@pytest.mark.requirement("S5")
@given(first=desireds, second=desireds, failing=st.sets(st.integers(0, 14)))
def test_what_had_failed_is_tried_again_before_it_is_waited_for(
    first: Desired, second: Desired, failing: set[int]
) -> None:
    world = settle(World(), first)
    for number, one in enumerate(world.instances()):
        if number in failing:
            world, _ = fold(world, InstanceFailed(one.module, one.id, 1.0, "crashes"))
    for step in difference(second, world).steps():
        if isinstance(step, AwaitReady):
            instances = world.modules[step.module].instances.values()
            assert not [i for i in instances if i.revision == step.revision and i.state == "failed"]
        world = perform(world, step)
        validate(world)
    assert difference(second, world).empty()


def test_what_was_registered_goes_with_its_module_after_the_gateway_was_closed() -> None:
    one = Desired(
        {ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 1, "rolling")}, ("openbao", "gateway")
    )
    world = settle(World(), one)
    theirs = replace(instance("cam", 7, "registered"), supervised=False)
    world, _ = fold(world, InstanceSeen(theirs))
    assert difference(one, world).empty()
    plan = difference(Desired(), world)
    assert [type(step).__name__ for step in plan.steps()] == ["StopPart", "Remove", "Detach", "StopPart"]
    assert difference(Desired(), settle(world, Desired())).empty()


@given(count=st.integers(1, 6))
def test_rolling_never_serves_with_fewer_than_wanted(count: int) -> None:
    old = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), count, "rolling")})
    new = Desired({ModuleName("cam"): DesiredModule(spec("cam", "bbbb"), count, "rolling")})
    world = settle(World(), old)
    for step in difference(new, world).steps():
        world = perform(world, step)
        ready = [i for i in world.instances() if i.state == "ready"]
        assert len(ready) >= count


@given(count=st.integers(1, 6), state=st.sampled_from(["failed", "starting", "unready"]))
def test_an_earlier_version_that_failed_costs_none_of_those_that_serve(count: int, state: str) -> None:
    cam = ModuleName("cam")
    world = settle(World(), Desired({cam: DesiredModule(spec("cam", "aaaa"), count, "rolling")}))
    left = instance("cam", 50, "bbbb", state)
    world, _ = fold_all(world, [RevisionEnsured(spec("cam", "bbbb"), 1), InstanceSeen(left)])
    mended = Desired({cam: DesiredModule(spec("cam", "cccc"), count, "rolling")})
    for step in difference(mended, world).steps():
        world = perform(world, step)
        assert sum(i.state == "ready" for i in world.instances()) >= count
    assert {i.revision for i in world.instances()} == {"cccc"}


def test_recreate_never_has_two_writers() -> None:
    old = Desired({ModuleName("sfl"): DesiredModule(spec("sfl", "aaaa"), 1, "recreate")})
    new = Desired({ModuleName("sfl"): DesiredModule(spec("sfl", "bbbb"), 1, "recreate")})
    world = settle(World(), old)
    for step in difference(new, world).steps():
        world = perform(world, step)
        assert len(world.instances()) <= 1


def test_the_reason_says_what_differs() -> None:
    old = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa", command="one"), 1, "rolling")})
    new = Desired({ModuleName("cam"): DesiredModule(spec("cam", "bbbb", command="two"), 1, "rolling")})
    steps = difference(new, settle(World(), old)).steps()
    assert isinstance(steps[0], Ensure)
    assert steps[0].reason == "command 'one' -> 'two'"
    again = Desired({ModuleName("cam"): DesiredModule(spec("cam", "cccc", command="one"), 1, "rolling")})
    assert difference(again, settle(World(), old)).steps()[0].reason == "restart"  # type: ignore[union-attr]


def test_a_changed_url_is_a_reason_unless_it_is_a_peers() -> None:
    before = replace(spec("cam", "aaaa"), environment={"DATABASE_URL": "one"})
    after = replace(before, environment={"DATABASE_URL": "two", "JEDE_URL": "${peer.jede.url}"})
    assert spec_changes(before, after) == ["DATABASE_URL changed"]


def test_scaling_names_its_origin() -> None:
    one = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 1, "rolling")})
    four = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 4, "rolling", "idi scale")})
    first, second = difference(four, settle(World(), one)).steps()
    assert isinstance(first, Ensure)
    assert first.reason == "instances 1 -> 4 (idi scale)"
    assert isinstance(second, AwaitReady)
    assert second.count == 4


def test_where_a_deployment_brings_them_in_the_next_one_may_take_longer() -> None:
    """By what has to be pulled and to end before, however many there are; where nothing is brought in, by nothing."""
    rolled = DesiredModule(spec("cam", "aaaa"), 12, "rolling", rolls=True)
    its = rolled.spec
    ensured, waited = difference(Desired({ModuleName("cam"): rolled}), World()).steps()
    assert isinstance(ensured, Ensure)
    assert isinstance(waited, AwaitReady)
    assert waited.deadline_s == its.readiness.deadline_s + its.grace_s + PULL_S
    unready = [InstanceSeen(instance("cam", number, "aaaa", "unready")) for number in range(1, 13)]
    world, _ = fold_all(World(), [RevisionEnsured(its, 12), *unready])
    [again] = difference(Desired({ModuleName("cam"): rolled}), world).steps()
    assert isinstance(again, AwaitReady)
    assert again.deadline_s == its.readiness.deadline_s


def test_an_unready_instance_is_waited_for_and_nothing_else() -> None:
    one = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 2, "rolling")})
    world = settle(World(), one)
    world, _ = fold(world, InstanceUnready(ModuleName("cam"), world.instances()[0].id, 2.0, "503"))
    plan = difference(one, world)
    assert not plan.changes()
    assert len(plan.steps()) == 1


def test_down_closes_the_gateway_first_and_the_vault_last() -> None:
    up = Desired(
        {ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 1, "rolling")}, ("openbao", "gateway")
    )
    plan = difference(Desired(), settle(World(), up))
    assert [s.name for s in plan.first] == ["gateway"]  # type: ignore[union-attr]
    assert [s.name for s in plan.last] == ["openbao"]  # type: ignore[union-attr]
    assert isinstance(plan.lanes["cam"][0], Remove)


def test_down_ends_the_relay_after_the_modules_and_the_bus_after_the_relay() -> None:
    """Who ends may still publish."""
    names = ("bus", "relay", "cam")
    each = {ModuleName(name): DesiredModule(spec(name, "aaaa"), 1, "rolling") for name in names}
    plan = difference(Desired(), settle(World(), Desired(each, ("openbao",))))
    assert [*plan.lanes] == ["cam"]
    assert [step.module for step in plan.last if isinstance(step, Remove)] == ["relay", "bus"]
    assert isinstance(plan.last[-1], StopPart)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_could_not_be_started_at_all_is_started_when_asked_again(strategy: str) -> None:
    """The target had taken the number, and then no instance was there: waiting alone would be for ever."""
    old = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 2, "rolling")})
    new = Desired({ModuleName("cam"): DesiredModule(spec("cam", "bbbb"), 2, strategy)})  # type: ignore[arg-type]
    world = settle(World(), old)
    for step in difference(new, world).steps():
        world = perform(world, step)
        if isinstance(step, Ensure) and step.spec.revision == "bbbb":
            break
    for one in world.instances():
        if one.revision == "bbbb":
            world, _ = fold(world, InstanceGone(one.module, one.id, 2.0))
    changes = difference(new, world).changes()
    assert any(isinstance(step, Ensure) and step.spec.revision == "bbbb" for step in changes)
    assert not any(
        isinstance(step, Ensure) and step.spec.revision == "aaaa" and step.count > step.was
        for step in changes
    )
    world = settle(world, new)
    assert difference(new, world).empty()
    assert [i.revision for i in world.instances()] == ["bbbb", "bbbb"]


@pytest.mark.parametrize("state", ["starting", "unready", "failed", "absent"])
def test_a_part_that_does_not_work_is_started_until_it_does(state: PartState) -> None:
    wanted = Desired({}, ("openbao", "gateway"))
    world, _ = fold(settle(World(), wanted), PartChanged("gateway", state, 2.0, 1))
    [step] = difference(wanted, world).steps()
    assert isinstance(step, StartPart)
    assert step.name == "gateway"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_none_of_what_is_not_there_is_nothing_to_do(strategy: str) -> None:
    """A revision without instances leaves no record that the next control could find."""
    none = Desired({ModuleName("cam"): DesiredModule(spec("cam", "aaaa"), 0, strategy)})  # type: ignore[arg-type]
    assert difference(none, World()).empty()


@pytest.mark.requirement("S5", "T4")
def test_the_journal_gets_names_and_no_values() -> None:
    """The journal is signed and kept for ever: a value of configuration must never be in it."""
    before, after = (
        spec("cam", "aaaa", command="run --key=hush"),
        spec("cam", "bbbb", command="run --key=hush2"),
    )
    after = dataclasses.replace(after, environment={"LEVEL": "hush3; quiet"})
    old = Desired({ModuleName("cam"): DesiredModule(before, 2, "rolling")})
    new = Desired({ModuleName("cam"): DesiredModule(after, 2, "rolling")})
    steps = [describe(step) for step in difference(new, settle(World(), old)).changes()]
    assert {step.brief for step in steps} == {"command, LEVEL"}
    assert not any("hush" in step.text + step.brief for step in steps)
    assert "hush3" in steps[0].reason
