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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_watch import Event, Kind, Watch
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import PartError, Refused
from idi.parts.targets.interface import Emit, Retire, Supply, Variable
from idi.parts.targets.kubernetes.instances import Known
from idi.parts.targets.kubernetes.pods import AROUND, COUNT, MAIN, MODULE, SPEC, pod_seen, shorten
from idi.parts.targets.kubernetes.values import (
    POD,
    Reach,
    Settings,
    module_of,
    place_of,
    release_values,
    scales,
    secret_of,
)
from idi.parts.targets.recorded import spec_of
from idi.parts.targets.references import needed, own
from idi.world.events import InstanceGone, InstanceSeen, RevisionDegraded, RevisionEnsured, RevisionRemoved
from idi.world.types import Instance, InstanceId, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

MOST_EARLY = 1000
LAPTOP = "Use an environment with target: local."
WORKLOADS = ("deployments", "statefulsets")
"""What pods come from; the latter where there is storage."""
SYNCED_S = 30.0
GONE_S = 60.0
"""Beyond their grace period: how long pods may take to end."""
ASK_AGAIN_S = 1.0


class Releases(Protocol):
    """The releases of modules, one each, named as the module."""

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        """Install or change it. Raises `PartError`; then it is as it was."""

    async def drop(self, module: str) -> None:
        """Uninstall it; volumes stay. Idempotent."""


