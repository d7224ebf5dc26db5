"""A proxy that loses its stream, or never comes to a new control: what is taken for dead, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from idi.parts.clients.kubernetes_watch import Event, Kind
from idi.parts.targets.kubernetes import instances, silence
from idi.parts.targets.kubernetes.pods import MODULE, REVISION, SPEC
from idi.parts.targets.kubernetes.target import KubernetesTarget
from idi.parts.targets.recorded import document_of
from idi.world.events import InstanceSeen
from idi.world.types import InstanceId
from tests.support.targets import make_spec

pytestmark = pytest.mark.requirement("D1", "K1")

POD = InstanceId("jede-stable-1")


class Stage:
    def __init__(self) -> None:
        self.states: list[str] = []
        self.answering = True
        self.anybody = True
        self.asked = 0

    async def answers(self, address: str) -> bool:
        assert address == "10.0.0.1"
        self.asked += 1
        return self.answering

    def emit(self, event: object) -> None:
        if isinstance(event, InstanceSeen):
            self.states.append(event.instance.state)


def nothing(*_: Any, **__: Any) -> Any:
    raise AssertionError("is not asked for here")


def document(**status: Any) -> dict[str, Any]:
    spec = make_spec(module="jede")
    return {
        "metadata": {
            "name": POD,
            "uid": "1",
            "labels": {MODULE: "jede", REVISION: spec.revision},
            "annotations": {SPEC: json.dumps(document_of(spec))},
        },
        "spec": {"serviceAccountName": "idi-jede"},
        "status": {"podIP": "10.0.0.1", **status},
    }


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


@asynccontextmanager
async def target(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTarget]:
    for name, seconds in (("ASK_AGAIN_S", 0.01), ("ANSWERED_S", 0.05), ("COMES_S", 0.05)):
        monkeypatch.setattr(silence, name, seconds)
    monkeypatch.setattr(instances, "COMES_S", 0.05)
    async with KubernetesTarget(
        api=None,  # type: ignore[arg-type]
        namespace="n",
        releases=None,  # type: ignore[arg-type]
        around=nothing,
        emit=stage.emit,
        retire=nothing,
        supply=nothing,
        answers=stage.answers,
        reached=lambda: stage.anybody,
    ) as made:
        yield made


@asynccontextmanager
async def served(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTarget]:
    """A target with one pod that has traffic."""
    async with target(stage, monkeypatch) as made:
        made.instances.heard(Event(Kind.ADDED, document()))
        made.instances.report(POD, True, "")
        made.sidecar_ready(POD, True)
        assert stage.states[-1] == "ready"
        yield made


@asynccontextmanager
async def adopted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTarget]:
    """A target with one pod that had traffic before it."""
    async with target(stage, monkeypatch) as made:
        made.instances.heard(Event(Kind.ADDED, document(**READY)))
        assert stage.states == ["ready"]
        yield made


async def test_a_pod_that_answers_keeps_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.03)
        assert (stage.states[-1], stage.asked) == ("ready", 1)


async def test_one_that_answered_once_and_ends_unheard_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.03)
        stage.answering = False
        await asyncio.sleep(0.15)
        assert stage.states[-1] == "unready"


async def test_one_that_is_silent_too_loses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        stage.answering = False
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.1)
        assert (stage.states[-1], stage.asked) == ("unready", 2)
        made.sidecar_ready(POD, True)
        assert stage.states[-1] == "ready"


async def test_one_that_is_back_meanwhile_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        monkeypatch.setattr(silence, "ASK_AGAIN_S", 0.05)
        stage.answering = False
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.07)  # asked twice, and not judged yet
        assert stage.asked == 2
        made.sidecar_ready(POD, True)
        await asyncio.sleep(0.1)
        assert set(stage.states[2:]) <= {"ready"}
        assert stage.states[-1] == "ready"


async def test_while_nobody_has_a_stream_control_judges_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        stage.answering = stage.anybody = False
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.1)
        assert (stage.states[-1], stage.asked) == ("ready", 0)
        stage.anybody = True
        await asyncio.sleep(0.1)
        assert stage.states[-1] == "unready"


async def test_one_that_had_traffic_before_and_comes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with adopted(stage, monkeypatch) as made:
        made.instances.report(POD, True, "")
        made.sidecar_ready(POD, True)
        await asyncio.sleep(0.15)
        assert (stage.states[-1], stage.asked) == ("ready", 0)


async def test_one_that_had_traffic_before_and_never_comes_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its proxy may be slow, so whoever answers stays; who does not is out, and back when it comes."""
    stage = Stage()
    async with adopted(stage, monkeypatch) as made:
        await asyncio.sleep(0.02)
        assert stage.asked == 0, "it has a while to come"
        await asyncio.sleep(0.06)
        assert (stage.states[-1], stage.asked) == ("ready", 1)
        stage.answering = False
        await asyncio.sleep(0.15)
        assert stage.states[-1] == "unready"
        made.sidecar_ready(POD, True)
        assert stage.states[-1] == "ready"


async def test_one_that_is_gone_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with adopted(stage, monkeypatch) as made:
        made.instances.heard(Event(Kind.DELETED, document(**READY)))
        await asyncio.sleep(0.15)
        assert stage.asked == 0
