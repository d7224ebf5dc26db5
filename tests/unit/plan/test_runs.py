"""An instance that somebody runs themselves stands for one of ours, in the order in which nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.types import ModuleName, Strategy
from idi.plan.describe import describe
from idi.plan.difference import difference
from idi.plan.recorded import document_of, from_document
from idi.plan.types import AwaitReady, Desired, DesiredModule, Detach, Ensure, Lend, Overlays, Run, Step
from idi.world.events import InstanceReady
from idi.world.fold import fold
from idi.world.invariants import validate
from idi.world.types import InstanceId, World
from tests.support.worlds import instance, perform, spec

pytestmark = pytest.mark.requirement("D1")
JEDE = ModuleName("jede")
WAITING, STANDING = Run("ann", 7), Run("ann", 7, standing=True)


def wanted(
    run: Run | None, count: int = 1, strategy: Strategy = "rolling", revision: str = "aaaa"
) -> Desired:
    return Desired({JEDE: DesiredModule(spec("jede", revision), count, strategy, "default", run)})


def apply(world: World, goal: Desired) -> tuple[World, list[type[Step]]]:
    steps = difference(goal, world).steps()
    for step in steps:
        world = perform(world, step)
        validate(world)
    assert difference(goal, world).changes() == ()
    return world, [type(step) for step in steps]


def ready(world: World, name: str) -> World:
    return fold(world, InstanceReady(JEDE, InstanceId(name), 2.0))[0]


def test_ours_goes_after_theirs_is_ready_and_comes_back_before_it_goes() -> None:
    world, _ = apply(World(), wanted(None))
    world, steps = apply(world, wanted(WAITING))
    assert steps == [Lend]
    assert world.modules[JEDE].instances.keys() == {"jede-1", "jede-2"}
    world, steps = apply(ready(world, "jede-2"), wanted(STANDING))
    assert steps == [Ensure]
    assert world.modules[JEDE].instances.keys() == {"jede-2"}
    assert difference(wanted(STANDING, 1, revision="bbbb"), world).lanes[JEDE], "a change of it goes on"
    _, steps = apply(world, wanted(None))
    assert steps == [Ensure, AwaitReady, Detach]


def test_what_serves_no_more_goes_first() -> None:
    world, _ = apply(World(), wanted(None))
    world, _ = apply(world, wanted(STANDING))
    _, steps = apply(world, wanted(None))
    assert steps == [Detach, Ensure, AwaitReady]


def test_there_are_never_two_writers() -> None:
    world, _ = apply(World(), wanted(None, strategy="recreate"))
    world, steps = apply(world, wanted(STANDING, strategy="recreate"))
    assert steps == [Ensure, Lend]
    _, steps = apply(ready(world, "jede-1"), wanted(None, strategy="recreate"))
    assert steps == [Detach, Ensure, AwaitReady]


def test_the_reasons_name_who_it_is() -> None:
    world, _ = apply(World(), wanted(None, 2))
    world, _ = apply(world, wanted(WAITING, 2))
    world = ready(world, "jede-3")
    [step] = difference(wanted(STANDING, 2), world).steps()
    assert (describe(step).text, describe(step).brief) == (
        "2 instances -> 1 of revision aaaa",
        "ann runs one",
    )
    world = perform(world, step)
    back, _, gone = map(describe, difference(wanted(None, 2), world).steps())
    assert (back.reason, gone.text) == ("ann gives it back", "let jede-3 go, which ann ran")


def test_with_the_platform_it_goes_too() -> None:
    world, _ = apply(World(), wanted(None))
    world, _ = apply(world, wanted(STANDING))
    assert [type(step) for step in difference(Desired(), world).steps()][-1] == Detach


runs = st.sampled_from([None, WAITING, STANDING])
goals = st.builds(
    wanted,
    runs,
    st.integers(0, 4),
    st.sampled_from(["rolling", "blue-green", "recreate", "canary"]),
    st.sampled_from(["aaaa", "bbbb"]),
)


@given(first=goals, second=goals, cut=st.integers(0, 6), theirs=st.booleans())
def test_cut_anywhere_it_reaches_the_same_end(
    first: Desired, second: Desired, cut: int, theirs: bool
) -> None:
    world, _ = apply(World(), first)
    if theirs:
        for one in world.instances():
            world = ready(world, one.id)
    for step in difference(second, world).steps()[:cut]:
        world = perform(world, step)
    world, _ = apply(world, second)
    module, goal = world.modules.get(JEDE), second.modules[JEDE]
    ours = [i for i in module.instances.values() if i.supervised] if module else []
    assert len(ours) == goal.ours
    assert sum(bool(i.by) for i in (module.instances.values() if module else ())) == (goal.run is not None)


def test_it_is_recorded() -> None:
    overlays = Overlays(runs={JEDE: STANDING})
    assert from_document(document_of(overlays)) == overlays
    assert from_document({"instances": {"jede": 2}}).runs == {}, "as it was before there were any"


def test_a_registered_one_is_let_alone() -> None:
    world, _ = apply(World(), wanted(None))
    registered = replace(instance("jede", 2, "registered"), supervised=False)
    world = replace(world, modules={JEDE: replace(world.modules[JEDE], instances={"jede-2": registered})})  # type: ignore[dict-item]
    assert Detach not in [type(step) for step in difference(wanted(None), world).steps()]