class KubernetesTarget:
    """`reach` says who may call a module and whom it may call; `answers` whether the agent at an address does: asked
    where a proxy lost its stream, which by itself is no death; `reached` whether any proxy has one; `ended` is told the
    uid of each pod that is no more."""

    def __init__(
        self,
        *,
        api: Kubernetes,
        namespace: str,
        releases: Releases,
        settings: Callable[[], Settings],
        emit: Emit,
        retire: Retire,
        supply: Supply,
        reach: Callable[[ModuleName], Reach],
        answers: Callable[[str], Awaitable[bool]],
        reached: Callable[[], bool] = lambda: True,
        ended: Callable[[str], None] = lambda _uid: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._releases = releases
        self._namespace = namespace
        self._settings = settings
        self._emit = emit
        self._retire = retire
        self._supply = supply
        self._reach = reach
        self._answers = answers
        self._reached = reached
        self._ended = ended
        self._clock = clock
        self._owned = OwnedTasks()
        self._known: dict[InstanceId, Known] = {}
        self._revisions: dict[ModuleName, tuple[RevisionSpec, int]] = {}
        self._degraded: dict[ModuleName, str] = {}
        self._locks: dict[ModuleName, asyncio.Lock] = {}
        self._leaving: set[ModuleName] = set()
        """Those whose former revision still runs and has secrets, which go with it."""
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
        for kind in WORKLOADS:
            for one in (await self._api.listing(self._path("apps/v1", kind), labels=MODULE)).items:
                self._deployed(one)
            self._owned.group.create_task(self._follow(kind))
        self._owned.group.create_task(self._follow_pods())
        async with asyncio.timeout(SYNCED_S):
            await self._synced.wait()

    async def ensure(self, spec: RevisionSpec, count: int, around: str = "") -> None:
        async with self._locks.setdefault(spec.module, asyncio.Lock()):
            before = self._revisions.get(spec.module)
            its, settings = needed(spec), self._settings()
            if paths := its.texts | its.files:
                for secret in secret_of(settings, spec, await self._supply(spec, paths)):
                    name = secret["metadata"]["name"]
                    await self._api.apply(self._path("v1", "secrets", name), secret, force=True)
            running = self._running(spec)
            values = release_values(settings, spec, count, self._reach(spec.module), running, around)
            await self._releases.put(spec.module, values)
            self._holds(spec, count, around)
            await self._forget_secrets(spec.module, {spec.revision, *(one.revision for one in running)})
            if any(needed(one).texts or needed(one).files for one in running):
                self._leaving.add(spec.module)
        if before is not None and before[0] == spec and before[1] > count and not scales(spec, count):
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
            await self._api.delete(self._path("v1", "pods", name))

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        known = self._revisions.get(module)
        if known is None or known[0].revision != revision:
            self._emit(RevisionRemoved(module, revision))
            return
        async with self._locks.setdefault(module, asyncio.Lock()):
            await self._releases.drop(module)
            await self._fewer(known[0], 0)
            await self._forget_secrets(module, set())
            self._revisions.pop(module, None)
            self._degraded.pop(module, None)
            self._emit(RevisionRemoved(module, revision))

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        known = self._of(instance)
        if known is None:
            return
        known.connected = ready
        if ready:
            known.proxied = True
            self._judge(known)
        elif known.proxied:
            self._owned.group.create_task(self._ask_itself(instance, known))

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        try:
            return await self._api.logs(instance, MAIN, tail=count)
        except PartError as error:
            return [f"(its log cannot be had: {error.message})"]

    # --- what only a laptop can do

    async def attach(self, spec: RevisionSpec, port: int) -> Instance:  # noqa: ARG002
        raise Refused(f"An instance of {spec.module} that runs elsewhere cannot join a cluster.", LAPTOP)

    async def detach(self, instance: InstanceId) -> None:
        """There is none."""

    def attached(self) -> list[InstanceId]:
        return []

    async def lend(self, spec: RevisionSpec, by: str, holder: int) -> Instance:  # noqa: ARG002
        raise Refused(f"{spec.module} cannot be run by hand inside a cluster.", LAPTOP)

    def take(self, instance: InstanceId, pid: int, asking: int) -> None:  # noqa: ARG002
        raise Refused(f"{instance} is nobody's on a cluster.", LAPTOP)

    def over(self, instance: InstanceId) -> str:  # noqa: ARG002
        return ""

    async def environment(
        self,
        spec: RevisionSpec,
        instance: InstanceId | None,  # noqa: ARG002
        *,
        reveal: bool,  # noqa: ARG002
    ) -> list[Variable]:
        """Every pod has the same but for its name; no secret leaves the cluster."""
        return [
            replace(one, value=None) if one.value and POD in one.value else one
            for one in own(spec, place_of(spec, {}), seated=True, revealed=False)
        ]

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
        """Its pod is about to end: return when no more traffic comes to it. Raises `Refused` where it is not: whoever
        reaches an agent can say so, and the API server knows."""
        known = self._known.get(instance)
        if known is None or known.pod is None:
            return  # it has no traffic, and its word is not for the next of its name
        if not known.pod.leaving:
            pod = await self._api.find(self._path("v1", "pods", instance))
            if pod is not None and "deletionTimestamp" not in pod["metadata"]:
                raise Refused(f"{instance} is not about to be ended.")
        known.stopping = True
        self._judge(known)
        if known.told is not None:
            await self._retire(known.told)

    # --- within

    def _path(self, api: str, kind: str, name: str = "") -> str:
        return path(api, kind, self._namespace, name)

    def _of(self, instance: InstanceId) -> Known | None:
        """Agents and proxies may speak before the API server does; so many of them are remembered, the latest."""
        if instance not in self._known:
            early = [name for name, one in self._known.items() if one.pod is None]
            if len(early) >= MOST_EARLY:
                del self._known[early[0]]
            self._known[instance] = Known()
        return self._known[instance]

    def _running(self, spec: RevisionSpec) -> list[RevisionSpec]:
        """Other revisions of its module that pods run: what they need to start again has to stay."""
        there = {
            one.pod.revision: one.pod.spec
            for one in self._known.values()
            if one.pod and one.pod.module == spec.module and one.pod.revision != spec.revision
        }
        return [there[revision] for revision in sorted(there)]

    async def _follow_pods(self) -> None:
        async for event in Watch(self._api, self._path("v1", "pods"), labels=MODULE):
            if event.kind is Kind.SYNCED:
                self._synced.set()
            else:
                self._pod(event)

    def _pod(self, event: Event) -> None:
        name = InstanceId(event.object["metadata"]["name"])
        seen = None if event.kind is Kind.DELETED else pod_seen(event.object)
        before = self._known.get(name)
        former = before.pod.uid if before and before.pod else ""
        if event.kind is Kind.DELETED:
            self._ended(event.object["metadata"]["uid"])
        elif former not in ("", event.object["metadata"]["uid"]):
            self._ended(former)  # one that was replaced unseen
        if seen is None or (former and former != seen.uid):
            self._gone(name)
        if seen is not None and (known := self._of(name)) is not None:
            known.pod = seen
            self._judge(known)

    async def _follow(self, kind: str) -> None:
        async for event in Watch(self._api, self._path("apps/v1", kind), labels=MODULE):
            if event.kind in (Kind.ADDED, Kind.MODIFIED):
                self._deployed(event.object)

    async def _forget_secrets(self, module: ModuleName, but: set[str]) -> None:
        """Those of revisions whose pods cannot start any more."""
        mine = f"{MODULE}={module},app.kubernetes.io/managed-by=idi"
        for secret in (await self._api.listing(self._path("v1", "secrets"), labels=mine)).items:
            if module_of(secret)[1] not in but:
                await self._api.delete(self._path("v1", "secrets", secret["metadata"]["name"]))

    def _deployed(self, document: Mapping[str, Any]) -> None:
        template = document["spec"]["template"]["metadata"]
        try:
            spec = spec_of(json.loads(template.get("annotations", {})[SPEC]))
        except (KeyError, TypeError, ValueError):
            return  # none of ours
        if spec.module not in self._revisions:
            around = document["metadata"].get("annotations", {}).get(AROUND, "")
            replicas = document["spec"].get("replicas", 1)
            declared = document["metadata"].get("annotations", {}).get(COUNT, "")
            self._holds(spec, int(declared) if declared.isdigit() else replicas, around)
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

    def _holds(self, spec: RevisionSpec, count: int, around: str) -> None:
        before = self._revisions.get(spec.module)
        self._revisions[spec.module] = (spec, count)
        self._emit(RevisionEnsured(spec, count, around))
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
        for module in [one for one in self._leaving if self._left(one)]:
            self._leaving.discard(module)
            self._owned.group.create_task(self._forget_former(module))

    def _left(self, module: ModuleName) -> bool:
        """Whether all its pods are of the revision that holds, and one is ready: before that a pod of the former may
        have to start again."""
        current = self._revisions.get(module)
        there = [one for one in self._known.values() if one.pod is not None and one.pod.module == module]
        return (
            current is not None
            and all(one.pod is not None and one.pod.revision == current[0].revision for one in there)
            and any(one.told is not None and one.told.state == "ready" for one in there)
        )

    async def _forget_former(self, module: ModuleName) -> None:
        async with self._locks.setdefault(module, asyncio.Lock()):
            if (current := self._revisions.get(module)) is None or not self._left(module):
                return  # another one is on its way, and what ensures it looks itself
            try:
                await self._forget_secrets(module, {current[0].revision})
            except PartError as error:  # the next change of the module removes them
                log.warning("secrets of a former revision of %s stay: %s", module, error.message)

    async def _fewer(self, spec: RevisionSpec, count: int) -> None:
        """Wait until so many are left of a module."""

        def left() -> int:
            return sum(
                one.told is not None and one.told.module == spec.module for one in self._known.values()
            )

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
        """Its proxy lost its stream to control: dead is what does not answer, either. While nobody at all has a stream
        it is control that is cut off, and what it does not hear says nothing of others."""
        silent = 0
        while silent < 2:
            if known.told is None or known.connected or self._known.get(name) is not known:
                return  # it is back meanwhile (nobody says so twice), or gone
            if self._reached():
                if await self._answers(known.told.address):
                    return
                silent += 1
            await asyncio.sleep(ASK_AGAIN_S)
        if known.connected or self._known.get(name) is not known:
            return
        known.proxied = False
        self._judge(known)
