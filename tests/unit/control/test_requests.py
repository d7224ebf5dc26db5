"""What a request leads to, and what is refused before anything is begun."""

from __future__ import annotations

import pytest

from idi.api.types import ChangeRequest
from idi.control.requests import what_is_asked
from idi.control.wanted import Wanted
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
