"""Which keys are asked for, and how a rotation stands in the journal and in its progress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from idi.control.change.changes import Change
from idi.control.change.wanted import Wanted
from idi.control.trust.rotation import KEYS, Asked, Opened, Rotation, asked, listed
from idi.ledger.entry import Actor
from idi.parts.errors import PartError, Refused
from idi.parts.gateway.interface import BarrierResult
from idi.parts.store.memory import MemoryStore

pytestmark = pytest.mark.requirement("S2")
ACTOR = Actor("peer", "ada", uid=1000, pid=7)
NOBODY: Any = None
"""Logins are a change of what runs."""
ISSUER = "https://issuer.example"


@pytest.mark.parametrize(
    ("keys", "now", "external", "wanted"),
    [
        (["all"], False, "", KEYS),
        (["tokens", "seal"], False, "", ("seal", "tokens")),
        (["tokens"], True, "", ("tokens",)),
        (["all"], False, ISSUER, ("seal", "recovery", "control", "certificates", "bus")),
    ],
)
def test_what_is_wanted(keys: list[str], now: bool, external: str, wanted: tuple[str, ...]) -> None:
    assert asked(keys, now, external, True) == Asked(wanted, now)


@pytest.mark.parametrize(
    ("keys", "now", "external", "words"),
    [
        (["seel"], False, "", "No key is called 'seel'"),
        ([], False, "", "No key was named"),
        (["seal"], True, "", "Only tokens"),
        (["all"], True, "", "Only tokens"),
        (["tokens"], False, ISSUER, f"come from {ISSUER}"),
        (["bus"], False, "", "there is no bus"),
    ],
)
def test_what_is_refused(keys: list[str], now: bool, external: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        asked(keys, now, external, False)


def test_many_names_are_not_all_listed() -> None:
    assert listed("fedcba") == "a, b, c, d, e and 1 more"


class Parts:
    """Everything whose keys rotate; `done` is what was done, `fails` names what does not work."""

    def __init__(self, fails: str = "", lost: tuple[str, ...] = (), given: bool = False) -> None:
        self.next_is_anothers = given
        self.done: list[str] = []
        self.fails = fails
        self.lost = lost
        self.renewal: Any = self
        self.waiting_until = 0.0

    def _work(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            self._note(name)

        return work

    def _note(self, name: str) -> None:
        if name == self.fails:
            raise PartError("It does not answer.", "Wait for it.")
        self.done.append(name)

    def __getattr__(self, name: str) -> Any:
        if name in ("make", "check"):
            return lambda: self._note(name)
        return self._work(name)

    def take(self) -> str:
        self._note("take")
        return "former.key"

    async def reissue(self) -> dict[str, str]:
        self._note("reissue")
        return {"cam-1": "It is sealed."} if self.fails == "cam-1" else {}

    async def barrier(self, _timeout_s: float) -> BarrierResult:
        return BarrierResult((), self.lost, ())

    def connected(self) -> dict[str, bool]:
        return {node: True for node in self.lost if node.startswith("slow")}

    def rotate(self) -> float:
        self._note("rotate")
        return 1.0

    def replace(self) -> None:
        self._note("replace")

    @asynccontextmanager
    async def rotating(self) -> AsyncIterator[Opened]:
        self._note("open")
        yield Opened(
            self, self, self._work("settle"), self._work("recovery"), self._work("own")  # type: ignore[arg-type]
        )  # fmt: skip


async def run(parts: Parts, *keys: str, now: bool = False) -> tuple[Change, MemoryStore]:
    store, change = MemoryStore(), Change("keys")
    await Rotation(store, parts, parts, parts, NOBODY).run(change, ACTOR, Asked(keys, now))
    return change, store


async def test_everything_in_its_order() -> None:
    parts = Parts()
    change, store = await run(parts, *KEYS[:-1])
    assert [each for each in parts.done if each not in ("open", "settle", "check")] == [
        "make", "rewrap", "prove", "take",
        "recovery", "own",
        "add", "trust", "switch", "reissue", "forget", "trust",
        "rotate",
    ]  # fmt: skip
    assert not change.ended, "more may follow"
    entries = (await store.entries(limit=100))[1:]  # the first is the log's own
    assert {entry.actor.name for entry in entries} == {"ada"}
    assert entries[0].subject == " ".join(KEYS[:-1])
    assert await store.unfinished() == []


async def test_a_seal_key_that_is_given_is_left_alone() -> None:
    parts = Parts(given=True)
    with pytest.raises(Refused, match="Secret of yours"):
        await run(parts, "seal")
    assert "make" not in parts.done
    change, _ = await run(parts, *KEYS[:-1])
    assert "make" not in parts.done
    assert parts.done[-1] == "rotate"
    assert any("stays as it is" in str(item) for item in change.items)


async def test_what_fails_ends_it_there_and_stands_in_the_journal() -> None:
    parts = Parts(fails="switch")
    change, store = await run(parts, "certificates")
    assert parts.done[-1] == "trust"
    assert change.items[-1]["ok"] is False
    assert "run it again to complete it" in change.items[-1]["way_out"]
    assert "Wait for it." in change.items[-1]["way_out"]
    assert await store.unfinished() == []
    assert any(entry.ok is False for entry in await store.entries(limit=100))


async def test_the_former_root_stays_while_somebody_has_no_new_certificate() -> None:
    parts = Parts(fails="cam-1")
    change, _ = await run(parts, "certificates")
    assert "forget" not in parts.done
    assert "cam-1 got no certificate of the new root: cam-1: It is sealed." in change.items[-1]["reason"]


async def test_who_gives_no_answer_is_named() -> None:
    change, _ = await run(Parts(lost=("cam-2",)), "certificates")
    told = [item["text"] for item in change.items if item["type"] == "message"]
    assert told == ["No word from cam-2: counted as lost, and told when it is back."] * 3


@pytest.mark.parametrize("fails", ["open", "settle", "check"])
async def test_what_cannot_be_begun_is_not(fails: str) -> None:
    store, parts = MemoryStore(), Parts(fails=fails)
    rotation = Rotation(store, parts, parts, parts, NOBODY)
    with pytest.raises(PartError):
        await rotation.run(Change("keys"), ACTOR, Asked(KEYS[:-1]))
    assert len(await store.entries(limit=10)) == 1, "the log's own"


async def test_other_logins_are_for_the_instances_to_follow() -> None:
    class Another:
        def another(self, wanted: Wanted) -> Wanted:
            return replace(wanted, file="another")

    parts, before = Parts(), Wanted(file="before")
    logins: Any = Another()
    rotation = Rotation(MemoryStore(), parts, parts, parts, logins)
    change = Change("keys")
    after = await rotation.apply(change, ACTOR, Asked(("bus",)), before)
    assert after is not None
    assert after.file == "another"
    assert (change.items, parts.done) == ([], [])
    after = await rotation.apply(change, ACTOR, Asked(("tokens", "bus")), before)
    assert after is not None
    assert (after.file, parts.done, change.ended) == ("another", ["rotate"], False)
    assert await rotation.apply(change, ACTOR, Asked(("tokens",)), before) is None
    assert change.items[-1] == {"type": "done", "ok": True}
    parts.fails = "add"
    broken = Change("keys")
    assert await rotation.apply(broken, ACTOR, Asked(("certificates", "bus")), before) is None
    assert broken.items[-1]["ok"] is False


async def test_tokens_ask_openbao_nothing() -> None:
    parts = Parts(fails="open")
    parts.waiting_until = 5.0  # one is published already
    await run(parts, "tokens")
    assert parts.done == []
    await run(parts, "tokens", now=True)
    assert parts.done == ["replace"]
