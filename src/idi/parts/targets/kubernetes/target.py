"""The Kubernetes target: a module is a Helm release, its pods are its instances.

`ensure` writes the release and returns: the Deployment brings the new pods in and the old ones out, kubelet restarts
what crashes, the autoscaler counts. What happens to the pods is heard from three sides (instances.py) and goes out as
facts at once; no plan is in that path. Nothing is kept here that the cluster does not know: `adopt` reads it anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes import Change, Cluster
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import PartError
from idi.parts.targets.interface import Emit, Retire, Supply
from idi.parts.targets.kubernetes.instances import Known
from idi.parts.targets.kubernetes.pods import MODULE, SPEC, pod_seen, shorten
from idi.parts.targets.kubernetes.values import Settings, release_values, secret_of
from idi.parts.targets.recorded import spec_of
from idi.parts.targets.references import needed
from idi.world.events import InstanceGone, InstanceSeen, RevisionDegraded, RevisionEnsured, RevisionRemoved
from idi.world.types import InstanceId, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

MOST_EARLY = 1000
SYNCED_S = 30.0
GONE_S = 60.0
"""Beyond their grace period: how long pods may take to end."""
REACH_AGAIN_S = 1.0


class Releases(Protocol):
    """The releases of modules, one each, named as the module."""

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        """Install or change it. Raises `PartError`; then it is as it was."""

    async def drop(self, module: str) -> None:
        """Uninstall it; volumes stay. Idempotent."""


class KubernetesTarget:
    """`reach` says whether the agent at an address answers: asked where a proxy lost its stream, which by itself is no
    death."""

    def __init__(
        self,
        *,
        api: Cluster,
        releases: Releases,
        settings: Settings,
        emit: Emit,
        retire: Retire,
        supply: Supply,
        reach: Callable[[str], Awaitable[bool]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._releases = releases
        self._settings = settings
        self._emit = emit
        self._retire = retire
        self._supply = supply
        self._reach = reach
        self._clock = clock
        self._owned = OwnedTasks()
        self._known: dict[InstanceId, Known] = {}
        self._revisions: dict[ModuleName, tuple[RevisionSpec, int]] = {}
        self._degraded: dict[ModuleName, str] = {}
        self._locks: dict[ModuleName, asyncio.Lock] = {}
        self._changed = asyncio.Event()
        self._synced = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._owned.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._owned.__aexit__(kind, error, trace)

    # --- what every target can do

    async def adopt(self) -> None:
        """Every release and every pod that is there, then whatever changes."""
        for deployment in await self._api.list(self._path("apps/v1", "deployments"), MODULE):
            self._deployed(deployment)
        self._owned.group.create_task(self._follow_pods())
        self._owned.group.create_task(self._follow_deployments())
        async with asyncio.timeout(SYNCED_S):
            await self._synced.wait()

    async def ensure(self, spec: RevisionSpec, count: int) -> None:
        async with self._locks.setdefault(spec.module, asyncio.Lock()):
            before = self._revisions.get(spec.module)
            texts = needed(spec).texts
            if texts:
                secrets = {path: value.decode() for path, value in (await self._supply(spec, texts)).items()}
                document = secret_of(self._settings, spec, secrets)
                await self._api.apply(
                    self._path("v1", "secrets") + f"/{document['metadata']['name']}", document
                )
            await self._releases.put(spec.module, release_values(self._settings, spec, count))
            self._holds(spec, count)
        if before is not None and before[0] == spec and before[1] > count:
            await self._fewer(spec, count)

    async def retry(self, module: ModuleName, revision: RevisionId) -> None:
        """Its Deployment replaces a pod that is gone at once, and one that waits only after a while."""
        failed = [
            name
            for name, one in self._known.items()
            if one.told
            and (one.told.module, one.told.revision, one.told.state) == (module, revision, "failed")
        ]
        for name in failed:
            await self._api.delete(self._path("v1", "pods") + f"/{name}")

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        known = self._revisions.get(module)
        if known is None or known[0].revision != revision:
            self._emit(RevisionRemoved(module, revision))
            return
        async with self._locks.setdefault(module, asyncio.Lock()):
            await self._releases.drop(module)
            await self._fewer(known[0], 0)
            self._revisions.pop(module, None)
            self._degraded.pop(module, None)
            self._emit(RevisionRemoved(module, revision))

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        known = self._of(instance)
        if known is None:
            return
        if ready:
            known.proxied = True
            self._judge(known)
        elif known.proxied:
            self._owned.group.create_task(self._ask_itself(instance, known))

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        try:
            path = self._path("v1", "pods") + f"/{instance}"
            return await self._api.logs(path, container="module", tail=count)
        except PartError as error:
            return [f"(its log cannot be had: {error.message})"]

    # --- what agents say

    def report(self, instance: InstanceId, ready: bool, reason: str) -> bool:
        """What the agent of a pod says of its module; whether the instance is ready with that."""
        known = self._of(instance)
        if known is None:
            return False
        known.reported = (ready, shorten(reason))
        self._judge(known)
        return known.told is not None and known.told.state == "ready"

    async def stopping(self, instance: InstanceId) -> None:
        """Its pod is about to end: return when no more traffic comes to it."""
        known = self._of(instance)
        if known is None:
            return
        known.stopping = True
        self._judge(known)
        if known.told is not None:
            await self._retire(known.told)

    # --- within

    def _path(self, group: str, kind: str) -> str:
        root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        return f"{root}/namespaces/{self._settings.namespace}/{kind}"

    def _of(self, instance: InstanceId) -> Known | None:
        """Agents and proxies may speak before the API server does; a bounded number of them is remembered."""
        if instance not in self._known and len(self._known) < MOST_EARLY + len(self._revisions) * 100:
            self._known[instance] = Known()
        return self._known.get(instance)

    async def _follow_pods(self) -> None:
        async for change in self._watch("v1", "pods"):
            if change.kind == "synced":
                self._synced.set()
                continue
            name = InstanceId(change.object["metadata"]["name"])
            seen = None if change.kind == "deleted" else pod_seen(change.object)
            if seen is None:
                self._gone(name)
            elif (known := self._of(name)) is not None:
                known.pod = seen
                self._judge(known)

    async def _follow_deployments(self) -> None:
        async for change in self._watch("apps/v1", "deployments"):
            if change.kind in ("added", "modified"):
                self._deployed(change.object)

    def _watch(self, group: str, kind: str) -> AsyncIterator[Change]:
        return self._api.watch(self._path(group, kind), MODULE)

    def _deployed(self, document: Mapping[str, Any]) -> None:
        template = document["spec"]["template"]["metadata"]
        try:
            spec = spec_of(json.loads(template.get("annotations", {})[SPEC]))
        except (KeyError, TypeError, ValueError):
            return  # none of ours
        if spec.module not in self._revisions:
            self._holds(spec, document["spec"].get("replicas", 1))
        why = next(
            (
                one.get("message", "")
                for one in document.get("status", {}).get("conditions", [])
                if one["type"] == "ReplicaFailure" and one["status"] == "True"
            ),
            "",
        )
        if why != self._degraded.get(spec.module, ""):
            self._degraded[spec.module] = why
            self._emit(RevisionDegraded(spec.module, spec.revision, shorten(why)))

    def _holds(self, spec: RevisionSpec, count: int) -> None:
        before = self._revisions.get(spec.module)
        self._revisions[spec.module] = (spec, count)
        self._emit(RevisionEnsured(spec, count))
        if before is not None and before[0].revision != spec.revision:
            self._emit(RevisionRemoved(spec.module, before[0].revision))

    def _judge(self, known: Known) -> None:
        now = known.judge(self._clock())
        if now is not None and now != known.told:
            known.told = now
            self._emit(InstanceSeen(now))
            self._wake()

    def _gone(self, name: InstanceId) -> None:
        known = self._known.pop(name, None)
        if known is not None and known.told is not None:
            self._emit(InstanceGone(known.told.module, name, self._clock()))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _fewer(self, spec: RevisionSpec, count: int) -> None:
        """Wait until so many are left of a module."""

        def left() -> int:
            return sum(one.told is not None and one.told.module == spec.module for one in self._known.values())

        try:
            async with asyncio.timeout(spec.grace_s + GONE_S):
                while left() > count:
                    await self._changed.wait()
        except TimeoutError:
            raise PartError(
                f"{spec.module} has {left()} pods still, {spec.grace_s + GONE_S:g} s after {count} were asked for.",
                "kubectl describe pod says what they wait for.",
            ) from None

    async def _ask_itself(self, name: InstanceId, known: Known) -> None:
        """Its proxy lost its stream to control: dead is what does not answer, either."""
        for _ in range(2):
            if known.told is None or self._known.get(name) is not known:
                return
            if await self._reach(known.told.address):
                return
            await asyncio.sleep(REACH_AGAIN_S)
        known.proxied = False
        self._judge(known)


async def no_secrets(spec: RevisionSpec, paths: Collection[str]) -> Mapping[str, bytes]:
    raise PartError(f"Nobody has the secrets {', '.join(paths)} of {spec.module}.")
