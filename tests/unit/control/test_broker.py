"""Logins at the broker follow the declaration, and a broker that runs is told when they changed."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from idi.control.bus.broker import Broker, BrokerHere
from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import PartError, Refused
from idi.plan.bus import BUS, RELAY, with_bus
from idi.world.events import InstanceReady, InstanceSeen
from idi.world.fold import fold
from idi.world.types import World
from tests.support.worlds import instance

TEXT = """
platform: shop
modules:
  orders: {run: x, publishes: [order.placed]}
  mail: {run: x, handles: {order.placed: /placed}}
  stock: {run: x, consumes: [order.placed]}
  web: {run: x}
"""


def declared(text: str = TEXT) -> Platform:
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded), loaded
    return with_bus(loaded.platform)


class Told:
    """A broker that runs as this process's child would; its signals are counted instead."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.signals: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: self.signals.append((pid, number)))
        self.file = folder / "nats.conf"
        self.broker = Broker(BrokerHere(self.file, lambda: self.world), lambda purpose: purpose.encode())

    def starts(self, pid: int = 4242) -> None:
        one = replace(instance("bus", 1, "aaaa"), pid=pid)
        self.world, _ = fold(self.world, InstanceSeen(one))
        self.broker.hear(InstanceReady(BUS, one.id, 1.0))

    def accounts(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = json.loads(self.file.read_text())["accounts"]
        return found


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(tmp_path, monkeypatch)


@pytest.mark.requirement("B1", "S4")
def test_each_login_reaches_what_its_module_declares(told: Told) -> None:
    told.broker.declare(declared())
    assert told.file.stat().st_mode & 0o777 == 0o600
    accounts = told.accounts()
    assert set(accounts) == {"IDI", "SYS", "module-orders", "module-mail", "module-stock"}
    reached = {
        name: [one["service"]["subject"] for one in account["imports"]]  # type: ignore[attr-defined]
        for name, account in accounts.items()
        if name.startswith("module-")
    }
    assert reached == {
        "module-orders": ["order.placed"],
        "module-mail": [],
        "module-stock": [
            "$JS.API.CONSUMER.MSG.NEXT.order=placed.stock",
            "$JS.ACK.order=placed.stock.>",
        ],
    }
    assert accounts["module-orders"]["users"][0]["permissions"] == {  # type: ignore[index]
        "publish": {"allow": ["order.placed"]},
        "subscribe": {"allow": ["_INBOX.>"]},
    }
    passwords = [account["users"][0]["password"] for account in accounts.values()]  # type: ignore[index]
    assert len(set(passwords)) == len(passwords)


def test_a_broker_that_runs_is_told_once_of_what_changed(told: Told) -> None:
    told.broker.declare(declared())
    assert told.signals == []
    told.starts()
    assert told.signals == [(4242, signal.SIGHUP)], "it may have read an older file"
    told.broker.declare(declared())
    assert len(told.signals) == 1
    told.broker.declare(declared(TEXT.replace("web: {run: x}", "web: {run: x, publishes: [web.seen]}")))
    assert len(told.signals) == 2
    assert "module-web" in told.accounts()


def test_without_events_nothing_is_written(told: Told) -> None:
    told.broker.declare(declared("platform: shop\nmodules: {web: {run: x}}"))
    assert not told.file.exists()


def test_a_module_gets_its_own_password_and_no_other_secret(told: Told) -> None:
    mine = told.broker.secret(ModuleName("orders"), "idi/bus", 0)
    assert mine.startswith("orders:")
    assert mine.partition(":")[2] != told.broker.secret(ModuleName("mail"), "idi/bus", 0).partition(":")[2]
    assert told.broker.secret(RELAY, "idi/bus", 0) == ":".join(told.broker.login(RELAY, 0))
    with pytest.raises(Refused):
        told.broker.secret(ModuleName("orders"), "shop/database", 0)


@pytest.mark.requirement("B1", "S2")
def test_two_versions_of_a_login_are_good_until_the_former_is_gone(told: Told, tmp_path: Path) -> None:
    version = 0
    told.broker.version, told.broker.keys = lambda: version, tmp_path
    told.broker.declare(declared())

    def users(account: str) -> list[str]:
        return [one["user"] for one in told.accounts()[account]["users"]]  # type: ignore[attr-defined]

    assert users("IDI") == ["idi"]
    for wanted, former in ((1, "orders"), (2, "orders.1")):
        before = told.broker.secret(ModuleName("orders"), "idi/bus", version)
        told.broker.make(wanted)
        version = wanted
        assert not told.broker.settled(version)
        told.broker.declare(declared())
        assert users("module-orders") == [f"orders.{wanted}", former]
        assert told.broker.secret(ModuleName("orders"), "idi/bus", wanted) != before
        # An instance that started before starts again with what it had.
        assert told.broker.secret(ModuleName("orders"), "idi/bus", wanted - 1) == before
        told.broker.settle(declared())
        assert users("module-orders") == [f"orders.{wanted}"]
        assert [path.name for path in tmp_path.glob("bus-key-*")] == [f"bus-key-{wanted}"]
        told.broker.settle(declared())  # again
    with pytest.raises(PartError, match="idi keys rotate bus"):
        told.broker.login(ModuleName("orders"), 1)
