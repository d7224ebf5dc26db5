"""Events on a whole platform: real broker, real proxies, the real command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import nats
import nats.errors
import nats.js.errors
import pytest

from tests.support.platform import ROOT, Platform, platform, until

pytestmark = pytest.mark.requirement("B1")

EVENTFUL = (ROOT / "tests" / "support" / "eventful.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}, grace: 2s}
modules:
  orders: {run: exec python eventful.py, publishes: [order.placed]}
  mail: {run: exec python eventful.py, handles: {order.placed: /placed}, config: {LOG: heard-mail}}
  stock: {run: exec python eventful.py, consumes: [order.placed], config: {LOG: heard-stock, CONSUMES: order.placed}}
  pas: {run: exec python eventful.py, publishes: [pas.done]}
events:
  order.placed: {deliver: {attempts: 3, backoff: 100ms..400ms}}
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"eventful.py": EVENTFUL}) as one:
        one.up()
        yield one


def urls(shop: Platform, module: str) -> dict[str, str]:
    [instance] = shop.instances(module)
    found: dict[str, str] = httpx.get(f"http://{instance['address']}/urls", trust_env=False).json()
    return found


def event(id: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/test", "type": "order.placed", **more}


def publish(shop: Platform, document: object, module: str = "orders", **more: Any) -> httpx.Response:
    form = (
        "application/cloudevents-batch+json" if isinstance(document, list) else "application/cloudevents+json"
    )
    return httpx.post(
        urls(shop, module)["EVENTS_URL"],
        content=json.dumps(document),
        headers={"content-type": form, **more},
        trust_env=False,
        timeout=20,
    )


def heard(shop: Platform) -> list[list[str]]:
    found = [shop.folder / f"heard-{module}" for module in ("mail", "stock")]
    return [json.loads(line) for path in found if path.exists() for line in path.read_text().splitlines()]


def times(shop: Platform, id: str) -> int:
    return sum(1 for _, key, _ in heard(shop) if key == id)


def test_an_event_reaches_whoever_handles_and_whoever_consumes(shop: Platform) -> None:
    answer = publish(shop, event("one", data={"total": 12}))
    assert (answer.status_code, answer.json()) == (200, {"kept": 1})
    until(lambda: times(shop, "one") == 2)
    assert publish(shop, [event("two"), event("three"), event("one")]).json() == {"kept": 3}
    until(lambda: times(shop, "two") == times(shop, "three") == 2)
    assert times(shop, "one") == 2, "the same id is taken once"


def test_what_is_not_declared_is_refused(shop: Platform) -> None:
    refused = publish(shop, event("x", type="pas.done"))
    assert refused.status_code == 403
    assert "orders does not declare 'pas.done'; it publishes order.placed." in refused.json()["detail"]
    assert publish(shop, event("x", type="order.placed"), module="pas").status_code == 403
    assert publish(shop, {"no": "event"}).status_code == 422


def test_a_native_client_reaches_what_its_module_declares_and_nothing_else(shop: Platform) -> None:
    async def talk() -> None:
        bus = await nats.connect(urls(shop, "orders")["BUS_URL"])
        stream = bus.jetstream(timeout=2)
        headers = {"ce-id": "native", "ce-source": "/t", "ce-type": "order.placed", "ce-specversion": "1.0"}
        assert (await stream.publish("order.placed", b"{}", headers=headers)).stream == "order=placed"
        with pytest.raises(nats.js.errors.NoStreamResponseError):
            await stream.publish("pas.done", b"{}", timeout=2)
        with pytest.raises(nats.js.errors.Error):
            await stream.stream_info("order=placed")
        taken = await stream.pull_subscribe_bind(consumer="stock", stream="order=placed")
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await taken.fetch(1, timeout=1)
        spied: list[str] = []

        async def spy(message: Any) -> None:
            spied.append(message.subject)

        listening = await nats.connect(urls(shop, "pas")["BUS_URL"])
        await listening.subscribe(">", cb=spy)
        await listening.flush()
        for number in range(5):
            await stream.publish("order.placed", b"{}", headers={**headers, "ce-id": f"native-{number}"})
        await asyncio.sleep(0.3)
        assert spied == []
        for client in (bus, listening):
            await client.close()

    asyncio.run(talk())
    until(lambda: all(times(shop, f"native-{n}") == 2 for n in range(5)))


def test_the_bus_listens_to_nobody_without_a_login(shop: Platform) -> None:
    url = urls(shop, "orders")["BUS_URL"]

    async def refused(address: str) -> None:
        with pytest.raises((nats.errors.Error, OSError)):
            await nats.connect(address, allow_reconnect=False, connect_timeout=2)

    asyncio.run(refused(f"nats://{url.partition('@')[2]}"))
    asyncio.run(refused(url.replace("orders:", "pas:")))


def test_what_cannot_be_delivered_is_dead_and_can_be_replayed(shop: Platform) -> None:
    assert publish(shop, event("dead", data="bad", subject="s-1")).status_code == 200

    def dead() -> list[dict[str, Any]]:
        return [json.loads(line) for line in shop.run("events", "dead", "--json").stdout.splitlines()]

    [letter] = until(dead)
    assert (letter["module"], letter["topic"], letter["attempts"]) == ("mail", "order.placed", 3)
    assert [one["reason"] for one in letter["tries"]] == ["answered 500: as asked"] * 3
    assert letter["event"]["data"] == "bad"
    assert shop.run("events", "replay", str(letter["id"])).returncode == 0
    [again] = until(lambda: [one for one in dead() if one["id"] != letter["id"]])
    assert again["attempts"] == 6
    assert shop.run("events", "replay", str(letter["id"]), check=False).returncode == 1
    assert times(shop, "dead") == 1, "it was replayed to mail, not to stock"


def test_what_a_consumer_never_acknowledges_is_dead_too(shop: Platform) -> None:
    """The module's own way to the broker; the broker counts, the relay writes the letter."""
    assert publish(shop, event("refused", subject="never")).status_code == 200

    def dead() -> list[dict[str, Any]]:
        lines = shop.run("events", "dead", "--json").stdout.splitlines()
        return [one for one in map(json.loads, lines) if one["module"] == "stock"]

    [letter] = until(dead, 30.0)
    assert letter["event"]["id"] == "refused"
    assert (letter["attempts"], letter["reason"]) == (3, "was not acknowledged in 3 attempts")


