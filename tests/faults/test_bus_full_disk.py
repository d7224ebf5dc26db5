"""The broker's disk is full, and nobody but the platform does anything about it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support import small_disk
from tests.support.event_shop import DECLARATION, EVENTFUL, event, publish
from tests.support.platform import Platform, platform, until
from tests.support.scale import need_part

pytestmark = pytest.mark.requirement("B1", "T3")


@pytest.fixture
def full() -> Iterator[tuple[Platform, small_disk.Namespace]]:
    need_part("a mount namespace", small_disk.possible(), "run as root where namespaces can be made")
    with small_disk.holder() as pid, platform(DECLARATION, {"eventful.py": EVENTFUL}) as one:
        disk = small_disk.broker_disk(pid, one, "64m")
        one.up()
        yield one, disk


def test_publishing_is_refused_what_is_kept_is_taken_and_it_goes_on_by_itself(
    full: tuple[Platform, small_disk.Namespace],
) -> None:
    one, disk = full
    kept: set[str] = set()

    def sent(id: str) -> int:
        status = publish(one, event(id)).status_code
        kept.update({id} if status == 200 else ())
        return status

    def heard(module: str) -> set[str]:
        path = one.folder / f"heard-{module}"
        return {json.loads(line)[1] for line in path.read_text().splitlines()} if path.exists() else set()

    for number in range(20):
        assert sent(f"before-{number}") == 200
    before = one.pids()
    disk.fill()
    numbers = iter(range(10_000))
    until(lambda: sent(f"full-{next(numbers)}") == 503, 30.0)
    until(lambda: "The bus keeps no more events" in one.run("status").stdout, 30.0)
    assert sent("still full") == 503
    assert one.pids()["bus"] == before["bus"], "as long as it is full, what is kept can be taken"
    disk.make_room()
    until(lambda: sent(f"room-{next(numbers)}") == 200, 60.0)
    until(lambda: "The bus" not in one.run("status").stdout, 30.0)
    until(lambda: kept <= heard("mail") and kept <= heard("stock"), 60.0)
    after = one.pids()
    assert {name for name in before if before[name] != after[name]} == {"bus", "bus-1"}
