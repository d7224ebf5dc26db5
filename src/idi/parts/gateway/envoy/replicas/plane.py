"""Control's half of the data plane in a cluster: it renders and decides, replicas hold the proxies' streams.

A replica has the last view in memory and serves it whether control is there or not, so a dead control stops
changes, not traffic; a dead replica loses nothing, for any other serves its proxies. Certificates' keys go to the
replicas' memory and to no disk.

What is published is one message to each replica, sent at once. Barriers, readiness and refusals come back as
reports and are folded (`fold`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.gateway.envoy import snapshot
from idi.parts.gateway.envoy.listening import TlsPort
from idi.parts.gateway.envoy.plane import HOUSEKEEPING_S, RECONNECT_S, OnReady, nobody
from idi.parts.gateway.envoy.proving import Verify
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment, render_secrets
from idi.parts.gateway.envoy.replicas import changes
from idi.parts.gateway.envoy.replicas.changes import View
from idi.parts.gateway.envoy.replicas.fold import Fold
from idi.parts.gateway.envoy.replicas.frames import Certificate, Put, Report, Secrets, ViewChange, encode
from idi.parts.gateway.envoy.replicas.links import Links
from idi.parts.gateway.envoy.resources import Resource, Store
from idi.parts.gateway.interface import BarrierResult, Identity, Rejection
from idi.traffic.types import Assignment, Traffic


class ReplicatedPlane:
    """A `DataPlane`, and an async context manager: inside it replicas can attach.

    `where` and `verify` are for the replicas: the port, and whose token one shows. Proxies never come here.
    `snapshot_path` keeps the view for the time after a restart of everything; `on_ready` as of `EnvoyPlane`.
    """

    def __init__(
        self,
        where: TlsPort,
        verify: Verify,
        snapshot_path: Path | None = None,
        on_ready: OnReady = nobody,
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        self._links = Links(where, verify, self)
        self._saved = snapshot.Saved(snapshot_path)
        self._fold = Fold(on_ready, reconnect_s)
        self._renderer = Renderer()
        self._store = Store()
        self._secrets: dict[str, tuple[Resource, ...]] = {}
        self._certificate: bytes | None = None
        self._seq = 1
        self._something = False
        """Whether there is a view at all: an empty one must not take the replicas' last one from them."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ReplicatedPlane:
        if (saved := self._saved.load()) is not None:
            self._store.replace(*saved)
            self._something = True
            self._fold.declare(self._store.nodes().keys())
            self._fold.expect(time.monotonic())
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(OwnedTasks())
            await stack.enter_async_context(self._links)
            tasks.create_task(self._keep_house())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._saved.finish(self._store)

    # --- what is published -------------------------------------------------------------------------

    def publish(self, traffic: Traffic) -> None:
        shared, nodes = self._renderer.render(traffic)
        document = changes.difference(View.of(self._store), shared, nodes)
        if self._something and changes.is_empty(document):
            return
        self._something = True
        self._seq += 1
        for gone in self._store.nodes().keys() - nodes.keys():
            self._secrets.pop(gone, None)
        self._store.replace(shared, nodes)
        self._fold.declare(nodes.keys())
        self._links.send(encode(ViewChange(self._seq, document)))
        self._saved.changed()

    def publish_endpoints(self, assignment: Assignment) -> None:
        resource = render_assignment(assignment)
        if not self._store.put(resource):
            return
        self._seq += 1
        self._links.send(encode(Put(self._seq, resource)))
        self._saved.changed()

    def set_identity(self, node: str, identity: Identity) -> None:
        secrets = render_secrets(identity)
        if self._secrets.get(node) == secrets:
            return
        self._secrets[node] = secrets
        self._seq += 1
        self._links.send(encode(Secrets(self._seq, {node: secrets})))

    def set_certificate(self, chain: bytes, key: bytes) -> None:
        """With which the replicas prove to proxies that they are the plane."""
        self._certificate = encode(Certificate(chain, key))
        self._links.send(self._certificate)

    # --- what is known -----------------------------------------------------------------------------

    async def barrier(self, timeout_s: float) -> BarrierResult:
        barrier = self._fold.barrier(self._seq, time.monotonic())
        await self._fold.barriers.wait(barrier, timeout_s)
        return barrier.result(self.rejections())

    def rejections(self) -> tuple[Rejection, ...]:
        return self._fold.rejections()

    def connected(self) -> Mapping[str, bool]:
        return self._fold.connected()

    def replicas(self) -> Mapping[str, bool]:
        """Those that are attached -> whether they have taken every change."""
        return {name: applied >= self._seq for name, applied in self._fold.replicas().items()}

    # --- what links report (links.LinkOwner) -------------------------------------------------------

    def everything(self) -> Iterable[bytes]:
        """For a replica that attaches. Certificates first, so that it serves nobody before it has them."""
        if self._certificate is not None:
            yield self._certificate
        # With the view still to come it has not taken everything by that.
        yield encode(Secrets(0 if self._something else self._seq, self._secrets))
        if self._something:
            yield encode(ViewChange(self._seq, changes.whole(View.of(self._store))))

    def reported(self, replica: str, report: Report) -> None:
        self._fold.reported(replica, report, time.monotonic())

    def detached(self, replica: str) -> None:
        self._fold.detached(replica, time.monotonic())

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._fold.passed(time.monotonic())
            await self._saved.keep(self._store)
