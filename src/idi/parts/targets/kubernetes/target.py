"""The Kubernetes target: a module is a Helm release, its pods are its instances.

`ensure` writes the release and returns: the Deployment brings the new pods in and the old ones out, kubelet restarts
what crashes, the autoscaler counts. What happens to the pods is heard from three sides (instances.py) and goes out as
facts at once; no plan is in that path. Nothing is kept here that the cluster does not know: `adopt` reads it anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from idi.declaration.demand import surge
from idi.declaration.types import ModuleName, Platform
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_watch import Kind, Watch
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import Bug, PartError, Refused
from idi.parts.targets.interface import Emit, Objection, Retire, Supply, Variable
from idi.parts.targets.kubernetes.anew import Anew
from idi.parts.targets.kubernetes.behind import Behind
from idi.parts.targets.kubernetes.held import Held
from idi.parts.targets.kubernetes.instances import Instances
from idi.parts.targets.kubernetes.makers import Makers, module_of
from idi.parts.targets.kubernetes.pods import MAIN, MODULE
from idi.parts.targets.kubernetes.replicas import Replicas
from idi.parts.targets.kubernetes.secrets import RevisionSecrets
from idi.parts.targets.kubernetes.survey import Survey
from idi.parts.targets.kubernetes.values import (
    POD,
    Around,
    place_of,
    release_values,
    uncounted,
)
from idi.parts.targets.references import needed, own
from idi.world.events import (
    RevisionRemoved,
)
from idi.world.types import Instance, InstanceId, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

LAPTOP = "Use an environment with target: local."
WORKLOADS = ("deployments", "statefulsets")
"""What pods come from; the latter where there is storage."""
SYNCED_S = 30.0
GONE_S = 60.0
"""Beyond their grace period: how long pods may take to end."""


class Releases(Protocol):
    """The releases of modules, one each, named as the module."""

    async def make_way(self, module: str) -> None:
        """Put right what was left half done of it: what is there before that is judged is not what stays. Raises
        `PartError`."""

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        """Install or change it, after `make_way`. Raises `PartError`; then it is as it was."""

    async def render(self, module: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The objects that these values make. Raises `PartError`."""

    async def drop(self, module: str) -> None:
        """Uninstall it; volumes stay. Idempotent."""


