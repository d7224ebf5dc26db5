"""Registrations live by their heartbeats and belong to whoever holds their credential."""

from __future__ import annotations

import pytest

from idi.parts.discovery.registry import MOST, Registry
from idi.parts.errors import Refused


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.requirement("D1")
def test_without_a_heartbeat_it_ends() -> None:
    clock = Clock()
    registry = Registry(b"key", clock)
    credential = registry.add("cam-3", 10.0)
    assert registry.next_s() == 10.0
    clock.now += 9
    assert registry.expire() == []
    registry.heartbeat("cam-3", credential)
    clock.now += 9
    assert registry.expire() == []
    clock.now += 1
    assert registry.expire() == ["cam-3"]
    assert registry.next_s() is None
    with pytest.raises(Refused):
        registry.heartbeat("cam-3", credential)


@pytest.mark.requirement("D1")
def test_only_the_holder_of_the_credential_keeps_it_or_ends_it() -> None:
    registry = Registry(b"key", Clock())
    registry.add("cam-3", 10.0)
    others = registry.add("cam-4", 10.0)
    for wrong in ("", "x", others):
        with pytest.raises(Refused):
            registry.heartbeat("cam-3", wrong)
        with pytest.raises(Refused):
            registry.remove("cam-3", wrong)


def test_a_credential_survives_a_restart() -> None:
    credential = Registry(b"key", Clock()).add("cam-3", 10.0)
    again = Registry(b"key", Clock())
    again.add("cam-3", 10.0)
    again.heartbeat("cam-3", credential)


def test_bounds() -> None:
    registry = Registry(b"key", Clock())
    for ttl_s in (0.5, 3601.0):
        with pytest.raises(Refused):
            registry.check(ttl_s)
    for number in range(MOST):
        registry.add(f"cam-{number}", 10.0)
    with pytest.raises(Refused):
        registry.check(10.0)
