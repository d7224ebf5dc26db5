"""When a process is started again."""

from hypothesis import given
from hypothesis import strategies as st

from idi.parts.targets.backoff import Backoff, Policy

POLICY = Policy(first_s=0.1, factor=2, longest_s=10, steady_s=10, quick_deaths=5)


def test_a_single_accident_is_answered_at_once() -> None:
    backoff = Backoff(POLICY)
    assert [backoff.died(60) for _ in range(3)] == [0, 0, 0]
    assert not backoff.looping


def test_quick_deaths_double_the_delay_until_it_is_a_loop() -> None:
    backoff = Backoff(POLICY)
    assert [backoff.died(0.1) for _ in range(4)] == [0, 0.1, 0.2, 0.4]
    assert not backoff.looping
    assert [backoff.died(0.1) for _ in range(3)] == [10, 10, 10]
    assert backoff.looping
    assert backoff.deaths == 7


def test_a_steady_time_forgives() -> None:
    backoff = Backoff(POLICY)
    for _ in range(6):
        backoff.died(0.1)
    backoff.steady()
    assert not backoff.looping
    assert backoff.died(12) == 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_delay_is_bounded_and_a_loop_waits_longest(ups: list[float]) -> None:
    backoff = Backoff(POLICY)
    for up in ups:
        delay = backoff.died(up)
        assert 0 <= delay <= POLICY.longest_s
        assert backoff.looping == (backoff.deaths >= POLICY.quick_deaths)
        assert delay == POLICY.longest_s or not backoff.looping
