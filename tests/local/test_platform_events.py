"""Events on a whole platform: real broker, real proxies, the real command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import nats
import nats.errors
import nats.js.errors
import pytest

from idi.parts.certificates.interface import Certificate
from tests.support.event_shop import DECLARATION, EVENTFUL, event, letters, publish, urls
from tests.support.platform import Platform, platform, until
from tests.support.strangers import issue, knock, knock_plainly, say, self_made

pytestmark = pytest.mark.requirement("B1")


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"eventful.py": EVENTFUL}) as one:
        one.up()
        yield one


def heard(shop: Platform, *modules: str) -> list[list[str]]:
    found = [shop.folder / f"heard-{module}" for module in modules or ("mail", "stock")]
    return [json.loads(line) for path in found if path.exists() for line in path.read_text().splitlines()]


def seats(shop: Platform) -> dict[str, dict[str, Any]]:
    """The record of every instance: its ports."""
    return {path.stem: json.loads(path.read_text()) for path in (shop.paths.state / "seats").glob("*.json")}


async def issued(shop: Platform, *workloads: str) -> dict[str, Certificate]:
    return {name: await issue(shop, "shop.idi", name) for name in workloads}


def denied(shop: Platform) -> dict[str, int]:
    time.sleep(1.1)  # figures are that fresh
    parts = {part["name"]: part for part in shop.status()["parts"]}
    return {name: parts[name]["figures"]["denied"] for name in ("bus", "relay")}


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
    refused: list[str] = []

    async def told(error: Exception) -> None:
        refused.append(str(error))

    async def talk() -> None:
        bus = await nats.connect(urls(shop, "orders")["BUS_URL"], error_cb=told)
        stream = bus.jetstream(timeout=2)
        headers = {"ce-id": "native", "ce-source": "/t", "ce-type": "order.placed", "ce-specversion": "1.0"}
        assert (await stream.publish("order.placed", b"{}", headers=headers)).stream == "order=placed"
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await stream.publish("pas.done", b"{}", timeout=0.5)
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await bus.jetstream(timeout=0.5).stream_info("order=placed")
        taken = await stream.pull_subscribe_bind(consumer="stock", stream="order=placed")
        with pytest.raises((nats.errors.Error, TimeoutError)):
            await taken.fetch(1, timeout=1)
        spied: list[str] = []

        async def spy(message: Any) -> None:
            spied.append(message.subject)

        listening = await nats.connect(urls(shop, "pas")["BUS_URL"], error_cb=told)
        # Everything; what others publish; what others are answered.
        for subject in (">", "order.placed", "_INBOX.>", "_INBOX.*.*"):
            await listening.subscribe(subject, cb=spy)
        await listening.flush()
        for number in range(5):
            await stream.publish("order.placed", b"{}", headers={**headers, "ce-id": f"native-{number}"})
        await asyncio.sleep(0.3)
        assert spied == []
        for client in (bus, listening):
            await client.close()

    asyncio.run(talk())
    until(lambda: all(times(shop, f"native-{n}") == 2 for n in range(5)))
    # The client was told, and so is whoever looks.
    for what in (
        'publish to "pas.done"',
        'publish to "$js.api.stream.info.order=placed"',
        'publish to "$js.api.consumer.msg.next.order=placed.stock"',
        'subscription to ">"',
        'subscription to "order.placed"',
    ):
        assert any(what in one.lower() for one in refused), (what, refused)
    logged = shop.run("logs", "bus", "--grep", "Violation").stdout
    assert '"module-orders/user:orders" - Publish Violation - Subject "pas.done"' in logged
    assert '"module-pas/user:pas" - Subscription Violation - Subject ">"' in logged


def test_the_bus_listens_to_nobody_without_a_login(shop: Platform) -> None:
    url = urls(shop, "orders")["BUS_URL"]

    async def refused(address: str) -> None:
        with pytest.raises((nats.errors.Error, OSError)):
            await nats.connect(address, allow_reconnect=False, connect_timeout=2)

    asyncio.run(refused(f"nats://{url.partition('@')[2]}"))
    asyncio.run(refused(url.replace("orders:", "pas:")))
    logged = until(lambda: shop.run("logs", "bus", "--grep", "authentication error").stdout)
    assert '"pas"' in logged


@pytest.mark.requirement("S4", "T4")
def test_at_the_mesh_ports_of_the_bus_and_the_relay_only_declared_modules_are_let_in(shop: Platform) -> None:
    """Past the module's own sidecar, with whatever certificate somebody may have."""
    certificates = asyncio.run(issued(shop, "orders", "stock", "web", "gateway", "nobody"))
    roots = certificates["orders"].roots
    [bus] = [seat["mesh"]["nats"] for name, seat in seats(shop).items() if name.startswith("bus-")]
    [relay] = [seat["mesh"]["http"] for name, seat in seats(shop).items() if name.startswith("relay-")]
    before = denied(shop)
    for caller, certificate in certificates.items():
        greeted, answer = say(bus, certificate, roots, b""), knock(relay, certificate, roots)
        if caller in ("orders", "stock"):
            assert greeted.startswith(b"INFO "), caller
            assert answer.status == 200, caller
        else:
            assert greeted == b"", caller
            assert answer.status == 403, caller
    after = denied(shop)
    assert {name: after[name] - before[name] for name in after} == {"bus": 3, "relay": 3}
    made = self_made("spiffe://shop.idi/dev/orders", roots)
    with platform(DECLARATION, {"eventful.py": EVENTFUL}) as twin:
        twin.up()
        others = asyncio.run(issued(twin, "orders"))["orders"]
        [its] = [seat["mesh"]["nats"] for name, seat in seats(twin).items() if name.startswith("bus-")]
        assert say(its, others, others.roots, b"").startswith(b"INFO ")
    for port in (bus, relay):
        assert knock_plainly(port).status == 0
        for shown in (None, others, made):
            assert knock(port, shown, roots).status == 0
            assert say(port, shown, roots, b"") == b""


