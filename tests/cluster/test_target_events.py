"""What the target makes of events that come late, on a real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_watch import Event, Watch
from idi.parts.targets.kubernetes import target as module
from idi.parts.targets.kubernetes.pods import MODULE, SPEC
from idi.parts.targets.kubernetes.target import KubernetesTarget
from idi.parts.targets.kubernetes.values import Around, Settings
from idi.parts.targets.recorded import document_of
from idi.world.types import RevisionSpec, Workload
from tests.support.cluster.access import access
from tests.support.cluster.client import Client
from tests.support.cluster.objects import Namespace
from tests.support.targets import JEDE, Told, make_spec

pytestmark = pytest.mark.requirement("K1")

LATE_S = 0.5


class Late(Watch):
    """Each event a while after it happened, as on a busy machine."""

    async def events(self) -> AsyncGenerator[Event, None]:
        async for event in super().events():
            await asyncio.sleep(LATE_S)
            yield event


class Deployments:
    """A release that is a Deployment, of no pods."""

    def __init__(self, api: Kubernetes, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def path(self, name: str) -> str:
        return path("apps/v1", "deployments", self.namespace, name)

    async def make_way(self, module: str) -> None: ...

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        labels = {MODULE: module}
        template = {
            "metadata": {"labels": labels, "annotations": {SPEC: values["slots"]["stable"]["spec"]}},
            "spec": {"containers": [{"name": "module", "image": "none"}]},
        }
        spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
        about = {"name": module, "namespace": self.namespace, "labels": labels}
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": spec}
        await self.api.apply(self.path(module), document, force=True)

    async def render(self, module: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return []

    async def drop(self, module: str) -> None:
        await self.api.delete(self.path(module))


@pytest.fixture
async def api(kube: Client, tmp_path: Path) -> AsyncIterator[Kubernetes]:
    async with Kubernetes(access(kube.kubeconfig, tmp_path)) as client:
        yield client


def spec() -> RevisionSpec:
    return make_spec(module="jede", workload=Workload("none", cpu_millicores=10, memory_bytes=1 << 20))


async def test_what_is_told_late_of_a_removed_module_makes_no_ghost_of_it(
    api: Kubernetes, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Watch", Late)
    told = Told()
    releases = Deployments(api, namespace.name)

    async def nothing(*_: Any) -> Any:
        return {}

    async with KubernetesTarget(
        api=api,
        namespace=namespace.name,
        releases=releases,
        around=lambda *_: Around(Settings("shop", "staging", namespace.name, "none")),
        emit=told.emit,
        retire=nothing,
        supply=nothing,
        answers=nothing,
    ) as target:
        await target.adopt()
        its = spec()
        await target.ensure(its, 0)
        assert told.world.modules[JEDE].revisions.keys() == {its.revision}
        await target.remove(its.module, its.revision)
        assert not told.world.modules
        await asyncio.sleep(6 * LATE_S)
        assert not told.world.modules, told.events

        # One that somebody else made is heard of, and counts.
        values = {"slots": {"stable": {"spec": json.dumps(document_of(its))}}}
        await releases.put("jede", values)
        async with asyncio.timeout(20):
            while JEDE not in told.world.modules:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
