"""Which releases a control that was killed had been at work on, and when they are put right."""

from __future__ import annotations

import pytest

from idi.control.actors import CONTROL
from idi.control.cluster.releases import ModuleReleases, at_work_on
from idi.ledger.changes import OpenChange
from idi.parts.clients.helm_errors import HelmError
from idi.parts.store.interface import Step
from idi.parts.store.memory import MemoryStore

pytestmark = pytest.mark.requirement("C1", "S5")


class Recorder:
    """Helm as far as a release asks for it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.away = False

    async def recover(self, release: str, namespace: str) -> str:
        if self.away:
            raise HelmError("The API server cannot be reached.", retryable=True, kind="unreachable")
        self.done.append(f"recover {namespace}/{release}")
        return "it is put right"

    async def make_way(self, release: str, namespace: str) -> None:
        self.done.append(f"look at {namespace}/{release}")

    async def upgrade(
        self, release: str, chart: object, namespace: str, values: object, *, way_made: bool
    ) -> None:
        assert way_made
        self.done.append(f"upgrade {namespace}/{release}")


def releases(helm: Recorder, *abandoned: str) -> ModuleReleases:
    return ModuleReleases(helm, "shop-dev", {*abandoned})  # type: ignore[arg-type]


async def left(*steps: tuple[str, str, bool | None]) -> list[OpenChange]:
    """A journal whose last change was cut off: (action, subject, outcome) of each step."""
    store = MemoryStore()
    change = await store.begin(CONTROL, "up", {})
    for action, subject, ok in steps:
        [step] = await store.intend(change, [Step(action, subject)])
        if ok is not None:
            await store.outcome(step, ok, {})
    return await store.unfinished()


async def test_those_without_an_outcome_were_worked_on() -> None:
    steps = [
        ("start-part", "gateway", True),
        ("ensure", "cam", True),
        ("ensure", "dere", False),
        ("ensure", "jede", None),
        ("remove", "sfl", None),
        ("start-part", "openbao", None),
    ]
    assert at_work_on(await left(*steps)) == {"jede", "sfl"}
    assert at_work_on([]) == set()


async def test_they_are_put_right_once_and_no_other() -> None:
    helm = Recorder()
    made = releases(helm, "jede", "cam")
    await made.recover()
    assert sorted(helm.done) == ["recover shop-dev/cam", "recover shop-dev/jede"]
    await made.recover()
    await made.make_way("jede")
    await made.put("jede", {})
    assert helm.done[2:] == ["look at shop-dev/jede", "upgrade shop-dev/jede"]


async def test_what_could_not_be_put_right_is_before_its_next_change() -> None:
    helm = Recorder()
    helm.away = True
    made = releases(helm, "jede")
    await made.recover()
    with pytest.raises(HelmError):
        await made.make_way("jede")
    helm.away = False
    for name in ("cam", "jede"):
        await made.make_way(name)
        await made.put(name, {})
    assert helm.done == [
        *("look at shop-dev/cam", "upgrade shop-dev/cam"),
        *("recover shop-dev/jede", "look at shop-dev/jede", "upgrade shop-dev/jede"),
    ]