@pytest.mark.requirement("S4")
def test_a_module_without_events_has_no_way_to_them(shop: Platform) -> None:
    assert set(seats(shop)["web-1"]["outbound"]) == set()
    assert set(seats(shop)["orders-1"]["outbound"]) == {"bus", "relay"}
    assert urls(shop, "web") == {"BUS_URL": None, "EVENTS_URL": None}


@pytest.mark.requirement("G1", "T4")
def test_nobody_but_the_relay_posts_where_events_are_posted(shop: Platform) -> None:
    """Else whoever may call a module at all could tell it of events that nobody published."""
    ways = (
        "/placed",
        "/placed/",
        "//placed",
        "/%70laced",
        "/x/../placed",
        "/Placed",
        "/placed;a=b",
        "/placed?a=b",
        "%2Fplaced",
        "/%2fplaced%2F",
        "/x/..;/placed",
        "/x/..%2Fplaced",
    )
    arguments = ["-d", "{}"]
    for name, value in event("forged").items():
        arguments += ["-H", f"ce-{name}: {value}"]
    answers = {way: shop.run("call", "mail", way, "-i", *arguments, check=False) for way in ways}
    for way, answer in answers.items():
        # Who writes slashes encoded is sent by the gateway to where they are not.
        assert answer.stdout.startswith(("403", "307")), (way, answer.stdout, answer.stderr)
    assert times(shop, "forged") == 0
    assert shop.run("call", "mail", "/placed-else", *arguments).returncode == 0
    assert times(shop, "forged") == 1, "what is not reserved is called as ever"


def test_what_cannot_be_delivered_is_dead_and_can_be_replayed(shop: Platform) -> None:
    assert publish(shop, event("dead", data="bad", subject="s-1")).status_code == 200

    [letter] = until(lambda: letters(shop))
    assert (letter["module"], letter["topic"], letter["attempts"]) == ("mail", "order.placed", 3)
    assert [one["reason"] for one in letter["tries"]] == ["answered 500: as asked"] * 3
    assert letter["event"]["data"] == "bad"
    assert shop.run("events", "replay", str(letter["id"])).returncode == 0
    [again] = until(lambda: [one for one in letters(shop) if one["id"] != letter["id"]])
    assert again["attempts"] == 6
    assert shop.run("events", "replay", str(letter["id"]), check=False).returncode == 1
    assert times(shop, "dead") == 1, "it was replayed to mail, not to stock"


def test_what_a_consumer_never_acknowledges_is_dead_too(shop: Platform) -> None:
    """The module's own way to the broker; the broker counts, the relay writes the letter."""
    assert publish(shop, event("refused", subject="never")).status_code == 200

    def dead() -> list[dict[str, Any]]:
        return [one for one in letters(shop) if one["module"] == "stock"]

    [letter] = until(dead, 30.0)
    assert letter["event"]["id"] == "refused"
    assert (letter["attempts"], letter["reason"]) == (3, "was not acknowledged in 3 attempts")
    assert times(shop, "refused") == 1, "mail had it"
    # Once more, in vain: again it is dead, and this time it is known which sequence it had then.
    shop.run("events", "replay", str(letter["id"]))
    [again] = until(lambda: [one for one in dead() if one["id"] != letter["id"]], 30.0)
    assert again["event"]["id"] == "refused"
    (shop.folder / "takes-everything").touch()
    shop.run("events", "replay", str(again["id"]))
    until(lambda: times(shop, "refused") == 2, 30.0)
    assert dead() == []
    [[_, _, attempt]] = [line for line in heard(shop, "stock") if line[1] == "refused"]
    assert attempt == "1"


@pytest.mark.requirement("T3")
def test_without_the_broker_http_goes_on_and_publishing_says_503(shop: Platform) -> None:
    before, token = shop.pids(), shop.token()
    bus = before["bus"]
    os.kill(bus, signal.SIGSTOP)
    try:
        answer = publish(shop, event("paused"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        for module in ("orders", "mail", "stock", "web") * 25:
            assert shop.ask(f"/v1/{module}/urls", token).status_code == 200
    finally:
        os.kill(bus, signal.SIGCONT)
    until(lambda: publish(shop, event("after")).status_code == 200)
    until(lambda: times(shop, "after") == 2)
    assert shop.pids() == before, "nobody had to be started again"


@pytest.mark.requirement("T3")
def test_a_broker_that_is_killed_is_back_and_everybody_goes_on(shop: Platform) -> None:
    before = shop.pids()
    assert publish(shop, event("before")).status_code == 200
    os.kill(before["bus"], signal.SIGKILL)
    until(lambda: publish(shop, event("back")).status_code == 200)
    until(lambda: times(shop, "before") >= 2 and times(shop, "back") >= 2, 60.0)
    after = shop.pids()
    assert {name for name in before if before[name] != after[name]} == {"bus", "bus-1"}


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
    assert [module["name"] for module in status["modules"]] == ["orders", "mail", "stock", "pas", "web"]
