"""Secret objects of a revision go with the last pod that may need them, and not before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from idi.parts.clients.kubernetes import Kubernetes, Listing
from idi.parts.clients.kubernetes_watch import Event, Kind
from idi.parts.targets.kubernetes.target import KubernetesTarget
from idi.parts.targets.kubernetes.values import Around, Settings
from idi.parts.targets.recorded import document_of
from idi.world.types import InstanceId, RevisionSpec, Workload
from tests.support.targets import make_spec

pytestmark = [pytest.mark.requirement("S1", "S2"), pytest.mark.asyncio]


def revision(number: int) -> RevisionSpec:
    return make_spec(
        revision=f"0000000{number}",
        environment={"WORD": "${secret.jede/word}"},
        secrets={"jede/word": number},
        workload=Workload(image="i"),
    )


class Stage:
    """A cluster of which only its Secrets matter."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.target = KubernetesTarget(
            api=cast(Kubernetes, self),
            namespace="shop",
            releases=cast(Any, self),
            around=lambda *_: Around(Settings("shop", "staging", "shop", "s")),
            emit=lambda _: None,
            retire=cast(Any, None),
            supply=self.supply,
            answers=cast(Any, None),
        )

    async def supply(self, spec: RevisionSpec, paths: Any) -> dict[str, bytes]:
        return {path: b"%d" % spec.secrets[path] for path in paths}

    async def find(self, _path: str) -> None: ...

    async def make_way(self, module: str) -> None: ...

    async def put(self, module: str, values: Mapping[str, Any]) -> None: ...

    async def apply(self, path: str, document: dict[str, Any], *, force: bool) -> None:
        self.secrets[path] = document

    async def listing(self, _path: str, *, labels: str) -> Listing:
        return Listing(list(self.secrets.values()), "1")

    async def delete(self, path: str) -> None:
        del self.secrets[path]

    @property
    def versions(self) -> list[str]:
        return sorted(one["metadata"]["labels"]["idi.dev/revision"][-1] for one in self.secrets.values())

    def pod(self, spec: RevisionSpec, name: str, kind: Kind = Kind.ADDED) -> None:
        labels = {"idi.dev/module": "jede", "idi.dev/revision": spec.revision}
        document = {
            "metadata": {
                "name": name,
                "uid": name,
                "labels": labels,
                "annotations": {"idi.dev/spec": json.dumps(document_of(spec))},
            },
            "spec": {"serviceAccountName": "idi-jede"},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        }
        self.target.instances.heard(Event(kind, document))

    def ready(self, name: str) -> None:
        self.target.sidecar_ready(InstanceId(name), True)
        self.target.instances.report(InstanceId(name), True, "")


async def test_a_former_revisions_secrets_go_with_its_last_pod() -> None:
    stage = Stage()
    one, two, three = revision(1), revision(2), revision(3)
    async with stage.target:
        await stage.target.ensure(one, 1)
        stage.pod(one, "a")
        stage.ready("a")
        await stage.target.ensure(two, 1)
        stage.pod(two, "b")
        await asyncio.sleep(0)
        assert stage.versions == ["1", "2"]
        # The former one may have to start again as long as no other is ready.
        stage.pod(one, "a", Kind.DELETED)
        await asyncio.sleep(0)
        assert stage.versions == ["1", "2"]
        stage.pod(one, "c")
        stage.ready("b")
        await asyncio.sleep(0)
        assert stage.versions == ["1", "2"]
        stage.pod(one, "c", Kind.DELETED)
        await asyncio.sleep(0)
        assert stage.versions == ["2"]
        # Back to one that is gone, and on to another before its last pod is.
        await stage.target.ensure(one, 1)
        await stage.target.ensure(three, 1)
        stage.pod(three, "d")
        stage.ready("d")
        stage.pod(two, "b", Kind.DELETED)
        await asyncio.sleep(0)
        assert stage.versions == ["3"]
