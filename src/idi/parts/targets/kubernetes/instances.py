"""The pods of modules as instances: heard of from three sides (known.py), told as facts at once.

Nothing is asked but for one thing: a pod that has traffic and whose proxy has no stream may be dead (silence.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_pod import shorten
from idi.parts.clients.kubernetes_watch import Event, Kind, Watch
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import Refused
from idi.parts.targets.interface import Emit, Retire
from idi.parts.targets.kubernetes.known import Known
from idi.parts.targets.kubernetes.pods import MODULE, pod_seen
from idi.parts.targets.kubernetes.silence import COMES_S, Silence
from idi.world.events import InstanceGone, InstanceSeen
from idi.world.types import Instance, InstanceId, RevisionId, RevisionSpec

MOST_EARLY = 1000


class Instances:
    """`answers` says whether the agent at an address does; `reached` whether any proxy has a stream; `ended` is told
    the uid of each pod that is no more; `moved` is called after each fact that was told."""

    def __init__(
        self,
        *,
        api: Kubernetes,
        namespace: str,
        emit: Emit,
        retire: Retire,
        tasks: OwnedTasks,
        answers: Callable[[str], Awaitable[bool]],
        reached: Callable[[], bool],
        ended: Callable[[str], None],
        moved: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._emit = emit
        self._retire = retire
        self._ended = ended
        self._moved = moved
        self._clock = clock
        self._silence = Silence(tasks, answers, reached, self._dead)
        self._known: dict[InstanceId, Known] = {}
        self._changed = asyncio.Event()
        self.synced = asyncio.Event()
        """Every pod that there was has been heard of."""

    # --- what there is

    def told(self, module: ModuleName) -> list[Instance]:
        """The instances of a module, as they were told."""
        return [
            one.told for one in self._known.values() if one.told is not None and one.told.module == module
        ]

    def revisions(self, module: ModuleName) -> dict[RevisionId, RevisionSpec]:
        """What its pods run, those that are not told yet too."""
        pods = [one.pod for one in self._known.values() if one.pod is not None and one.pod.module == module]
        return {pod.revision: pod.spec for pod in pods}

    async def until(self, settled: Callable[[], bool]) -> None:
        while not settled():
            await self._changed.wait()

    # --- what is heard

    async def follow(self) -> None:
        """What the API server says, until cancelled."""
        async for event in Watch(self._api, path("v1", "pods", self._namespace), labels=MODULE):
            if event.kind is Kind.SYNCED:
                self.synced.set()
            else:
                self.heard(event)

    def heard(self, event: Event) -> None:
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
        if seen is not None:
            known = self._of(name)
            known.pod = seen
            self._judge(known)

    def connected(self, instance: InstanceId, ready: bool) -> None:
        """What the data plane says of its proxy."""
        known = self._of(instance)
        known.connected = ready
        if ready:
            known.proxied = True
            self._judge(known)
        elif known.told is not None and known.told.state == "ready":
            self._silence.begin(instance, known.told.address, 0.0)

    def report(self, instance: InstanceId, ready: bool, reason: str) -> bool:
        """What the agent of a pod says of its module; whether the instance is ready with that."""
        known = self._of(instance)
        known.reported = (ready, shorten(reason))
        self._judge(known)
        return known.told is not None and known.told.state == "ready"

    async def stopping(self, instance: InstanceId) -> None:
        """Its pod is about to end: return when no more traffic comes to it. Raises `Refused` where it is not."""
        known = self._known.get(instance)
        if known is None or known.pod is None:
            return  # it has no traffic, and its word is not for the next of its name
        if not known.pod.leaving:
            await check_ends(self._api, self._namespace, instance)
        known.stopping = True
        self._judge(known)
        if known.told is not None:
            await self._retire(known.told)

    # --- within

    def _of(self, instance: InstanceId) -> Known:
        """Agents and proxies may speak before the API server does; so many of them are remembered, the latest."""
        if instance not in self._known:
            early = [name for name, one in self._known.items() if one.pod is None]
            if len(early) >= MOST_EARLY:
                del self._known[early[0]]
            self._known[instance] = Known()
        return self._known[instance]

    def _judge(self, known: Known) -> None:
        now = known.judge(self._clock())
        if now is not None and now != known.told:
            known.told = now
            self._emit(InstanceSeen(now))
            self._wake()
        if now is not None and (known.connected or now.state != "ready"):
            self._silence.end(now.id)
        elif now is not None:
            self._silence.begin(now.id, now.address, COMES_S)

    def _gone(self, name: InstanceId) -> None:
        known = self._known.pop(name, None)
        self._silence.end(name)
        if known is not None and known.told is not None:
            self._emit(InstanceGone(known.told.module, name, self._clock()))
        self._wake()

    def _dead(self, name: InstanceId) -> None:
        known = self._known.get(name)
        if known is not None:
            known.proxied = False
            self._judge(known)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._moved()


async def check_ends(api: Kubernetes, namespace: str, pod: str) -> None:
    """Raises `Refused` where nobody has asked for the end of a pod that says it is about to end: whoever reaches an
    agent can say so, and the API server knows."""
    found = await api.find(path("v1", "pods", namespace, pod))
    if found is not None and "deletionTimestamp" not in found["metadata"]:
        raise Refused(f"{pod} is not about to be ended.")
