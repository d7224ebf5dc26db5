"""What somebody changed behind the target's back becomes a step, and no value of it reaches the journal."""

from __future__ import annotations

import pytest

from idi.plan.difference import module_steps
from idi.plan.types import AwaitReady, DesiredModule, Ensure, Step
from idi.world.events import RevisionAnew, RevisionDrifted, RevisionEnsured
from idi.world.fold import fold, fold_all
from idi.world.types import Drift, ModuleWorld, World
from tests.support.worlds import perform, spec

pytestmark = pytest.mark.requirement("K1", "S5")

CAM = spec("cam", "a")
WANTED = DesiredModule(CAM, 2, "rolling", rolls=True)
IMAGE = Drift("Deployment cam-stable", "spec.image", "cam:1", "other:1", "kubectl-edit")
GONE = Drift("Service cam")
COUNT = Drift("Deployment cam-stable", "spec.replicas", "2", "4", "keda", left=True)


def there() -> World:
    world = World()
    for step in module_steps(WANTED, ModuleWorld(), ""):
        world = perform(world, step)
    return world


def drifted(*drift: Drift) -> World:
    world, dirty = fold(there(), RevisionDrifted(CAM.module, CAM.revision, drift))
    assert not dirty, "no traffic follows from it"
    return world


def steps(world: World) -> list[Step]:
    return module_steps(WANTED, world.modules[CAM.module], "")


def test_it_is_ensured_again_with_who_did_what() -> None:
    assert steps(there()) == []
    step, waited = steps(drifted(IMAGE, GONE, COUNT))
    assert isinstance(step, Ensure)
    assert isinstance(waited, AwaitReady)
    assert (step.count, step.was) == (2, 2)
    assert step.reason == (
        "changed on the cluster: Deployment cam-stable spec.image is other:1 instead of cam:1 (kubectl-edit); "
        "Service cam is gone"
    )
    assert "other:1" not in step.brief
    assert "Deployment cam-stable spec.image is another (kubectl-edit)" in step.brief


def test_whoever_comes_while_all_are_made_anew_waits_for_them() -> None:
    world, _ = fold(there(), RevisionAnew(CAM.module, CAM.revision, True))
    [waited] = steps(world)
    assert isinstance(waited, AwaitReady)
    world, _ = fold(world, RevisionAnew(CAM.module, CAM.revision, False))
    assert steps(world) == []


def test_what_a_controller_owns_is_left() -> None:
    assert steps(drifted(COUNT)) == []


def test_much_of_it_is_told_in_short() -> None:
    many = [Drift("Service cam", f"spec.{name}", "1", "2") for name in "abcdefg"]
    step, _ = steps(drifted(*many))
    assert isinstance(step, Ensure)
    assert step.reason.endswith("; and 3 more")


def test_whoever_ensures_it_has_put_it_back_and_of_what_is_not_there_nothing_is_said() -> None:
    world, _ = fold_all(drifted(IMAGE), [RevisionEnsured(CAM, 2)])
    assert steps(world) == []
    assert fold(World(), RevisionDrifted(CAM.module, CAM.revision, (IMAGE,)))[0] == World()