class KubernetesTarget:
    """`around` says what is declared of a module beside its revision, by a platform or else by the one that runs, if
    there is one; `answers` whether the agent at an address does: asked where a proxy lost its stream or never came,
    which by itself is no death; `reached` whether any proxy has one; `ended` is told the uid of each pod that is no
    more."""

    def __init__(
        self,
        *,
        api: Kubernetes,
        namespace: str,
        releases: Releases,
        around: Callable[[ModuleName, Platform | None], Around | None],
        emit: Emit,
        retire: Retire,
        supply: Supply,
        answers: Callable[[str], Awaitable[bool]],
        reached: Callable[[], bool] = lambda: True,
        ended: Callable[[str], None] = lambda _uid: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._releases = releases
        self._namespace = namespace
        self._around = around
        self._emit = emit
        self._secrets = RevisionSecrets(api, namespace, supply)
        self._replicas = Replicas(api, namespace)
        self._owned = OwnedTasks()
        self.instances = Instances(
            api=api,
            namespace=namespace,
            emit=emit,
            retire=retire,
            tasks=self._owned,
            answers=answers,
            reached=reached,
            ended=ended,
            moved=self._look_at_leaving,
            clock=clock,
        )
        self._makers = Makers()
        self._held = Held(emit, self._makers)
        self._anew = Anew(emit, self._makers)
        self._unknown: set[ModuleName] = set()
        self._locks: dict[ModuleName, asyncio.Lock] = {}
        self._leaving: set[ModuleName] = set()
        """Those whose former revision still runs and has secrets, which go with it."""
        self._behind = Behind(
            Survey(api, namespace, releases),
            emit,
            anew=self._anew,
            values=self._held_values,
            busy=lambda module: module in self._locks and self._locks[module].locked(),
            tasks=lambda: self._owned.group,
        )

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
                self._held.found(one)
                if (held := self._held.revisions.get(one["metadata"]["labels"][MODULE])) is not None:
                    self._anew.wait(held[0].module, held[0].revision, [one])
            self._owned.group.create_task(self._follow(kind))
        self._owned.group.create_task(self.instances.follow())
        async with asyncio.timeout(SYNCED_S):
            await self.instances.synced.wait()

    async def ensure(self, spec: RevisionSpec, count: int, around: str = "") -> None:
        async with self._locks.setdefault(spec.module, asyncio.Lock()):
            before, declared = self._held.revisions.get(spec.module), self._declared(spec.module)
            await self._secrets.write(declared.settings, spec)
            running = self._running(spec)
            values = self._values(spec, count, around, declared)
            await self._releases.make_way(spec.module)
            scales = count > 0 and (
                declared.scale is not None
                or (before is not None and await self._replicas.others(spec.module))
            )
            if scales:
                await self._replicas.keep(spec.module)
            await self._releases.put(spec.module, uncounted(values) if scales else values)
            if scales:
                await self._replicas.least(spec.module, count)
            self._held.hold(spec, count, around)
            await self._secrets.keep_only(spec.module, {spec.revision, *(one.revision for one in running)})
            if any(needed(one).texts or needed(one).files for one in running):
                self._leaving.add(spec.module)
            again = before is not None and before[0] == spec and count > 0
            await self._behind.written(spec, values, found=before is not None, again=again)
        if before is not None and before[0] == spec and before[1] > count and not scales:
            await self._fewer(spec, count)

    async def retry(self, module: ModuleName, revision: RevisionId) -> None:
        """Its Deployment replaces a pod that is gone at once, and one that waits only after a while."""
        for one in self.instances.told(module):
            if (one.revision, one.state) == (revision, "failed"):
                await self._api.delete(self._path("v1", "pods", one.id))

    async def remove(self, module: ModuleName, revision: RevisionId) -> None:
        known = self._held.revisions.get(module)
        if known is None or known[0].revision != revision:
            self._emit(RevisionRemoved(module, revision))
            return
        async with self._locks.setdefault(module, asyncio.Lock()):
            await self._releases.drop(module)
            await self._fewer(known[0], 0)
            await self._secrets.keep_only(module, ())
            self._held.forget(module)
            self._behind.forget(module)
            self._emit(RevisionRemoved(module, revision))

    def sidecar_ready(self, instance: InstanceId, ready: bool) -> None:
        self.instances.connected(instance, ready)

    async def tail(self, instance: InstanceId, count: int = 10) -> list[str]:
        try:
            return await self._api.logs(instance, MAIN, tail=count)
        except PartError as error:
            return [f"(its log cannot be had: {error.message})"]

    # --- what others do to it, and what would be said

    async def survey(self, modules: Collection[ModuleName] | None = None) -> None:
        await self._behind.look([*self._held.revisions] if modules is None else modules)

    async def trial(
        self, spec: RevisionSpec, count: int, around: str = "", platform: Platform | None = None
    ) -> list[Objection]:
        before, declared = self._held.revisions.get(spec.module), self._declared(spec.module, platform)
        beside = 0 if declared.scale and before else max(0, count - (before[1] if before else 0))
        new = before is None or before[0] != spec
        if before and new and spec.workload and not spec.workload.recreate:
            beside += surge(count)  # the new ones come before the old ones go
        values = self._values(spec, count, around, declared)
        return await self._behind.survey.objections(
            spec.module, values, pods=beside, new=new or beside > 0, fresh=before is None
        )

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

    # --- within

    def _path(self, api: str, kind: str, name: str = "") -> str:
        return path(api, kind, self._namespace, name)

    def _declared(self, module: ModuleName, platform: Platform | None = None) -> Around:
        if (found := self._around(module, platform)) is None:
            raise Bug("Nothing is declared yet for a cluster.")
        return found

    def _values(self, spec: RevisionSpec, count: int, digest: str, declared: Around) -> dict[str, Any]:
        running, scale = self._running(spec), declared.scale if count else None
        return release_values(declared.settings, spec, count, declared.reach, running, digest, scale)

    def _held_values(self, module: ModuleName) -> tuple[RevisionId, dict[str, Any]] | None:
        """What its release was sent, where that can be known: a control that has not written it itself knows it only as
        long as the same is declared."""
        held, declared = self._held.revisions.get(module), self._around(module, None)
        if held is None or declared is None:
            return None
        digest = self._held.arounds.get(module, "")
        if not self._behind.wrote(module) and declared.digest != digest:
            return None
        spec, count = held
        return spec.revision, self._values(spec, count, digest, declared)

    def _running(self, spec: RevisionSpec) -> list[RevisionSpec]:
        """Other revisions of its module that pods run: what they need to start again has to stay."""
        there = self.instances.revisions(spec.module)
        return [there[revision] for revision in sorted(there) if revision != spec.revision]

    async def _follow(self, kind: str) -> None:
        async for event in Watch(self._api, self._path("apps/v1", kind), labels=MODULE):
            if event.kind not in (Kind.ADDED, Kind.MODIFIED, Kind.DELETED):
                continue
            module, gone = module_of(event.object), event.kind is Kind.DELETED
            self._makers.heard(event.object, gone=gone)
            self._behind.heard(module, event.object, gone=gone)
            if not gone and not self._held.heard(event.object) and module not in self._unknown:
                self._unknown.add(module)
                self._owned.group.create_task(self._look_at(kind, module))

    async def _look_at(self, kind: str, module: ModuleName) -> None:
        """A module that this control does not run has one: somebody else made it, or what was told of one that was
        removed comes late. What is there says which."""
        async with self._locks.setdefault(module, asyncio.Lock()):
            self._unknown.discard(module)
            if module in self._held.revisions:
                return
            try:
                found = (
                    await self._api.listing(self._path("apps/v1", kind), labels=f"{MODULE}={module}")
                ).items
            except PartError as error:
                log.warning("what runs %s cannot be read: %s", module, error.message)
                return
            for one in found:
                if "deletionTimestamp" not in one["metadata"]:
                    self._held.found(one)

    def _look_at_leaving(self) -> None:
        for module in [one for one in self._leaving if self._left(one)]:
            self._leaving.discard(module)
            self._owned.group.create_task(self._forget_former(module))

    def _left(self, module: ModuleName) -> bool:
        """Whether all its pods are of the revision that holds, and one is ready: before that a pod of the former may
        have to start again."""
        current = self._held.revisions.get(module)
        return (
            current is not None
            and {*self.instances.revisions(module)} <= {current[0].revision}
            and any(one.state == "ready" for one in self.instances.told(module))
        )

    async def _forget_former(self, module: ModuleName) -> None:
        async with self._locks.setdefault(module, asyncio.Lock()):
            if (current := self._held.revisions.get(module)) is None or not self._left(module):
                return  # another one is on its way, and what ensures it looks itself
            try:
                await self._secrets.keep_only(module, {current[0].revision})
            except PartError as error:  # the next change of the module removes them
                log.warning("secrets of a former revision of %s stay: %s", module, error.message)

    async def _fewer(self, spec: RevisionSpec, count: int) -> None:
        """Wait until so many are left of a module."""

        def left() -> int:
            return len(self.instances.told(spec.module))

        try:
            async with asyncio.timeout(spec.grace_s + GONE_S):
                await self.instances.until(lambda: left() <= count)
        except TimeoutError:
            raise PartError(
                f"{spec.module} has {left()} pods still, {spec.grace_s + GONE_S:g} s after {count} were asked for.",
                "kubectl describe pod says what they wait for.",
            ) from None
