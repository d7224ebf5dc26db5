"""The gateway on a cluster: a Deployment of the platform's release, whose pods are all alike and come and go.

Its pods are heard of as modules' are: from the API server, from their agents, from the data plane. Each gets the
gateway's certificate and everything that the gateway is told.

Clients come to them by a Service, which sends to a pod on a dead node until Kubernetes gives the node up (40 s). So one
that has lost its stream and whose agent does not answer either is deleted, as long as another one serves: a pod that is
to end has no more traffic from that moment on, and another takes its place. Should it live after all, unheard by every
replica of the plane and by control, it ends as any pod does, after its drain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from idi.control.actors import CONTROL
from idi.control.loop import Loop
from idi.control.trust.identities import Identities
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_pod import is_ready, trouble
from idi.parts.clients.kubernetes_watch import Kind, Watch
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import IdiError, PartError
from idi.parts.store.interface import Store
from idi.parts.targets.kubernetes.instances import check_ends
from idi.parts.targets.kubernetes.pods import PART, lives_as
from idi.parts.targets.kubernetes.silence import ANSWERED_S, COMES_S, Silence
from idi.traffic.types import GATEWAY
from idi.world.events import PartChanged
from idi.world.types import InstanceId

log = logging.getLogger(__name__)

READY_S = 120.0


@dataclass(slots=True)
class Pod:
    """One of them; `why` it is not ready yet, as the cluster says. `proxied`: its proxy has all of its listeners."""

    why: str = ""
    address: str = ""
    leaving: bool = False
    proxied: bool = False

    @property
    def serves(self) -> bool:
        return self.proxied and not self.leaving


@dataclass(slots=True)
class Gateways:
    """Keeps `loop.edge.nodes` to the gateway's pods. `wanted` says that somebody has started it; `ended` is told the
    uid of each pod that is no more; `answers` and `reached` are as in silence.py."""

    api: Kubernetes
    namespace: str
    loop: Loop
    identities: Identities
    store: Store
    tasks: OwnedTasks
    answers: Callable[[str], Awaitable[bool]]
    reached: Callable[[], bool]
    ended: Callable[[str], None] = lambda _uid: None
    clock: Callable[[], float] = time.time
    wanted: bool = False
    known: asyncio.Event = field(default_factory=asyncio.Event)
    """Once every pod of it that there is was heard of."""
    _pods: dict[str, Pod] = field(default_factory=dict)
    _told: tuple[str, str] = ("", "")
    _silence: Silence = field(init=False)

    def __post_init__(self) -> None:
        self._silence = Silence(self.tasks, self.answers, self.reached, self._dead)

    def __contains__(self, node: str) -> bool:
        return node in self._pods

    async def start(self) -> None:
        """Return when one of them serves."""
        self.wanted = True
        self._judge()
        if await self.loop.wait(lambda world: world.parts[GATEWAY].state == "ready", READY_S):
            return
        raise PartError(
            f"The gateway does not serve after {READY_S:g} s: {self.loop.world.parts[GATEWAY].reason}.",
            "kubectl describe pod -l idi.dev/part=gateway says more.",
        )

    async def take_up(self) -> None:
        """After a restart of control: whoever waits for it is told by its state, and nobody has to ask again."""
        try:
            await self.start()
        except PartError as error:
            log.warning("%s", error)

    async def stop(self) -> None:
        """Its pods belong to the platform's release and go with that."""
        self.wanted, self._told = False, ("", "")
        self.loop.emit(PartChanged(GATEWAY, "absent", self.clock()))

    def ready(self, node: str, ready: bool) -> None:
        """The data plane says whether this one has all of its listeners."""
        if (pod := self._pods.get(node)) is None:
            return
        served, pod.proxied = pod.proxied, ready
        if ready:
            self._silence.end(InstanceId(node))
        elif served:
            self._ask(node, 0.0)
        self._judge()

    def serves(self, node: str) -> bool:
        return node in self._pods and self._pods[node].serves

    async def stopping(self, node: str) -> None:
        """One is about to end, and says so: nobody but clients sends to it. Raises `Refused` where it is not."""
        if not self._pods[node].leaving:
            await check_ends(self.api, self.namespace, node)

    async def follow(self) -> None:
        """Hear of its pods, until cancelled."""
        async for event in Watch(self.api, path("v1", "pods", self.namespace), labels=f"{PART}={GATEWAY}"):
            if event.kind is Kind.SYNCED:
                self.known.set()
            else:
                self._pod(event.object, gone=event.kind is Kind.DELETED)

    def _pod(self, document: dict[str, Any], *, gone: bool) -> None:
        metadata = document["metadata"]
        name = str(metadata["name"])
        if gone:
            self.ended(metadata["uid"])
        if gone or not lives_as(document, GATEWAY):
            self._silence.end(InstanceId(name))
            if self._pods.pop(name, None) is not None:
                self.identities.remove(name)
        else:
            status, known = document.get("status", {}), name in self._pods
            pod = self._pods.setdefault(name, Pod())
            pod.why, pod.address = trouble(status)[1], status.get("podIP", "")
            if "deletionTimestamp" in metadata:
                pod.leaving = True
                self._silence.end(InstanceId(name))
            if not known:
                self.identities.add(name, GATEWAY)
                pod.proxied = bool(self.loop.plane.connected().get(name))  # it was back before it was known
                if not pod.proxied and is_ready(status):  # it served before this control was there
                    self._ask(name, COMES_S)
        nodes = tuple(sorted(self._pods))
        if nodes != self.loop.edge.nodes:
            self.loop.edge.nodes = nodes
            self.loop.republish()
        self._judge()

    def _ask(self, node: str, after_s: float) -> None:
        pod = self._pods.get(node)
        if pod is not None and pod.address and not pod.leaving:
            self._silence.begin(InstanceId(node), pod.address, after_s)

    def _dead(self, node: InstanceId) -> None:
        if node in self._pods and not self._pods[node].proxied:
            self.tasks.group.create_task(self._replace(node))

    async def _replace(self, node: InstanceId) -> None:
        if not any(pod.serves for pod in self._pods.values()):
            self._ask(node, ANSWERED_S)  # better one that nobody hears of than none
            return
        log.warning("%s says nothing and does not answer: another takes its place", node)
        try:
            await self.store.note(
                CONTROL, "replace", {"instance": node, "why": "it says nothing"}, subject=GATEWAY
            )
            await self.api.delete(path("v1", "pods", self.namespace, node))
        except IdiError as error:
            log.warning("%s stays: %s", node, error)
            self._ask(node, ANSWERED_S)

    def _judge(self) -> None:
        if not self.wanted:
            return
        if any(pod.serves for pod in self._pods.values()):
            now = ("ready", "")
        else:
            why = next((pod.why for pod in self._pods.values() if pod.why), "")
            now = (
                "starting",
                why or ("its proxies are not connected" if self._pods else "there is no pod of it"),
            )
        if now != self._told or GATEWAY not in self.loop.world.parts:
            self._told = now
            state = "ready" if now[0] == "ready" else "starting"
            self.loop.emit(PartChanged(GATEWAY, state, self.clock(), reason=now[1]))  # type: ignore[arg-type]
