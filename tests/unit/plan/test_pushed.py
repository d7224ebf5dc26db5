"""A push of some modules: they are as declared now, the others as they run."""

from __future__ import annotations

import pytest

from idi.api.types import ChangeRequest
from idi.control.change.requests import Asked, what_is_asked
from idi.control.change.wanted import Wanted
from idi.declaration.canonical import canonical
from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import Refused
from idi.plan.bus import with_bus
from idi.plan.desired import desired
from idi.plan.difference import difference
from idi.plan.pushed import pushed, reached
from idi.plan.types import Context, Desired, Overlays
from idi.world.types import World
from tests.support.worlds import perform

pytestmark = pytest.mark.requirement("C1")

BEFORE = """
platform: shop
modules:
  web: {run: web, calls: [stock], config: {SIZE: 1}}
  stock: {run: stock}
  mail: {run: mail, publishes: [mail.sent]}
"""
AFTER = """
platform: shop
gateway: {clients: {till: {scopes: [a]}}}
externals: {bank: {address: "bank.example.com:443", protocol: http}}
modules:
  web: {run: web, calls: [stock, mail, bank], config: {SIZE: 2}, publishes: [web.seen]}
  stock: {run: stock2}
  mail: {run: mail, publishes: [mail.sent]}
  fresh: {run: fresh, calls: [newer]}
  newer: {run: newer}
"""


WEB, STOCK = ModuleName("web"), ModuleName("stock")


def loaded(text: str) -> Platform:
    found = load(text)
    assert isinstance(found, Loaded), found
    return found.platform


def deploy(text: str, *modules: str) -> ChangeRequest:
    return {"action": "deploy", "text": text, "file": "platform.yaml", "modules": [*modules]}


def asked(text: str, *modules: str, before: str = BEFORE) -> Asked:
    wanted = Wanted(up=True, text=before, file="platform.yaml")
    return what_is_asked(deploy(text, *modules), wanted, with_bus(loaded(before)), World(), "dev")


def test_named_modules_come_with_what_they_need_and_the_others_stay() -> None:
    before, after = loaded(BEFORE), loaded(AFTER)
    result = pushed(before, after, [WEB])
    assert result.modules[WEB] == after.modules[WEB]
    assert result.modules[STOCK] == before.modules[STOCK]
    assert "fresh" not in result.modules
    assert set(result.externals) == {"bank"}
    assert set(result.events) == {"mail.sent", "web.seen"}
    assert result.gateway == before.gateway


def test_what_is_wanted_afterwards_says_so_to_a_control_that_starts_anew() -> None:
    found = asked(AFTER, "web")
    again = loaded(found.wanted.text)
    assert canonical(again) == canonical(pushed(loaded(BEFORE), loaded(AFTER), [WEB]))
    assert found.only == ["web"]
    assert found.detail == {"file": "platform.yaml", "modules": ["web"]}


def test_where_nothing_else_differs_the_file_itself_is_wanted() -> None:
    text = BEFORE.replace("SIZE: 1", "SIZE: 2") + "# as it was written\n"
    assert asked(text, "web").wanted.text == text
    assert asked(AFTER).wanted.text == AFTER
    assert asked(AFTER).only is None


def test_what_cannot_be_alone_is_refused_with_what_helps() -> None:
    with pytest.raises(Refused, match=r"fresh cannot be pushed alone: .*newer") as refused:
        asked(AFTER, "fresh")
    assert "along" in refused.value.way_out
    assert asked(AFTER, "fresh", "newer").only == ["fresh", "newer"]
    with pytest.raises(Refused, match="no module called 'wbe'"):
        asked(AFTER, "wbe")
    with pytest.raises(Refused, match="not up"):
        what_is_asked(deploy(AFTER), Wanted(), None, World(), "dev")


def test_the_journal_names_images_by_their_digest() -> None:
    digest = "@sha256:" + "ab" * 32
    text = BEFORE.replace("{run: stock}", f'{{run: stock, image: "registry.example.com/stock{digest}"}}')
    assert asked(text, "stock").detail["images"] == {"stock": "sha256:abababababab"}


def test_who_is_only_called_by_one_more_is_reached() -> None:
    context = Context("", "")
    digest = "m@sha256:" + "0" * 64
    text = BEFORE.replace("{run: ", f'{{image: "{digest}", run: ')
    text += (
        f'environments: {{staging: {{target: {{kubernetes: {{context: here, images: {{control: "{digest}", '
    )
    text += f'sidecar: "{digest}", relay: "{digest}"}}}}}}}}}}\n'
    after = text.replace("calls: [stock]", "calls: [stock, mail]")

    def goal(one: str) -> Desired:
        found = load(one, environment="staging")
        assert isinstance(found, Loaded), found
        return desired(found.platform, Overlays(), context)

    before, wanted = goal(text), goal(after)
    world = World()
    for step in difference(before, world).steps():
        world = perform(world, step)
    assert difference(before, world).empty()
    assert reached(difference(wanted, world), world) == {"mail"}
