"""One proxy's incremental xDS dialogue, without input or output.

Requests go in (`receive`), changes of the view are marked (`refresh`, `touch`), and `responses` says what
has to be sent now. The rules of the protocol are cited where they are kept; "xDS" is Envoy's "xDS REST and
gRPC protocol" page. Beyond it:

- One response of a type is under way at a time. What changes meanwhile stays marked, so a slow proxy gets
  the newest state once instead of every state in between.
- Make before break: clusters, then what they need (assignments, secrets), then listeners, their filters,
  routes, each after the ones before are acknowledged; what vanishes (clusters and assignments) goes last.
  Envoy holds the acknowledgement of a cluster back until that is warm, so a route never comes before its
  cluster is in use (it would answer 503), and for the same reason assignments and secrets wait for nothing.
- A refused response of several resources is sent again one by one. The good ones are then certainly in
  use, and the bad one is known by name. A refused version is not sent again; another version is.
- Every mark carries the number of the change that made it, so `oldest` tells exactly up to which change
  this proxy has everything: the barrier is a comparison of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from idi.parts.gateway.envoy.resources import Key, Kind, Resource

WILDCARD = "*"
WILDCARD_KINDS = frozenset({Kind.CLUSTER, Kind.LISTENER})
"""The only types for which an empty first subscription means everything (xDS: "wildcard subscription")."""

UNKNOWN = "?"
"""In place of a version: the proxy refused, and has this resource as it was before, or new, or not at all."""

REMOVED_LAST = (Kind.CLUSTER, Kind.ASSIGNMENT)

# Asked at every message of every proxy, and walking an enumeration costs ten times a tuple.
KINDS = tuple(Kind)
EARLIER = {kind: KINDS[:index] for index, kind in enumerate(KINDS)}


class View(Protocol):
    """What this node may have right now."""

    @property
    def known(self) -> bool: ...

    def find(self, kind: Kind, name: str) -> Resource | None: ...

    def names(self, kind: Kind) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded DeltaDiscoveryRequest. With a nonce it answers a response: `error` empty is an ACK."""

    kind: Kind
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    kind: Kind
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version of a resource that this proxy will not take, in its words."""

    kind: Kind
    name: str
    version: str
    message: str


@dataclass(slots=True)
class _Channel:
    """The state of one type on this stream. `held`: name -> version as the proxy has it or was last sent
    (empty: to be sent whatever it has); `acked`: what it acknowledged; `dirty`: name -> number of the
    oldest change not sent yet; `alone`: names to be sent in a response of their own."""

    wildcard: bool = False
    named: bool = False
    reply_due: bool = False
    names: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    dirty: dict[str, int] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    refused: dict[str, Refusal] = field(default_factory=dict)
    sent: Response | None = None
    sent_since: int = 0


class Session:
    """One stream of one proxy."""

    def __init__(self, view: View, seq: int = 0) -> None:
        self._view = view
        self._seq = seq
        self._channels: dict[Kind, _Channel] = {}
        self._due: set[str] = set()
        """Assignments that a cluster waits for, or may."""
        self.resumed = False
        """Whether the proxy came with resources from before: the same process as last time, serving already."""
        self.was_complete = False
        """Whether it has had every listener of its view once."""

    # --- what comes in -----------------------------------------------------------------------------

    def receive(self, request: Request) -> None:
        """Take one request: answer to a response, change of the subscription, or both (xDS: "each
        request may do any of these")."""
        channel = self._channels.get(request.kind)
        if channel is None:
            channel = self._open(request)
        elif request.subscribe or request.unsubscribe:
            self._subscribe(request.kind, channel, request)
        if request.nonce and channel.sent is not None and request.nonce == channel.sent.nonce:
            self._answered(channel, channel.sent, request.error)

    def _open(self, request: Request) -> _Channel:
        """xDS: `initial_resource_versions` is only in the first request of a type on a stream and says what
        the proxy still has from before; an empty first subscription is a wildcard for some types."""
        channel = self._channels[request.kind] = _Channel(
            held=dict(request.initial), acked=dict(request.initial)
        )
        self.resumed = self.resumed or bool(request.initial)
        names = set(request.subscribe)
        channel.named = bool(names)
        channel.wildcard = WILDCARD in names or (not names and request.kind in WILDCARD_KINDS)
        channel.names = names - {WILDCARD}
        if request.kind is Kind.ASSIGNMENT:
            # A cluster that was warming when the last stream broke waits for one still, and nothing that the
            # proxy says tells so. They are small: all are sent again.
            self._due |= channel.names
        # xDS: "the server must reply to a wildcard subscription even if there is nothing" (or the client
        # waits for its initial fetch timeout). A node that nobody has published for is left waiting.
        channel.reply_due = channel.wildcard and not request.initial
        self._mark_all(request.kind, channel)
        return channel

    def _subscribe(self, kind: Kind, channel: _Channel, request: Request) -> None:
        for name in request.subscribe:
            if name == WILDCARD:
                channel.wildcard = True
                continue
            channel.names.add(name)
            # xDS: a resource subscribed to again must be sent even if it is unchanged, for the client may
            # have dropped it.
            channel.held[name] = ""
            self._mark(kind, channel, name, self._seq)
        for name in request.unsubscribe:
            if name == WILDCARD:
                channel.wildcard = False
                for held in channel.held.keys() - channel.names:
                    self._forget(channel, held)
                continue
            channel.names.discard(name)
            if channel.wildcard:
                # xDS: unsubscribing from a name under a wildcard asks for that resource to be sent once
                # more, or to be reported as removed.
                channel.held[name] = ""
                self._mark(kind, channel, name, self._seq)
            else:
                self._forget(channel, name)
        if WILDCARD in request.subscribe:
            self._mark_all(kind, channel)

    @staticmethod
    def _forget(channel: _Channel, name: str) -> None:
        channel.held.pop(name, None)
        channel.acked.pop(name, None)
        channel.refused.pop(name, None)
        channel.dirty.pop(name, None)

    def _answered(self, channel: _Channel, sent: Response, error: str) -> None:
        channel.sent = None
        if not error:
            for resource in sent.resources:
                channel.acked[resource.name] = resource.version
                channel.alone.discard(resource.name)
                if channel.refused.pop(resource.name, None) is not None:
                    # The refused one may be what is wanted again: then it has to be refused again to be known.
                    self._mark(sent.kind, channel, resource.name, self._seq)
            for name in sent.removed:
                channel.acked.pop(name, None)
            return
        # xDS: after a NACK the client keeps what it had; the server must not send the same again.
        if len(sent.resources) == 1:
            resource = sent.resources[0]
            channel.alone.discard(resource.name)
            channel.held[resource.name] = UNKNOWN
            channel.refused[resource.name] = Refusal(resource.kind, resource.name, resource.version, error)
            self._mark(sent.kind, channel, resource.name, channel.sent_since)
            return
        for resource in sent.resources:
            channel.alone.add(resource.name)
            channel.held[resource.name] = UNKNOWN
            self._mark(sent.kind, channel, resource.name, channel.sent_since)

    # --- what changed ------------------------------------------------------------------------------

    def refresh(self, seq: int) -> None:
        """The view changed in any way: mark all that differs from what the proxy has."""
        self._seq = seq
        for kind, channel in self._channels.items():
            self._mark_all(kind, channel)

    def touch(self, kind: Kind, name: str, seq: int) -> None:
        """One resource changed."""
        self._seq = seq
        channel = self._channels.get(kind)
        if channel is not None and (channel.wildcard or name in channel.names):
            self._mark(kind, channel, name, seq)

    def _mark_all(self, kind: Kind, channel: _Channel) -> None:
        names = {*channel.names, *channel.held, *channel.dirty}
        if channel.wildcard:
            names.update(self._view.names(kind))
        for name in names:
            self._mark(kind, channel, name, self._seq)

    def _mark(self, kind: Kind, channel: _Channel, name: str, seq: int) -> None:
        if self._differs(kind, channel, name):
            channel.dirty.setdefault(name, seq)
        else:
            channel.dirty.pop(name, None)

    def _differs(self, kind: Kind, channel: _Channel, name: str) -> bool:
        resource = self._view.find(kind, name)
        if resource is None:
            if kind is Kind.ASSIGNMENT and name in self._due:
                return self._view.known and name in channel.names
            if kind is Kind.SECRET:
                # Nobody takes a certificate back: a control that started again has none yet while the vault is
                # down, and the proxy's own is good until it ends. A proxy lets go of what it needs no more.
                return False
            # A name that nothing exists for stays subscribed and pending (xDS: "it could be created at any
            # time"); only what the proxy has can be removed.
            return (
                self._view.known
                and name in channel.held
                and (name in channel.acked or bool(channel.held[name]))
            )
        refused = channel.refused.get(name)
        if refused is not None and refused.version == resource.version:
            return False
        if kind is Kind.ASSIGNMENT and name in self._due:
            return True
        return channel.held.get(name) != resource.version

    # --- what goes out -----------------------------------------------------------------------------

    def has_marks(self) -> bool:
        """Whether anything is still to be sent, now or after an acknowledgement."""
        return any(channel.dirty or channel.reply_due for channel in self._channels.values())

    def responses(self) -> list[Response]:
        """All that may be sent now; each is counted as under way."""
        if not self.has_marks():
            return []
        out = []
        for kind in KINDS:
            channel = self._channels.get(kind)
            if channel is not None and channel.sent is None and not self._held_back(kind):
                response = self._respond(kind, channel, adding=True, removing=kind not in REMOVED_LAST)
                if response is not None:
                    out.append(response)
        if not out and not self._busy(KINDS) and self._shows_all():
            for kind in REMOVED_LAST:
                channel = self._channels.get(kind)
                if channel is not None and channel.sent is None:
                    response = self._respond(kind, channel, adding=False, removing=True)
                    if response is not None:
                        out.append(response)
                        break
        return out

    def _held_back(self, kind: Kind) -> bool:
        return kind >= Kind.LISTENER and self._busy(EARLIER[kind])

    def _shows_all(self) -> bool:
        """A proxy that came back says type by type what it holds; until it has everything of the view, it may
        still route to what the view has no more."""
        return not self.resumed or self.was_complete or self.has_answered_all()

    def _busy(self, kinds: Iterable[Kind]) -> bool:
        for kind in kinds:
            channel = self._channels.get(kind)
            if channel is None:
                continue
            if channel.sent is not None:
                return True
            if any(
                kind not in REMOVED_LAST or self._view.find(kind, name) is not None for name in channel.dirty
            ):
                return True
        return False

    def _respond(self, kind: Kind, channel: _Channel, *, adding: bool, removing: bool) -> Response | None:
        resources: list[Resource] = []
        removed: list[str] = []
        since = self._seq
        for name in sorted(channel.dirty):
            resource = self._view.find(kind, name)
            if resource is None:
                # A cluster that warms and went meanwhile must not wait for an assignment that never comes.
                if not removing and not (kind is Kind.ASSIGNMENT and name in self._due):
                    continue
                removed.append(name)
            elif not adding or (name in channel.alone and (resources or removed)):
                continue
            else:
                resources.append(resource)
            since = min(since, channel.dirty.pop(name))
            if resource is not None and name in channel.alone:
                break
        due = adding and channel.reply_due and self._view.known
        if not resources and not removed and not due:
            return None
        channel.reply_due = channel.reply_due and not due
        for resource in resources:
            channel.held[resource.name] = resource.version
            if kind is Kind.CLUSTER:
                self._supply(resource, since)
            elif kind is Kind.ASSIGNMENT:
                self._due.discard(resource.name)
        for name in removed:
            channel.held.pop(name, None)
            channel.refused.pop(name, None)
            if kind is Kind.ASSIGNMENT:
                self._due.discard(name)
        # The number of the newest change is nonce enough: each response is answered before the next of its
        # type, and unasked requests carry none. So all streams get the same bytes for the same change.
        response = Response(kind, str(self._seq), tuple(resources), tuple(removed))
        channel.sent, channel.sent_since = response, since
        return response

    def _supply(self, cluster: Resource, since: int) -> None:
        """xDS, "resource warming": an updated cluster is not in use before an assignment is supplied, even if
        that is the same; and Envoy, which has subscribed to it before, does not ask again."""
        assignments = [name for kind, name in cluster.needs if kind is Kind.ASSIGNMENT]
        self._due.update(assignments)
        channel = self._channels.get(Kind.ASSIGNMENT)
        for name in assignments:
            if channel is not None and name in channel.names:
                self._mark(Kind.ASSIGNMENT, channel, name, since)

    # --- what is known -----------------------------------------------------------------------------

    def oldest(self) -> int | None:
        """Number of the oldest change that this proxy has not acknowledged or refused; None: it has all."""
        pending: list[int] = []
        for channel in self._channels.values():
            pending.extend(channel.dirty.values())
            if channel.sent is not None:
                pending.append(channel.sent_since)
        return min(pending, default=None)

    def refusals(self) -> tuple[Refusal, ...]:
        return tuple(refusal for channel in self._channels.values() for refusal in channel.refused.values())

    def subscriptions(self) -> frozenset[Key]:
        """What is subscribed to by name."""
        return frozenset((kind, name) for kind, channel in self._channels.items() for name in channel.names)

    def has_all_listeners(self) -> bool:
        """Every listener of its view is acknowledged as it is now, with all that each needs."""
        complete = self._complete(refused_counts=False)
        self.was_complete = self.was_complete or complete
        return complete

    def has_answered_all(self) -> bool:
        """The same, where a refusal is an answer too, and what does not exist is not missed."""
        return self._complete(refused_counts=True)

    def _complete(self, *, refused_counts: bool) -> bool:
        channel = self._channels.get(Kind.LISTENER)
        if channel is None or channel.reply_due or not self._view.known:
            return False
        return all(
            self._in_use((Kind.LISTENER, name), refused_counts) for name in self._view.names(Kind.LISTENER)
        )

    def _in_use(self, key: Key, refused_counts: bool) -> bool:
        kind, name = key
        channel, resource = self._channels.get(kind), self._view.find(kind, name)
        if resource is None:
            held = kind is Kind.SECRET and channel is not None and name in channel.acked
            return held or refused_counts
        if channel is None:
            return False
        refused = channel.refused.get(name)
        if refused is not None and refused.version == resource.version:
            return refused_counts
        if channel.acked.get(name) != resource.version:
            return False
        return all(self._in_use(need, refused_counts) for need in resource.needs)
