"""Logs of pods out of an API that is played: order, restarts, broken connections, bounds, and what is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from idi.parts.clients.kubernetes import KubernetesError, Listing
from idi.parts.clients.kubernetes_watch import Event, Kind
from idi.parts.errors import PartError, Refused
from idi.parts.targets.kubernetes import output as module
from idi.parts.targets.kubernetes.containers import Life, life_of, sources_of
from idi.parts.targets.kubernetes.output import Asked, Beat, Item, Live, Note, Output, parted, seconds_of
from idi.parts.targets.local.output import Logs
from idi.parts.targets.printed import LogLine

pytestmark = pytest.mark.requirement("O2", "K1")

AT = "2026-11-27T12:00:"
START = seconds_of(f"{AT}00Z")


def pod(
    name: str, module: str = "", part: str = "", *, id: str = "one", state: str = "running", before: str = ""
) -> dict[str, Any]:
    label = {"idi.dev/module": module} if module else {"idi.dev/part": part}
    status = {
        "name": "module" if module else part,
        "containerID": id,
        "state": {state: {}},
        "lastState": {"terminated": {"containerID": before}} if before else {},
    }
    return {
        "metadata": {"name": name, "labels": label},
        "spec": {"serviceAccountName": f"idi-{module or part}", "containers": [{"name": part or "module"}]},
        "status": {"containerStatuses": [status]},
    }


@dataclass
class Played:
    """What each container (or its predecessor: `NAME-before`) has printed, and what it prints next."""

    pods: list[dict[str, Any]]
    kept: dict[str, list[str]] = field(default_factory=dict)
    failing: dict[str, PartError] = field(default_factory=dict)
    next: dict[str, asyncio.Queue[str | None]] = field(default_factory=dict)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    asked: list[tuple[str, int, str]] = field(default_factory=list)
    open: int = 0

    async def listing(self, path: str) -> Listing:
        assert path == "/api/v1/namespaces/shop-staging/pods"
        return Listing(self.pods, "1")

    async def follow(
        self,
        pod: str,
        container: str,
        *,
        namespace: str,
        tail: int,
        timestamps: bool,
        since: str,
        previous: bool,
        ends: bool,
    ) -> AsyncGenerator[str, None]:
        assert timestamps
        assert namespace == "shop-staging"
        name = pod if container == "module" else f"{pod}.{container}"
        self.asked.append((name, tail, since))
        self.open += 1
        try:
            if name in self.failing:
                raise self.failing[name]
            for line in self.kept.get(f"{name}-before" if previous else name, [])[-tail:]:
                yield line
            coming = self.next.setdefault(name, asyncio.Queue())
            while not ends and (line_or_end := await coming.get()) is not None:
                yield line_or_end
        finally:
            self.open -= 1


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    found = Played([pod("jede-a", "jede"), pod("jede-b", "jede"), pod("cam-a", "cam")])

    class Watched:
        def __init__(self, api: Played, path: str) -> None:
            self.api = api

        async def __aiter__(self) -> AsyncIterator[Event]:
            while True:
                yield await self.api.events.get()

    monkeypatch.setattr(module, "Watch", Watched)
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    monkeypatch.setattr(module, "WINDOW_S", 0.05)
    return found


def output(played: Played, folder: Path) -> Output:
    return Output(played, "shop-staging", Logs(folder))  # type: ignore[arg-type]


async def every(output: Output, asked: Asked) -> list[Item]:
    return [item async for item in await output.read(asked)]


def lines(items: list[Item]) -> list[str]:
    return [f"{item.source} {item.line}" for item in items if isinstance(item, LogLine)]


async def take(items: AsyncGenerator[Item], count: int) -> list[Item]:
    found: list[Item] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            item = await anext(items)
            if not isinstance(item, Beat):
                found.append(item)
    return found


async def test_what_is_there_is_merged_by_time(played: Played, tmp_path: Path) -> None:
    played.kept = {
        "jede-a": [f"{AT}01Z one", f"{AT}03.5Z four"],
        "jede-b": [f"{AT}02.000000001Z two", f"{AT}09Z six"],
        "cam-a": [f"{AT}02.9Z three", f"{AT}04Z five"],
    }
    found = lines(await every(output(played, tmp_path), Asked()))
    assert [line.split()[1] for line in found] == ["one", "two", "three", "four", "five", "six"]
    assert found[0] == "jede-a one"
    assert played.open == 0
    since = await every(output(played, tmp_path), Asked(since=START + 2.5))
    assert [line.split()[1] for line in lines(since)] == ["three", "four", "five", "six"]
    assert played.asked[-1][2] == f"{AT}02Z"  # the API knows whole seconds


async def test_sources_go_by_their_name_and_by_what_they_are_one_of(played: Played, tmp_path: Path) -> None:
    played.pods += [pod("gateway-x", part="gateway"), pod("control-0", part="control")]
    names = ["jede-a", "jede-b", "cam-a", "jede-a.sidecar", "gateway-x.gateway", "control-0.control"]
    played.kept = {name: [f"{AT}01Z {name}"] for name in names}
    for one in played.pods[:3]:
        sidecar = {"name": "sidecar", "containerID": "s", "state": {"running": {}}}
        one["status"]["initContainerStatuses"] = [sidecar]
    (tmp_path / "openbao.log").write_text("unsealed\n")

    async def of(*names: str) -> set[str]:
        return {
            line.split()[0] for line in lines(await every(output(played, tmp_path), Asked(frozenset(names))))
        }

    assert await of() == {"jede-a", "jede-b", "cam-a"}
    assert await of("jede") == {"jede-a", "jede-b"}
    assert await of("jede-b", "control") == {"jede-b", "control"}
    assert await of("jede.sidecar") == {"jede-a.sidecar"}
    assert await of("gateway") == {"gateway-x"}
    assert await of("openbao") == {"openbao"}


async def test_a_pod_that_only_says_whose_it_is_is_nobodys() -> None:
    stranger = pod("jede-c", "jede")
    stranger["spec"]["serviceAccountName"] = "default"
    assert list(sources_of(stranger)) == []


def test_of_which_life_of_a_container_there_is_output() -> None:
    assert life_of(pod("a", "jede"), "module") == Life("one", running=True, before=False)
    assert life_of(pod("a", "jede", id="two", before="one"), "module") == Life(
        "two", running=True, before=True
    )
    waits = pod("a", "jede", id="", state="waiting", before="one")
    assert life_of(waits, "module") == Life("one", running=False, before=False)
    assert life_of(pod("a", "jede", state="waiting"), "module") == Life("", running=False, before=False)
    assert life_of(pod("a", "jede"), "sidecar") == Life("", running=False, before=False)


async def test_what_was_printed_before_a_crash_comes_first(played: Played, tmp_path: Path) -> None:
    played.pods = [pod("jede-a", "jede", id="two", before="one")]
    played.kept = {"jede-a-before": [f"{AT}01Z dying"], "jede-a": [f"{AT}02Z born"]}
    assert lines(await every(output(played, tmp_path), Asked())) == ["jede-a dying", "jede-a born"]


async def test_what_cannot_be_had_is_said_and_the_rest_is_shown(
    played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_LINES", 2)
    played.kept = {"cam-a": [f"{AT}0{n}Z {n}" for n in range(4)]}
    played.failing = {
        "jede-a": PartError("Its node does not answer."),
        "jede-b": KubernetesError("waiting to start", status=400),
    }
    found = await every(output(played, tmp_path), Asked())
    assert lines(found) == ["cam-a 2", "cam-a 3"]
    assert {(note.source, note.text) for note in found if isinstance(note, Note)} == {
        ("jede-a", "its log cannot be had: Its node does not answer."),
        ("cam-a", "only its last 2 lines are shown"),
    }
    asked = await every(output(played, tmp_path), Asked(frozenset({"cam"}), tail=1))
    assert lines(asked) == ["cam-a 3"]
    assert not any(isinstance(item, Note) for item in asked)


async def test_it_is_bounded(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SOURCES", 2)
    monkeypatch.setattr(module, "READERS", 1)
    reader = output(played, tmp_path)
    with pytest.raises(Refused, match="3 containers, more than 2"):
        await reader.read(Asked())
    async with aclosing(await reader.read(Asked(frozenset({"jede"}), follow=True))) as items:
        assert isinstance((await take(items, 1))[0], Live)
        with pytest.raises(Refused, match="1 others"):
            await reader.read(Asked(frozenset({"cam"})))
    assert await every(reader, Asked(frozenset({"cam"}))) == []


async def test_following_goes_on_where_that_ended_through_restarts_and_brings_new_pods(
    played: Played, tmp_path: Path
) -> None:
    played.kept = {"jede-a": [f"{AT}01Z one"]}
    async with aclosing(
        await output(played, tmp_path).read(Asked(frozenset({"jede"}), follow=True))
    ) as items:
        assert lines(await take(items, 2)) == ["jede-a one"]
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(take(items, 2))
            await asyncio.sleep(0.05)
            played.next["jede-b"].put_nowait(f"{AT}03Z three")
            played.next["jede-a"].put_nowait(f"{AT}02Z two")
        assert lines(waiting.result()) == ["jede-a two", "jede-b three"]  # within a moment: in order of time

        played.kept["jede-a"] += [f"{AT}02Z two"]
        played.next["jede-a"].put_nowait(None)  # the connection ends while the container goes on
        played.next["jede-a"].put_nowait(f"{AT}04Z four")
        assert lines(await take(items, 1)) == ["jede-a four"]  # and what is known is not told again

        played.kept["jede-a"] = [f"{AT}05Z five"]
        again = pod("jede-a", "jede", id="two", before="one")
        played.events.put_nowait(Event(Kind.MODIFIED, again))
        played.next["jede-a"].put_nowait(None)
        assert lines(await take(items, 1)) == ["jede-a five"]

        played.kept["jede-new"] = [f"{AT}06Z hello"]
        played.events.put_nowait(Event(Kind.ADDED, pod("jede-new", "jede", state="waiting")))
        played.events.put_nowait(Event(Kind.ADDED, pod("cam-new", "cam")))
        played.events.put_nowait(Event(Kind.MODIFIED, pod("jede-new", "jede")))
        assert lines(await take(items, 1)) == ["jede-new hello"]
        played.events.put_nowait(Event(Kind.DELETED, pod("jede-new", "jede")))
    assert played.open == 0
    assert "cam-new" not in {name for name, _, _ in played.asked}


async def test_where_nothing_comes_there_is_a_beat(
    played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.05)
    async with aclosing(await output(played, tmp_path).read(Asked(follow=True))) as items:
        assert isinstance(await anext(items), Live)
        assert isinstance(await anext(items), Beat)


def test_times_are_as_kubernetes_writes_them() -> None:
    assert parted(f"{AT}01.25Z a  line ") == (START + 1.25, "a  line ")
    assert parted(f"{AT}01Z") == (START + 1, "")
    assert parted("nonsense") == (0.0, "")
