"""A proxy that loses its stream: what is taken for dead, and what is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from idi.parts.clients.kubernetes_watch import Event, Kind
from idi.parts.targets.kubernetes import target as module
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


@asynccontextmanager
async def served(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTarget]:
    """A target with one pod that has traffic."""
    monkeypatch.setattr(module, "ASK_AGAIN_S", 0.01)
    made = KubernetesTarget(
        api=None,  # type: ignore[arg-type]
        namespace="n",
        releases=None,  # type: ignore[arg-type]
        settings=nothing,
        emit=stage.emit,
        retire=nothing,
        supply=nothing,
        reach=nothing,
        scale=nothing,
        answers=stage.answers,
        reached=lambda: stage.anybody,
    )
    spec = make_spec(module="jede")
    document = {
        "metadata": {
            "name": POD,
            "uid": "1",
            "labels": {MODULE: "jede", REVISION: spec.revision},
            "annotations": {SPEC: json.dumps(document_of(spec))},
        },
        "spec": {"serviceAccountName": "idi-jede"},
        "status": {"podIP": "10.0.0.1"},
    }
    async with made:
        made._pod(Event(Kind.ADDED, document))
        made.report(POD, True, "")
        made.sidecar_ready(POD, True)
        assert stage.states[-1] == "ready"
        yield made


async def test_a_pod_that_answers_keeps_its_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with served(stage, monkeypatch) as made:
        made.sidecar_ready(POD, False)
        await asyncio.sleep(0.1)
        assert (stage.states[-1], stage.asked) == ("ready", 1)


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
        monkeypatch.setattr(module, "ASK_AGAIN_S", 0.05)
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
