"""What a status says of a module whose versions fare differently."""

from __future__ import annotations

from dataclasses import replace

from idi.api.types import ModuleView
from idi.api.views import Surroundings, module_view, status_view
from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName
from idi.plan.types import Desired, DesiredModule
from idi.world.types import Instance, ModuleWorld, Revision, World
from tests.support.worlds import instance, spec

CAM = ModuleName("cam")
AROUND = Surroundings("dev", "laptop", 1, 0.0, "0.1.0", "http://127.0.0.1:8080")
WANTED = Desired({CAM: DesiredModule(spec("cam", "bbbb"), 2, "rolling")})


def seen(*instances: Instance, new: str = "", old: str = "") -> ModuleView:
    revisions = {
        spec("cam", "aaaa").revision: Revision(spec("cam", "aaaa"), 2, old),
        spec("cam", "bbbb").revision: Revision(spec("cam", "bbbb"), 1, new),
    }
    return module_view(CAM, WANTED, ModuleWorld(revisions, {i.id: i for i in instances}), AROUND)


def a(slot: int, revision: str, state: str, reason: str = "") -> Instance:
    return replace(instance("cam", slot, revision, state), reason=reason)


def test_a_new_version_that_fails_beside_a_former_one_that_serves() -> None:
    view = seen(
        a(1, "aaaa", "ready"), a(2, "aaaa", "ready"), a(3, "bbbb", "failed"), new="ended; 5 times in a row"
    )
    assert (view["ready"], view["desired"], view["state"]) == (2, 2, "failed")
    assert view["reason"] == "the new version: ended; 5 times in a row; the former one serves"


def test_what_an_earlier_version_suffered_from_is_not_said_of_the_new_one() -> None:
    view = seen(
        a(1, "aaaa", "failed", "/nope answered 404"),
        a(2, "bbbb", "failed", "refused"),
        old="/nope answered 404",
    )
    assert view["reason"] == "refused"


def test_a_module_that_is_well_has_no_reason() -> None:
    assert seen(a(1, "bbbb", "ready"), a(2, "bbbb", "ready"))["reason"] == ""


def test_there_is_no_console_to_point_to_and_routes_are_those_of_the_declaration() -> None:
    text = "platform: shop\nmodules:\n  cam: {run: x, routes: [{path: /pictures/}]}\n"
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded)
    view = status_view(loaded.platform, WANTED, World(), AROUND)
    assert view["console"] == {"url": None}
    assert view["modules"][0]["routes"] == ["/pictures/"]
    assert "routes" not in status_view(None, WANTED, World(), AROUND)["modules"][0]


def test_under_an_autoscaler_what_it_wants_is_desired() -> None:
    """Also while a new version comes, which it has not spoken of yet; never fewer than was asked for."""
    wanted = Desired({CAM: DesiredModule(spec("cam", "bbbb"), 2, "rolling", most=6)})
    old, new = Revision(spec("cam", "aaaa"), 2, scaled=5), Revision(spec("cam", "bbbb"), 2)
    revisions = {old.spec.revision: old, new.spec.revision: new}
    view = module_view(CAM, wanted, ModuleWorld(revisions), AROUND)
    assert (view["desired"], view["scale"]) == (5, {"least": 2, "most": 6})
    few = ModuleWorld({new.spec.revision: replace(new, scaled=1)})
    assert module_view(CAM, wanted, few, AROUND)["desired"] == 2
    # Where nobody scales, what once was is no matter.
    assert module_view(CAM, WANTED, ModuleWorld(revisions), AROUND)["desired"] == 2


def test_those_that_could_not_be_made_are_missing_though_the_others_are_well() -> None:
    view = seen(a(1, "bbbb", "ready"), new="the quota idi of the namespace is used up")
    assert (view["state"], view["ready"], view["desired"]) == ("starting", 1, 2)
    assert view["reason"] == "the quota idi of the namespace is used up"
