"""When an instance counts as ready, and what is said until then."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.types import Readiness
from idi.parts.targets.readiness import Judge, Verdict, ordinal, watch


@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_the_judgement_follows_answers_in_a_row(after: int, failures: int, answers: list[bool]) -> None:
    judge = Judge(after, failures)
    said, since = False, 0
    for place, good in enumerate(answers, start=1):
        judge.hear(good=good)
        needed = failures if said else after
        # Only answers since the last change of mind count.
        row = answers[max(since, place - needed) : place]
        if len(row) == needed and set(row) == {not said}:
            said, since = not said, place
        assert judge.ready == said


def test_the_judgement_by_example() -> None:
    judge = Judge(after=2, failures=3)
    heard = []
    for good in (True, False, True, True, False, False, True, False, False, False, True, True):
        judge.hear(good=good)
        heard.append(judge.ready)
    assert heard == [False, False, False, True, True, True, True, True, True, False, False, True]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (21, "21st"),
        (113, "113th"),
    ],
)
def test_ordinals(number: int, text: str) -> None:
    assert ordinal(number) == text


class Clock:
    """Stands in for the loop's sleeping: time passes only by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.asked: list[float] = []
        self._really = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await self._really(0)


class Answers:
    """A probe that gives these answers, then ends the watch."""

    def __init__(self, clock: Clock, answers: Iterator[str]) -> None:
        self.closed = False
        self._clock = clock
        self._answers = answers

    async def ask(self) -> str:
        self._clock.asked.append(self._clock.now)
        try:
            return next(self._answers)
        except StopIteration:
            raise asyncio.CancelledError from None

    def close(self) -> None:
        self.closed = True


async def heard(
    clock: Clock, readiness: Readiness, answers: list[str], *, ready: bool = False
) -> list[Verdict]:
    told: list[Verdict] = []
    probe = Answers(clock, iter(answers))
    with pytest.raises(asyncio.CancelledError):
        await watch(readiness, "/ready", probe, told.append, up_s=lambda: clock.now, ready=ready)
    assert probe.closed
    return told


def pauses(clock: Clock) -> list[float]:
    found = [after - before for before, after in zip(clock.asked, clock.asked[1:], strict=False)]
    assert [round(pause, 9) for pause in found] == sorted(round(pause, 9) for pause in found)
    assert clock.asked[0] == 0.02
    return found


async def test_it_is_asked_soon_and_then_at_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    await heard(clock, Readiness(every_s=2, deadline_s=1000), ["/ready answered 503"] * 60)
    assert max(pauses(clock)) == pytest.approx(2)
    assert len([moment for moment in clock.asked if moment < 1]) < 25
    for moment, pause in zip(clock.asked, pauses(clock), strict=False):
        assert pause <= max(0.021, moment / 4)


@pytest.mark.requirement("D1")
async def test_while_nothing_listens_it_is_asked_often_however_long_that_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever takes minutes to listen is known a quarter of a second later."""
    clock = Clock(monkeypatch)
    await heard(clock, Readiness(every_s=2, deadline_s=1000), ["connection refused"] * 500)
    assert clock.asked[-1] > 60
    assert max(pauses(clock)) == pytest.approx(0.25)
    assert len([moment for moment in clock.asked if moment < 2]) < 60
    for moment, pause in zip(clock.asked, pauses(clock), strict=False):
        assert pause <= max(0.021, moment / 15)


async def test_what_is_said_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = await heard(
        Clock(monkeypatch), Readiness(after=2), ["connection refused", "/ready answered 503", "", ""]
    )
    assert told == [
        Verdict(False, "waiting for /ready (1st try: connection refused)"),
        Verdict(False, "waiting for /ready (2nd try: /ready answered 503)"),
        Verdict(False, "waiting for /ready (3rd try: good, but not often enough yet)"),
        Verdict(True, ""),
    ]


async def test_what_is_said_once_it_was_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    answers = ["", "/ready answered 503", "no answer within 2s", "connection refused", ""]
    told = await heard(clock, Readiness(every_s=0.5, failures=2), answers)
    assert told == [
        Verdict(True, ""),
        Verdict(True, ""),
        Verdict(False, "/ready: no answer within 2s"),
        Verdict(False, "/ready: connection refused"),
        Verdict(True, ""),
    ]
    assert [
        round(after - before, 3) for before, after in zip(clock.asked, clock.asked[1:], strict=False)
    ] == [0.5] * 5


async def test_the_deadline_is_met_exactly_and_told_until_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    told = await heard(clock, Readiness(every_s=5, deadline_s=3), ["/ready answered 503"] * 40 + [""])
    missed = [moment for moment, verdict in zip(clock.asked, told, strict=False) if verdict.missed]
    assert missed[0] == pytest.approx(3, abs=0.011)
    assert told[-1] == Verdict(True, "")


async def test_an_adopted_one_is_asked_at_once_and_given_its_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    told = await heard(clock, Readiness(failures=2), ["connection refused", "connection refused"], ready=True)
    assert clock.asked[0] == 0
    assert [verdict.ready for verdict in told] == [True, False]
