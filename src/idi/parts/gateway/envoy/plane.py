"""The data plane: a view of traffic goes in, every Envoy has it a few milliseconds later.

`publish` renders the whole view and lets each proxy's session find out what differs for it.
`publish_endpoints` is the path of a birth or a death: it encodes one assignment and touches the sessions
that subscribed to it, nothing else. Neither waits; `barrier` does.

What a proxy has survives this process: it keeps serving when the stream breaks, comes back with the
versions that it holds, and is sent what differs. `connected` and `on_ready` therefore don't fall at once
when a stream breaks but after `RECONNECT_S`, or when the proxy comes back with nothing (a new process).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idi.parts.gateway.envoy import snapshot
from idi.parts.gateway.envoy.barriers import Barrier, Barriers
from idi.parts.gateway.envoy.listening import Listen
from idi.parts.gateway.envoy.proving import Verify
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment
from idi.parts.gateway.envoy.resources import Key, Kind, NodeResources, Resource, Shelf, Store
from idi.parts.gateway.envoy.server import AdsServer, Stream
from idi.parts.gateway.envoy.session import Session
from idi.parts.gateway.envoy.words import shorten
from idi.parts.gateway.interface import BarrierResult, Identity, Rejection
from idi.traffic.types import Assignment, Traffic

RECONNECT_S = 2.0
"""How long a broken stream may take to come back before its proxy counts as lost."""

HOUSEKEEPING_S = 0.2

OnReady = Callable[[str, bool], None]


OnChange = Callable[[str], None]


def nobody(_node: str, _ready: bool) -> None:
    """For planes whose owner asks instead of being told."""


def nothing(_node: str) -> None:
    """The same."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the plane knows of the proxy whose stream it holds.

    `complete`: it has had every listener of its view. `fresh`: it came with nothing, so it is a new process.
    `behind`: the number of the oldest change that it has not answered yet, 0 while nobody knows, None when it has
    everything. `since`: when its stream opened (monotonic).
    """

    complete: bool
    fresh: bool
    behind: int | None
    since: float
    rejections: tuple[Rejection, ...]


class EnvoyPlane:
    """Async context manager: inside it the xDS socket or port is open.

    `where` it listens; `verify` maps a bearer credential to the node that it belongs to; `snapshot_path` None
    keeps nothing on disk; `on_ready` is called with a node and whether it has all of its listeners; `on_change` with
    a node whose standing may be another one now. Neither may raise. `also`: other services on the same port.
    """

    def __init__(
        self,
        where: Listen,
        verify: Verify,
        snapshot_path: Path | None = None,
        on_ready: OnReady = nobody,
        on_change: OnChange = nothing,
        also: Sequence[Any] = (),
    ) -> None:
        self._server = AdsServer(where, verify, self, also=also)
        self._saved = snapshot.Saved(snapshot_path)
        self._on_ready = on_ready
        self._on_change = on_change
        self._store = Store()
        self._renderer = Renderer()
        self._seq = 1
        self._streams: dict[str, Stream] = {}
        self._subscribers: dict[Key, set[Stream]] = defaultdict(set)
        self._subscribed: dict[Stream, frozenset[Key]] = {}
        self._ready: set[str] = set()
        self._left: dict[str, float] = {}
        self._barriers = Barriers()
        self._rejections: dict[str, tuple[Rejection, ...]] = {}
        self._stack = AsyncExitStack()
        self._housekeeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> EnvoyPlane:
        if (saved := self._saved.load()) is not None:
            self._store.replace(*saved)
            self._renderer.callers.restore(self._store.nodes())
            # Their proxies may be serving already; until they had time to come back they are waited for.
            self._left = dict.fromkeys(self._store.nodes(), time.monotonic())
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            await stack.enter_async_context(self._server)
            self._housekeeping = tasks.create_task(self._keep_house())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        await self._stack.aclose()
        self._saved.finish(self._store)

    # --- what is published -------------------------------------------------------------------------

    def publish(self, traffic: Traffic) -> None:
        shared, nodes = self._renderer.render(traffic)
        # Before the listeners that name them.
        for node in self._renderer.moved():
            self._put_secrets_of(node)
        self.take(shared, nodes)

    def publish_endpoints(self, assignment: Assignment) -> None:
        self.put(render_assignment(assignment))

    def set_identity(self, node: str, identity: Identity) -> None:
        self._renderer.callers.identity(node, identity)
        self._put_secrets_of(node)

    def _put_secrets_of(self, node: str) -> None:
        if secrets := self._renderer.callers.secrets(node):
            self.put_secrets(node, secrets)

    # --- the same, rendered already ----------------------------------------------------------------

    @property
    def seq(self) -> int:
        """Number of the last change."""
        return self._seq

    @property
    def store(self) -> Store:
        """What is published; to be read."""
        return self._store

    def take(self, shared: Shelf, nodes: Mapping[str, NodeResources]) -> None:
        self._seq += 1
        self._store.replace(shared, nodes)
        for gone in self._left.keys() - nodes.keys():
            del self._left[gone]
        self._ready &= nodes.keys()
        for barrier in self._barriers:
            barrier.only(nodes.keys())
        for stream in self._streams.values():
            stream.session.refresh(self._seq)
            stream.wake()
            self._learn(stream)
        self._saved.changed()

    def put(self, resource: Resource) -> None:
        if not self._store.put(resource):
            return
        self._seq += 1
        for stream in self._subscribers.get((resource.kind, resource.name), ()):
            stream.session.touch(resource.kind, resource.name, self._seq)
            stream.wake()
            self._on_change(stream.node)
        self._saved.changed()

    def put_secrets(self, node: str, secrets: Iterable[Resource]) -> None:
        changed = self._store.put_secrets(node, secrets)
        stream = self._streams.get(node)
        self._seq += 1
        if stream is not None:
            for name in changed:
                stream.session.touch(Kind.SECRET, name, self._seq)
            stream.wake()
            self._on_change(node)

    # --- what is known -----------------------------------------------------------------------------

    async def barrier(self, timeout_s: float) -> BarrierResult:
        now = time.monotonic()
        barrier = Barrier(self._seq)
        for node in self._store.nodes():
            stream = self._streams.get(node)
            if stream is not None:
                into = barrier.acknowledged if _has(stream.session, barrier.seq) else barrier.waiting
                into.add(node)
            elif node in self._left:
                # Its proxy may still serve by what it had: wait for it to come back, else it is lost.
                (barrier.waiting if now - self._left[node] < RECONNECT_S else barrier.lost).add(node)
        await self._barriers.wait(barrier, timeout_s)
        return barrier.result(self.rejections())

    def rejections(self) -> tuple[Rejection, ...]:
        return tuple(rejection for node in sorted(self._rejections) for rejection in self._rejections[node])

    def connected(self) -> Mapping[str, bool]:
        return {node: node in self._ready for node in self._store.nodes()}

    def standing(self, node: str) -> Standing | None:
        """None where its stream is not here."""
        stream = self._streams.get(node)
        if stream is None:
            return None
        session = stream.session
        complete = session.was_complete or session.has_all_listeners()
        # Until it has asked for something by name it may still say what it holds.
        fresh = bool(session.subscriptions()) and not session.resumed
        rejections = self._rejections.get(node, ())
        return Standing(complete, fresh, _behind(session), stream.since, rejections)

    def standings(self) -> Mapping[str, Standing]:
        return {node: found for node in self._streams if (found := self.standing(node)) is not None}

    # --- what streams report (server.Owner) --------------------------------------------------------

    def opened(self, node: str) -> Stream:
        before = self._streams.get(node)
        if before is not None:
            before.close()
            self._forget_subscriptions(before)
        # Marks of a new stream carry number 0: how old what it holds is, nobody knows.
        stream = self._streams[node] = Stream(node, Session(self._store.view(node)))
        self._left.pop(node, None)
        self._on_change(node)
        return stream

    def progressed(self, stream: Stream) -> None:
        if self._streams.get(stream.node) is not stream:
            return
        subscriptions = stream.session.subscriptions()
        before = self._subscribed.get(stream, frozenset())
        if subscriptions != before:
            for key in before - subscriptions:
                self._subscribers[key].discard(stream)
            for key in subscriptions - before:
                self._subscribers[key].add(stream)
            self._subscribed[stream] = subscriptions
        self._learn(stream)

    def closed(self, stream: Stream) -> None:
        self._forget_subscriptions(stream)
        if self._streams.get(stream.node) is stream:
            del self._streams[stream.node]
            self._left[stream.node] = time.monotonic()
            self._rejections.pop(stream.node, None)
            self._on_change(stream.node)

    def _learn(self, stream: Stream) -> None:
        """Draw what follows from a session's new state: readiness, rejections, barriers."""
        node, session = stream.node, stream.session
        if session.was_complete or session.has_all_listeners():
            self._set_ready(node, True)
        elif not session.resumed:
            self._set_ready(node, False)
        self._note_rejections(node, session)
        for barrier in self._barriers:
            if _has(session, barrier.seq):
                barrier.settle(node, barrier.acknowledged)
        self._on_change(node)

    def _note_rejections(self, node: str, session: Session) -> None:
        refusals = session.refusals()
        if not refusals:
            self._rejections.pop(node, None)
            return
        known = {
            (rejection.resource, rejection.message): rejection for rejection in self._rejections.get(node, ())
        }
        now = time.time()
        fresh = []
        for refusal in refusals:
            resource = f"{refusal.kind.name.lower()} {refusal.name}"
            message = shorten(refusal.message)
            fresh.append(known.get((resource, message)) or Rejection(node, resource, message, now))
        self._rejections[node] = tuple(fresh)

    def _set_ready(self, node: str, ready: bool) -> None:
        if ready == (node in self._ready):
            return
        (self._ready.add if ready else self._ready.discard)(node)
        self._on_ready(node, ready)

    def _forget_subscriptions(self, stream: Stream) -> None:
        for key in self._subscribed.pop(stream, frozenset()):
            subscribers = self._subscribers[key]
            subscribers.discard(stream)
            if not subscribers:
                del self._subscribers[key]

    # --- housekeeping ------------------------------------------------------------------------------

    async def _keep_house(self) -> None:
        """Save the view soon after it changed; let proxies go that did not come back."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._let_go()
            await self._saved.keep(self._store)

    def _let_go(self) -> None:
        now = time.monotonic()
        for node, since in self._left.items():
            if now - since >= RECONNECT_S:
                self._set_ready(node, False)
                for barrier in self._barriers:
                    barrier.settle(node, barrier.lost)


def _has(session: Session, seq: int) -> bool:
    """Whether this proxy has everything up to that change."""
    behind = _behind(session)
    return behind is None or behind > seq


def _behind(session: Session) -> int | None:
    """Number of the oldest change that this proxy has not answered; None: it has everything. One that came back has
    to show all of it first (0): it serves by what it had, and what it has not asked for yet may be old."""
    if not session.subscriptions():
        return 0  # it has just connected, and said nothing yet
    if session.resumed and not (session.was_complete or session.has_answered_all()):
        return 0
    return session.oldest()
