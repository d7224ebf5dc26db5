"""What a request leads to, and what is refused before anything is begun."""

from __future__ import annotations

import pytest

from idi.api.types import ChangeRequest
from idi.control.change.requests import what_is_asked
from idi.control.change.wanted import Wanted
from idi.parts.errors import Refused
from idi.plan.bus import BUS, RELAY
from idi.world.types import World

TEXT = """
platform: shop
modules: {orders: {run: x, publishes: [order.placed]}}
events: {order.placed: {durable: true}}
"""


def up(text: str = TEXT) -> ChangeRequest:
    return {"action": "up", "text": text, "file": "platform.yaml"}


def test_the_bus_comes_with_events() -> None:
    asked = what_is_asked(up(), Wanted(), None, World(), "dev")
    assert asked.platform is not None
    assert set(asked.platform.modules) == {BUS, RELAY, "orders"}
    again = what_is_asked(
        {"action": "restart", "modules": ["relay"]}, asked.wanted, asked.platform, World(), "dev"
    )
    assert again.only == ["relay"]


@pytest.mark.requirement("B1")
def test_what_is_kept_cannot_move_between_disk_and_memory() -> None:
    before = what_is_asked(up(), Wanted(), None, World(), "dev").platform
    moved = up(TEXT.replace("durable: true", "durable: false"))
    with pytest.raises(Refused, match="kept on disk, and what is kept cannot move"):
        what_is_asked(moved, Wanted(), before, World(), "dev")
    assert what_is_asked(up(), Wanted(), before, World(), "dev")


def test_the_bus_has_one_writer() -> None:
    asked = what_is_asked(up(), Wanted(), None, World(), "dev")
    with pytest.raises(Refused, match="two writers"):
        what_is_asked(
            {"action": "scale", "modules": {"bus": 2}}, asked.wanted, asked.platform, World(), "dev"
        )


BY = "@sha256:" + 64 * "0"
CLUSTER = f"""
platform: shop
modules:
  cam: {{image: "r/cam{BY}", scale: {{max: 6, cpu: 70%}}, resources: {{cpu: 100m}}}}
  pas: {{image: "r/pas{BY}"}}
environments:
  staging:
    target:
      kubernetes:
        context: c
        images: {{control: "c{BY}", sidecar: "s{BY}"}}
        quota: {{cpu: 4, memory: 8GiB, pods: 12}}
"""


@pytest.mark.requirement("K3")
def test_what_has_no_room_in_the_quota_is_refused_before_it_is_asked_for() -> None:
    asked = what_is_asked(up(CLUSTER), Wanted(), None, World(), "staging")

    def scale(count: int, wanted: Wanted = asked.wanted) -> Wanted:
        request: ChangeRequest = {"action": "scale", "modules": {"pas": count}}
        return what_is_asked(request, wanted, asked.platform, World(), "staging").wanted

    more = scale(5)
    with pytest.raises(Refused, match="asks for 13 of pods where the quota has 12") as refused:
        scale(6)
    assert "quota: {pods: 13} or more under target.kubernetes" in refused.value.way_out
    # A smaller quota does not keep anybody from asking for less, and says so to an up.
    smaller = CLUSTER.replace("pods: 12", "pods: 9")
    with pytest.raises(Refused, match="pods where the quota has 9"):
        what_is_asked(up(smaller), more, asked.platform, World(), "staging")
    assert scale(2, more)
