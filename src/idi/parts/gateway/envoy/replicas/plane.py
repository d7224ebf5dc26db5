"""Control's half of the data plane in a cluster: it renders and decides, replicas hold the proxies' streams.

Proxies may come to control itself, too (there are no replicas, or not yet); to the rest of this it is one more.

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
from dataclasses import replace
from pathlib import Path

from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.gateway.envoy.listening import TlsPort
from idi.parts.gateway.envoy.plane import HOUSEKEEPING_S, RECONNECT_S, EnvoyPlane, OnReady, nobody
from idi.parts.gateway.envoy.proving import Verify
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment
from idi.parts.gateway.envoy.replicas import changes
from idi.parts.gateway.envoy.replicas.changes import View
from idi.parts.gateway.envoy.replicas.fold import Fold
from idi.parts.gateway.envoy.replicas.frames import (
    Certificate,
    Down,
    Put,
    Report,
    Secrets,
    ViewChange,
    encode,
)
from idi.parts.gateway.envoy.replicas.links import Links
from idi.parts.gateway.envoy.resources import Resource
from idi.parts.gateway.interface import BarrierResult, Identity, Rejection
from idi.traffic.types import Assignment, Traffic

OURSELVES = ""
"""In place of a replica's name: the streams that control holds itself."""


class ReplicatedPlane:
    """A `DataPlane`, and an async context manager: inside it replicas can attach.

    `where`, `verify`, `snapshot_path`, `on_ready` as of `EnvoyPlane`: proxies may come here, too, and do where there
    is no replica. `verify_replica` maps a token to the name of the replica that it belongs to. `reconnect_s` is how
    long a proxy may take to get from one replica to another before it counts as lost.
    """

    def __init__(
        self,
        where: TlsPort,
        verify: Verify,
        verify_replica: Verify,
        snapshot_path: Path | None = None,
        on_ready: OnReady = nobody,
        reconnect_s: float = RECONNECT_S,
    ) -> None:
        self._links = Links(verify_replica, self)
        self._here = EnvoyPlane(
            where, verify, snapshot_path, on_change=self._changed_here, also=(self._links.handler(),)
        )
        self._fold = Fold(on_ready, reconnect_s)
        self._renderer = Renderer()
        self._secrets: dict[str, tuple[Resource, ...]] = {}
        self._certificate: bytes | None = None
        self._something = False
        """Whether there is a view at all: an empty one must not take the replicas' last one from them."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ReplicatedPlane:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(OwnedTasks())
            await stack.enter_async_context(self._here)
            stack.callback(self._links.close)
            self._renderer.callers.restore(self._here.store.nodes())
            nodes = self._here.store.nodes().keys()
            # Their proxies may be serving already; until they had time to come back they are waited for.
            self._something = bool(nodes)
            self._fold.declare(nodes)
            self._fold.expect(time.monotonic())
            tasks.create_task(self._keep_house())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # --- what is published -------------------------------------------------------------------------

    def publish(self, traffic: Traffic) -> None:
        shared, nodes = self._renderer.render(traffic)
        for node in self._renderer.moved():
            self._put_secrets_of(node)
        document = changes.difference(View.of(self._here.store), shared, nodes)
        if self._something and changes.is_empty(document):
            return
        self._something = True
        for gone in self._here.store.nodes().keys() - nodes.keys():
            self._secrets.pop(gone, None)
        self._here.take(shared, nodes)
        self._fold.declare(nodes.keys())
        self._send(ViewChange(self._here.seq, document))

    def publish_endpoints(self, assignment: Assignment) -> None:
        before, resource = self._here.seq, render_assignment(assignment)
        self._here.put(resource)
        if self._here.seq != before:
            self._send(Put(self._here.seq, resource))

    def set_identity(self, node: str, identity: Identity) -> None:
        self._renderer.callers.identity(node, identity)
        self._put_secrets_of(node)

    def _put_secrets_of(self, node: str) -> None:
        secrets = self._renderer.callers.secrets(node)
        if not secrets or self._secrets.get(node) == secrets:
            return
        self._secrets[node] = secrets
        self._here.put_secrets(node, secrets)
        self._send(Secrets(self._here.seq, {node: secrets}))

    def set_certificate(self, chain: bytes, key: bytes) -> None:
        """With which the replicas prove to proxies that they are the plane."""
        self._certificate = encode(Certificate(chain, key))
        self._links.send(self._certificate)

    def _send(self, frame: Down) -> None:
        """The replicas first: most proxies are there."""
        if self._links.any:
            self._links.send(encode(frame))
        self._fold.reported(OURSELVES, Report(self._here.seq, {}), time.monotonic())

    # --- what is known -----------------------------------------------------------------------------

    async def barrier(self, timeout_s: float) -> BarrierResult:
        barrier = self._fold.barrier(self._here.seq, time.monotonic())
        await self._fold.barriers.wait(barrier, timeout_s)
        return barrier.result(self.rejections())

    def rejections(self) -> tuple[Rejection, ...]:
        return self._fold.rejections()

    def connected(self) -> Mapping[str, bool]:
        return self._fold.connected()

    def replicas(self) -> Mapping[str, bool]:
        """Those that are attached -> whether they have taken every change."""
        known = self._fold.replicas()
        return {name: known.get(name, 0) >= self._here.seq for name in self._links.names()}

    # --- what is reported --------------------------------------------------------------------------

    def everything(self) -> Iterable[bytes]:
        """For a replica that attaches. Certificates first, so that it serves nobody before it has them."""
        if self._certificate is not None:
            yield self._certificate
        # With the view still to come it has not taken everything by that.
        yield encode(Secrets(0 if self._something else self._here.seq, self._secrets))
        if self._something:
            yield encode(ViewChange(self._here.seq, changes.whole(View.of(self._here.store))))

    def reported(self, replica: str, report: Report) -> None:
        self._fold.reported(replica, report, time.monotonic())

    def detached(self, replica: str) -> None:
        self._fold.detached(replica, time.monotonic())

    def _changed_here(self, node: str) -> None:
        now, standing = time.monotonic(), self._here.standing(node)
        if standing is not None:
            standing = replace(standing, since=now - standing.since)
        self._fold.reported(OURSELVES, Report(self._here.seq, {node: standing}), now)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._fold.passed(time.monotonic())
