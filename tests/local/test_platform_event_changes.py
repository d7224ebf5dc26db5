"""Changes of what is declared of events, on a platform that has events: by steps of a plan, and never by losing any."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.event_shop import DECLARATION, EVENTFUL, event, letters, publish
from tests.support.platform import Platform, platform, until

pytestmark = pytest.mark.requirement("B1")

PATIENT = DECLARATION.replace("{attempts: 3, backoff: 100ms..400ms}", "{attempts: 500, backoff: 1s..1s}")
OTHERWISE = PATIENT.replace(
    "{deliver: {attempts: 500, backoff: 1s..1s}}",
    "{keep: 2d, limit: 64MiB, full: drop-oldest, deliver: {attempts: 400, backoff: 500ms..1s}}",
)
HANDLES = ", handles: {order.placed: /placed}"


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(PATIENT, {"eventful.py": EVENTFUL}) as one:
        one.up()
        yield one


def heard(shop: Platform, module: str = "mail") -> list[str]:
    path = shop.folder / f"heard-{module}"
    return [json.loads(line)[1] for line in path.read_text().splitlines()] if path.exists() else []


def test_limits_attempts_and_pauses_change_under_events_that_are_being_tried(shop: Platform) -> None:
    ids = [f"tried-{number}" for number in range(20)]
    for id in ids:
        assert publish(shop, event(id, data="bad")).status_code == 200
    until(lambda: len(heard(shop, "stock")) == 20)
    before = shop.pids()
    shop.write(OTHERWISE)
    steps = shop.run("plan").stdout
    assert "relay" in steps
    shop.up()
    after = shop.pids()
    assert before["relay"] != after["relay"]
    assert {n: p for n, p in after.items() if "relay" not in n} == {
        n: p for n, p in before.items() if "relay" not in n
    }
    assert "topic order.placed changed" in shop.run("logs", "relay").stdout
    assert heard(shop) == []
    (shop.folder / "takes-everything").touch()
    until(lambda: set(heard(shop)) == set(ids), 30.0)
    assert letters(shop) == []
    (shop.folder / "takes-everything").unlink()


def test_a_module_that_handles_no_longer_is_told_of_what_waits_for_it(shop: Platform) -> None:
    assert publish(shop, event("left", data="bad")).status_code == 200
    until(lambda: "left" in heard(shop, "stock"))
    shop.write(OTHERWISE.replace(HANDLES, ""))
    said = "mail takes order.placed no longer: 1 event that it is not done with will not be handed to it."
    planned = shop.run("plan")
    assert said in planned.stdout + planned.stderr
    done = shop.up()
    assert said in done.stdout + done.stderr
    again = shop.run("plan")
    assert "no longer" not in again.stdout + again.stderr, "its place is gone"
    assert publish(shop, event("meanwhile")).status_code == 200
    until(lambda: "meanwhile" in heard(shop, "stock"))


def test_a_module_that_comes_to_take_events_gets_what_is_kept_and_what_comes(shop: Platform) -> None:
    """By its own way to the broker, on a platform that runs."""
    line = next(line for line in OTHERWISE.splitlines() if line.startswith("  stock:"))
    another = line.replace("  stock:", "  shelf:").replace("heard-stock", "heard-shelf")
    shop.write(OTHERWISE.replace(HANDLES, "").replace(line, f"{line}\n{another}"))
    shop.up()
    assert publish(shop, event("for-shelf")).status_code == 200
    until(lambda: {"meanwhile", "for-shelf"} <= set(heard(shop, "shelf")), 20.0)


def test_a_type_that_is_declared_no_longer_keeps_what_it_holds(shop: Platform) -> None:
    assert publish(shop, event("done", type="pas.done"), module="pas").status_code == 200
    shop.write(OTHERWISE.replace(", publishes: [pas.done]", ""))
    done = shop.up()
    said = "pas.done is declared no longer: what it holds (1 event) stays until it is too old."
    assert said in done.stdout + done.stderr
    shop.write(OTHERWISE)
    shop.up()
    tail = shop.start("events", "tail", "pas.done", "--since", "1", "--json")
    try:
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["event"]["id"] == "done"
    finally:
        tail.kill()
        tail.communicate()


def test_where_an_event_is_kept_cannot_change_and_the_plan_says_so(shop: Platform) -> None:
    shop.write(OTHERWISE.replace("{keep: 2d", "{durable: false, keep: 2d"))
    planned = shop.run("plan")
    assert "order.placed is kept on disk, and what is kept cannot move" in planned.stdout + planned.stderr
    shop.write(OTHERWISE)