def test_without_the_broker_http_goes_on_and_publishing_says_503(shop: Platform) -> None:
    bus = shop.pids()["bus"]
    os.kill(bus, signal.SIGSTOP)
    try:
        answer = publish(shop, event("paused"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        [instance] = shop.instances("mail")
        assert httpx.get(f"http://{instance['address']}/ready", trust_env=False).status_code == 200
    finally:
        os.kill(bus, signal.SIGCONT)
    until(lambda: publish(shop, event("after")).status_code == 200)
    until(lambda: times(shop, "after") == 2)


def test_a_second_up_changes_nothing_and_a_new_login_disconnects_nobody(shop: Platform) -> None:
    before = shop.pids()
    shop.up()
    assert shop.pids() == before
    shop.write(DECLARATION.replace("publishes: [pas.done]", "publishes: [pas.done, order.placed]"))

    async def stays() -> None:
        lost: list[str] = []

        async def gone() -> None:
            lost.append("gone")

        bus = await nats.connect(urls(shop, "orders")["BUS_URL"], disconnected_cb=gone)
        await asyncio.to_thread(shop.up)
        assert (await bus.jetstream().publish("order.placed", b"{}")).seq
        assert lost == []
        await bus.close()

    asyncio.run(stays())
    after = shop.pids()
    for name in ("bus", "orders-1", "mail-1", "stock-1"):
        assert after[name] == before[name], name
    assert until(lambda: publish(shop, event("by-pas"), module="pas").status_code == 200)


def test_status_shows_them_as_parts(shop: Platform) -> None:
    status = shop.status()
    assert [part["name"] for part in status["parts"]] == ["openbao", "gateway", "bus", "relay"]
    assert [module["name"] for module in status["modules"]] == ["orders", "mail", "stock", "pas"]
