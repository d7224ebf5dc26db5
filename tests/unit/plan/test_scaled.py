"""A number of instances set by hand, held against the declaration."""

from __future__ import annotations

from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.plan.scaled import fitting, notes, origins
from idi.plan.types import Overlays

CAM, SFL, JEDE = ModuleName("cam"), ModuleName("sfl"), ModuleName("jede")
TEXT = """\
platform: shop
modules:
  cam: {run: serve, instances: 2}
  sfl: {run: serve, storage: {size: 1GiB}}
  jede: {run: serve}
"""


def shop(text: str = TEXT) -> Platform:
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded)
    return loaded.platform


def test_what_differs_from_the_file_is_kept_and_said() -> None:
    overlays = Overlays({CAM: 4, JEDE: 0})
    assert fitting(shop(), overlays) == overlays
    assert notes(shop(), overlays) == [
        "cam has 4 instances by idi scale; platform.yaml:3:32 says 2. idi scale cam=2 goes back to that.",
        "jede has 0 instances by idi scale; the default says 1. idi scale jede=1 goes back to that.",
    ]
    found = origins(shop(), overlays)
    assert found["modules.cam.instances"] == "idi scale"
    assert found["modules.cam.run"] == "platform.yaml:3:14"


def test_what_says_no_more_than_the_file_goes() -> None:
    assert fitting(shop(), Overlays({CAM: 2})) == Overlays()
    assert fitting(shop(TEXT.replace("instances: 2", "instances: 4")), Overlays({CAM: 4})) == Overlays()
    assert notes(shop(), Overlays({CAM: 2})) == []


def test_a_module_that_has_storage_by_now_never_gets_two_writers() -> None:
    assert fitting(shop(), Overlays({SFL: 3})) == Overlays()
    assert fitting(shop(), Overlays({SFL: 0})) == Overlays({SFL: 0})


def test_a_module_that_is_gone_is_forgotten() -> None:
    assert fitting(shop(), Overlays({ModuleName("old"): 3}, {CAM: 2})) == Overlays({}, {CAM: 2})
