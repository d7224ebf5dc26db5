"""Which slots and ports an instance gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.errors import PartError
from idi.parts.targets.local.ports import FIRST, LAST, choose_ports, free_slots

NAMES = st.text("abcdefgh-", min_size=1, max_size=8)
PORTS = st.integers(FIRST, LAST)


@given(st.integers(0, 20), st.sets(st.integers(1, 30)))
def test_the_lowest_free_slots(count: int, taken: set[int]) -> None:
    slots = free_slots(count, taken)
    assert len(slots) == count
    assert taken.isdisjoint(slots)
    every = set(range(1, max(slots, default=0) + 1))
    assert every <= taken | set(slots)


@given(NAMES, NAMES, st.lists(NAMES, unique=True, max_size=12), st.sets(PORTS), st.sets(PORTS))
def test_ports_are_free_distinct_and_the_same_again(
    platform: str, instance: str, purposes: list[str], taken: set[int], busy: set[int]
) -> None:
    chosen = choose_ports(platform, instance, purposes, taken, lambda port: port not in busy)
    assert list(chosen) == purposes
    assert len(set(chosen.values())) == len(purposes)
    assert all(FIRST <= port <= LAST for port in chosen.values())
    assert not (taken | busy) & set(chosen.values())
    assert choose_ports(platform, instance, purposes, taken, lambda port: port not in busy) == chosen


def test_platforms_side_by_side_rarely_meet() -> None:
    purposes = [f"port:{number}" for number in range(5)]

    def of(platform: str) -> set[int]:
        ports: set[int] = set()
        for number in range(20):
            ports.update(choose_ports(platform, f"jede-{number}", purposes, ports, lambda _: True).values())
        return ports

    one, two = of("0123abcd"), of("4567cdef")
    assert len(one) == len(two) == 100
    assert len(one & two) <= 5


def test_no_port_left_says_so() -> None:
    with pytest.raises(PartError, match="No port between 20000 and 29999 is free"):
        choose_ports("p", "jede-1", ["port:http"], (), lambda _: False)
