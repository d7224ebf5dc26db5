"""The renewal loop under a clock of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.renewal import LOOK_EVERY_S, Renewal
from idi.parts.certificates.simulator import SimulatedAuthority
from idi.parts.errors import PartError

pytestmark = pytest.mark.requirement("S4")

LIFE = 86400.0
START = 1_800_000_000.0


def identity(name: str) -> str:
    return f"spiffe://shop.idi/dev/{name}"


class Time:
    """A wall clock, and sleeps that end when it is moved on; it can also jump without ending any."""

    def __init__(self) -> None:
        self.now = START
        self.longest = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self._slept = START

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.longest = max(self.longest, seconds)
        over = asyncio.Event()
        self._sleepers.append((self._slept + seconds, over))
        await over.wait()

    async def pass_by(self, seconds: float, step: float = LOOK_EVERY_S) -> None:
        end = self._slept + seconds
        while self._slept < end:
            pause = min(step, end - self._slept)
            self._slept += pause
            self.now += pause
            for at, over in self._sleepers:
                if at <= self._slept:
                    over.set()
            self._sleepers = [(at, over) for at, over in self._sleepers if at > self._slept]
            await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Stage:
    def __init__(self) -> None:
        self.time = Time()
        self.authority = SimulatedAuthority("shop.idi", "dev", clock=self.time.clock)
        self.delivered: list[tuple[str, float]] = []
        self.certificates: list[Certificate] = []
        self.renewal = Renewal(
            self.authority, self._deliver, LIFE, clock=self.time.clock, sleep=self.time.sleep
        )

    def _deliver(self, node: str, certificate: Certificate) -> None:
        self.delivered.append((node, self.time.now))
        self.certificates.append(certificate)

    def times(self, node: str) -> list[float]:
        return [at for name, at in self.delivered if name == node]


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    one = Stage()
    async with one.renewal:
        yield one


async def test_a_new_node_gets_its_certificate_at_once() -> None:
    async with stage() as on:
        certificate = await on.renewal.ensure("jede-1", identity("jede"))
        assert certificate.spiffe_id == identity("jede")
        assert on.delivered == [("jede-1", START)]
        # Asking again costs nothing.
        assert await on.renewal.ensure("jede-1", identity("jede")) is certificate
        assert len(on.authority.issued) == 1


async def test_it_is_renewed_at_a_third_of_its_life() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        await on.time.pass_by(LIFE, step=10)
        times = on.times("jede-1")
        assert len(times) in (4, 5)  # the first, and one per third
        for earlier, later in pairwise(times):
            assert LIFE / 3 * 0.9 <= later - earlier <= LIFE / 3 + 2 * LOOK_EVERY_S


async def test_nodes_of_one_moment_are_spread_the_same_way_every_time() -> None:
    spreads = []
    for _ in range(2):
        async with stage() as on:
            names = [f"m{number}-1" for number in range(14)]
            await asyncio.gather(*(on.renewal.ensure(name, identity("m")) for name in names))
            spreads.append({each.node: each.renew_at - START for each in on.renewal.standing()})
    assert spreads[0] == spreads[1]
    assert len({round(at) for at in spreads[0].values()}) >= 13
    assert all(LIFE / 3 * 0.9 <= at <= LIFE / 3 for at in spreads[0].values())


async def test_it_waits_longer_each_time_while_the_authority_is_down_and_then_goes_on() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        on.authority.down = "OpenBao is sealed."
        tried = 0
        real = on.authority.issue

        async def counted(spiffe_id: str, life_s: float) -> Certificate:
            nonlocal tried
            tried += 1
            return await real(spiffe_id, life_s)

        on.authority.issue = counted  # type: ignore[method-assign]
        await on.time.pass_by(LIFE / 3 + 600, step=5)
        assert on.times("jede-1") == [START]
        assert 12 <= tried <= 125
        (standing,) = on.renewal.standing()
        assert "sealed" in standing.error
        assert not standing.late
        await on.time.pass_by(LIFE / 2, step=10)
        (standing,) = on.renewal.standing()
        assert standing.late
        assert not standing.expired
        on.authority.down = ""
        await on.time.pass_by(61, step=1)
        (standing,) = on.renewal.standing()
        assert standing.error == ""
        assert not standing.late
        assert len(on.times("jede-1")) == 2


async def test_a_node_whose_first_certificate_failed_is_tried_again() -> None:
    async with stage() as on:
        on.authority.down = "OpenBao does not answer."
        with pytest.raises(PartError):
            await on.renewal.ensure("jede-1", identity("jede"))
        (standing,) = on.renewal.standing()
        assert standing.expired
        on.authority.down = ""
        await on.time.pass_by(3, step=0.1)
        assert len(on.times("jede-1")) == 1


async def test_after_sleep_it_renews_within_a_look_and_at_once_when_woken() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        await settled()
        assert on.time.longest <= LOOK_EVERY_S
        on.time.now += LIFE / 2  # the machine slept: no sleep of ours has moved
        await settled()
        assert len(on.delivered) == 1
        on.renewal.wake()
        await settled()
        assert len(on.delivered) == 2
        on.time.now += LIFE / 2
        await on.time.pass_by(LOOK_EVERY_S)
        assert len(on.delivered) == 3


async def test_after_sleep_the_soonest_to_end_is_first() -> None:
    async with stage() as on:
        await on.renewal.ensure("b-1", identity("b"))
        await on.time.pass_by(3600)
        await on.renewal.ensure("a-1", identity("a"))
        on.delivered.clear()
        on.time.now += LIFE
        on.renewal.wake()
        await settled()
        assert [node for node, _ in on.delivered] == ["b-1", "a-1"]


async def test_a_clock_that_goes_back_renews_what_is_not_yet_valid() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        await settled()
        on.time.now -= 7200
        on.renewal.wake()
        await settled()
        assert len(on.delivered) == 2
        # And a pause that was set before the clock went back does not last till then.
        on.authority.down = "down"
        on.time.now += LIFE
        on.renewal.wake()
        await settled()
        on.time.now -= LIFE - 3600
        on.authority.down = ""
        on.time.now += LIFE / 2
        await on.time.pass_by(LOOK_EVERY_S)
        assert len(on.delivered) == 3


async def test_a_shorter_declared_life_takes_effect_at_once_and_a_longer_one_when_it_is_due() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        await settled()
        on.renewal.set_life(3600)
        await settled()
        assert len(on.delivered) == 2
        (standing,) = on.renewal.standing()
        assert standing.not_after == START + 3600
        assert standing.renew_at <= START + 1200
        on.renewal.set_life(7200)
        await settled()
        assert len(on.delivered) == 2
        await on.time.pass_by(1200)
        assert len(on.delivered) == 3


async def test_a_removed_node_gets_nothing_more() -> None:
    async with stage() as on:
        await on.renewal.ensure("jede-1", identity("jede"))
        on.renewal.remove("jede-1")
        await on.time.pass_by(LIFE, step=600)
        assert len(on.delivered) == 1
        assert on.renewal.standing() == ()


async def test_a_node_removed_while_the_authority_works_gets_nothing() -> None:
    async with stage() as on:
        go = asyncio.Event()
        real = on.authority.issue

        async def slow(spiffe_id: str, life_s: float) -> Certificate:
            await go.wait()
            return await real(spiffe_id, life_s)

        on.authority.issue = slow  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(on.renewal.ensure("jede-1", identity("jede")))
            await settled()
            on.renewal.remove("jede-1")
            go.set()
        assert on.delivered == []


async def test_two_at_once_for_one_node_issue_once() -> None:
    async with stage() as on:
        first, second = await asyncio.gather(
            on.renewal.ensure("jede-1", identity("jede")), on.renewal.ensure("jede-1", identity("jede"))
        )
        assert first is second
        assert len(on.authority.issued) == 1


async def test_another_identity_for_a_node_replaces_the_first() -> None:
    async with stage() as on:
        await on.renewal.ensure("gateway", identity("gateway"))
        certificate = await on.renewal.ensure("gateway", identity("cam"))
        assert certificate.spiffe_id == identity("cam")
        assert len(on.renewal.standing()) == 1


async def test_leaving_ends_the_loop_and_keeps_the_bodys_own_error() -> None:
    one = Stage()

    async def live() -> None:
        async with one.renewal:
            await one.renewal.ensure("jede-1", identity("jede"))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await live()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_cancellation_goes_through() -> None:
    one = Stage()

    async def live() -> None:
        async with one.renewal:
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(live())
        await settled()
        task.cancel()
    assert task.cancelled()
    assert len(asyncio.all_tasks()) == 1


# --- another root ---


async def test_everybody_trusts_what_the_authority_says_now_with_the_certificate_that_they_have() -> None:
    async with stage() as on:
        held = [await on.renewal.ensure(f"{name}-1", identity(name)) for name in ("cam", "jede")]
        on.authority.reroot()
        on.certificates.clear()
        await on.renewal.trust()
        assert [each.chain for each in on.certificates] == [each.chain for each in held]
        roots = await on.authority.roots()
        assert {each.roots for each in on.certificates} == {roots}
        assert len(on.authority.issued) == 2, "nobody got another one"
        on.certificates.clear()
        await on.renewal.trust()
        assert on.certificates == [], "they know it"


async def test_everybody_gets_another_certificate_at_once_or_is_named() -> None:
    async with stage() as on:
        held = [await on.renewal.ensure(f"{name}-1", identity(name)) for name in ("cam", "jede")]
        on.authority.reroot()
        assert await on.renewal.reissue() == {}
        new = on.certificates[-2:]
        assert {each.spiffe_id for each in new} == {each.spiffe_id for each in held}
        assert not {each.chain for each in new} & {each.chain for each in held}
        on.authority.down = "It is sealed."
        assert await on.renewal.reissue() == dict.fromkeys(("cam-1", "jede-1"), "It is sealed.")
        # They have what they had, and are tried again.
        on.authority.down = ""
        count = len(on.authority.issued)
        await on.time.pass_by(120)
        assert len(on.authority.issued) == count + 2


async def test_a_certificate_that_is_on_its_way_gets_the_roots_of_now() -> None:
    """It read the roots before there was another one, and comes after everybody was told."""
    async with stage() as on:
        read, go_on = asyncio.Event(), asyncio.Event()
        issue = on.authority.issue

        async def slow(spiffe_id: str, life_s: float) -> Certificate:
            made = await issue(spiffe_id, life_s)
            read.set()
            await go_on.wait()
            return made

        on.authority.issue = slow  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(on.renewal.ensure("cam-1", identity("cam")))
            await read.wait()
            on.authority.reroot()
            telling = tasks.create_task(on.renewal.trust())
            await settled()
            assert not telling.done()
            go_on.set()
        assert on.certificates[-1].roots == await on.authority.roots()
