"""Modules with the SDK on a whole platform: calls, events, configuration, secrets, and an orderly end under load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.platform import ROOT, Platform, platform, until
from tests.support.scale import scale
from tests.support.steady import meanwhile, nothing_failed, report, under_load

SHOP = (ROOT / "tests" / "support" / "sdk_shop.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}}
modules:
  orders:
    run: exec python sdk_shop.py
    calls: [stock]
    publishes: [order.placed]
    config: {TIP: 2, TABLES: "one, two", PATIENCE: 1500ms}
    secrets: {PASSWORD: orders/password, KEY: {path: orders/key, as: file}}
    routes: [{path: /v1/orders/, public: true}]
  stock:
    run: exec python sdk_shop.py
    instances: 2
    handles: {order.placed: /events/order-placed}
    routes: [{path: /v1/stock/, public: true}]
events:
  order.placed: {deliver: {attempts: 4, backoff: 100ms..400ms}}
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
pytestmark = pytest.mark.requirement("B1")


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"sdk_shop.py": SHOP}) as one:
        one.up(check=False)  # a secret is missing
        for path in ("orders/password", "orders/key"):
            one.run("secrets", "set", path, stdin=f"{path} is hidden")
        one.wait_ready()
        yield one


def order(shop: Platform, id: str, **data: Any) -> httpx.Response:
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    return shop.ask(f"/v1/orders/order/tea?id={id}", method="POST", json=data, headers=headers)


def heard(shop: Platform, id: str) -> list[list[Any]]:
    path = shop.folder / "heard"
    lines = path.read_text().splitlines() if path.exists() else []
    return [one for one in map(json.loads, lines) if one[0] == id]


def dead(shop: Platform) -> dict[str, dict[str, Any]]:
    lines = shop.run("events", "dead", "--json").stdout.splitlines()
    return {one["event"]["id"]: one for one in map(json.loads, lines)}


@pytest.mark.requirement("G2")
def test_a_call_and_an_event_carry_the_trace_all_the_way(shop: Platform) -> None:
    answer = order(shop, "o-1")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "price": {"price": 3, "caller": "orders", "trace": TRACE}, "total": 5, "event": "o-1"
    }  # fmt: skip
    until(lambda: heard(shop, "o-1"))
    assert order(shop, "o-1").status_code == 200
    answer = shop.ask("/v1/orders/batch", method="POST", json=["b-1", "b-2", "o-1"])
    assert answer.status_code == 204, answer.text
    until(lambda: heard(shop, "b-1") and heard(shop, "b-2"))
    assert heard(shop, "o-1") == [["o-1", 1, "/orders o-1", "tea", TRACE]], "the same id is taken once"


def test_a_handler_says_what_is_to_become_of_an_event(shop: Platform) -> None:
    assert order(shop, "fails", fails=2).status_code == 200
    assert order(shop, "waits", fails=1, again_s=1).status_code == 200
    assert order(shop, "gives-up", gives_up=True).status_code == 200
    assert order(shop, "bug", fails=9).status_code == 200
    until(lambda: len(heard(shop, "fails")) == 3 and len(heard(shop, "waits")) == 2 and len(dead(shop)) == 2)
    assert [one[1] for one in heard(shop, "fails")] == [1, 2, 3]
    letters = dead(shop)
    assert len(heard(shop, "gives-up")) == 1
    assert letters["gives-up"]["reason"] == "answered 422: no such order"
    assert letters["bug"]["reason"] == "answered 500: KeyError; the log of stock says more"
    lines = [json.loads(line)["line"] for line in shop.run("logs", "stock", "--json").stdout.splitlines()]
    said = [json.loads(line) for line in lines if "KeyError" in line]
    assert {one["trace_id"] for one in said} == {TRACE}


def test_events_come_from_the_relay_alone(shop: Platform) -> None:
    """A route to the module is no way to tell it of events."""
    headers = {"ce-id": "forged", "ce-source": "/orders", "ce-type": "order.placed", "ce-specversion": "1.0"}
    answer = shop.ask("/v1/stock/events/order-placed", method="POST", json={}, headers=headers)
    assert (answer.status_code, heard(shop, "forged")) == (403, [])
    assert answer.json()["detail"].endswith("the relay alone may make it")


@pytest.mark.requirement("S1", "S2")
def test_config_and_secrets_are_there_as_what_they_are(shop: Platform) -> None:
    told = shop.ask("/v1/orders/settings").json()
    shown = told.pop("shown")
    assert told == {
        "tip": 2, "tables": ["one", "two"], "patience_s": 1.5, "password": "orders/password is hidden",
        "key": "orders/key is hidden",
    }  # fmt: skip
    assert "is hidden" not in shown
    shop.run("config", "set", "orders", "TIP=4")
    assert order(shop, "o-4").json()["total"] == 7


def test_a_mistake_is_in_the_log_of_who_made_it(shop: Platform) -> None:
    assert shop.ask("/v1/orders/undeclared").json()["detail"] == (
        "This module does not declare that it calls kitchen (KITCHEN_URL is not set): add `calls: [kitchen]` to it in "
        "platform.yaml."
    )
    assert "add `calls: [kitchen]`" in shop.run("logs", "orders").stdout


@pytest.mark.requirement("D1")
async def test_a_restart_under_load_fails_nothing(shop: Platform) -> None:
    """Requests that take a quarter of a second are under way at each moment."""
    before = {one["pid"] for one in shop.instances("stock")}
    rate = scale(60.0, 200.0)
    async with under_load(shop, "/v1/stock/slow", [], rate) as act:
        await meanwhile(shop.run, "restart", "stock")
    assert not before & {one["pid"] for one in shop.instances("stock")}
    report("restart of a module with the SDK", act)
    nothing_failed(act)
