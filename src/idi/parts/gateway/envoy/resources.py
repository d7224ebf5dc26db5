"""What each proxy may have, as bytes that were encoded once.

A `Resource` is one entry of an incremental response, already in the form in which it goes on the wire, so
that a change costs one encoding whatever the number of proxies. Its version is the hash of its content: a
view that is rendered again and comes out the same changes nothing and sends nothing, across restarts too.

Shared resources (clusters, assignments) exist once; a node sees those that its view names. A node's own
resources (listeners, routes, the clusters of its own module, secrets) are only ever its own: a proxy
cannot ask for another one's key, nor for a module that it does not call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b


class Kind(IntEnum):
    """Resource types, in the order in which a proxy must get them (make before break)."""

    CLUSTER = 0
    ASSIGNMENT = 1
    SECRET = 2
    LISTENER = 3
    FILTER = 4
    ROUTES = 5


TYPE_URL: Mapping[Kind, str] = {
    Kind.CLUSTER: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    Kind.ASSIGNMENT: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    Kind.SECRET: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    Kind.LISTENER: "type.googleapis.com/envoy.config.listener.v3.Listener",
    Kind.FILTER: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
    Kind.ROUTES: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}
KIND_OF_URL: Mapping[str, Kind] = {url: kind for kind, url in TYPE_URL.items()}

Key = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Resource:
    """`entry` is the encoded `resources` field of a response; `needs` what must be acknowledged too before
    the proxy has put this one to use (a cluster warms until its assignment and its secrets are there)."""

    kind: Kind
    name: str
    version: str
    entry: bytes = field(repr=False)
    needs: tuple[Key, ...] = ()


def version_of(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()


Shelf = Mapping[Kind, Mapping[str, Resource]]


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What one node gets: names of shared resources that it sees, and its own. `admits`: who may come to each of its
    tcp ports; proxies get that by secrets, which are not kept, so it is here for whoever renders the next view."""

    sees: Mapping[Kind, frozenset[str]] = field(default_factory=dict)
    own: Shelf = field(default_factory=dict)
    admits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Store:
    """Everything published. Only `replace`, `put` and `put_own` change it."""

    def __init__(self) -> None:
        self._shared: dict[Kind, dict[str, Resource]] = {kind: {} for kind in Kind}
        self._nodes: dict[str, NodeResources] = {}
        self._secrets: dict[str, dict[str, Resource]] = {}

    def replace(self, shared: Shelf, nodes: Mapping[str, NodeResources]) -> None:
        """Exchange everything but the secrets, which have their own life: a node may get its certificate before
        anything else is known of it, and loses it when it goes."""
        for gone in self._nodes.keys() - nodes.keys():
            self._secrets.pop(gone, None)
        self._shared = {kind: dict(shared.get(kind, {})) for kind in Kind}
        self._nodes = dict(nodes)

    def put(self, resource: Resource) -> bool:
        """Replace one shared resource; False if it is the same as before."""
        shelf = self._shared[resource.kind]
        before = shelf.get(resource.name)
        if before is not None and before.version == resource.version:
            return False
        shelf[resource.name] = resource
        return True

    def put_secrets(self, node: str, secrets: Iterable[Resource]) -> tuple[str, ...]:
        """Replace a node's secrets; the names of those that changed."""
        before = self._secrets.get(node, {})
        after = {secret.name: secret for secret in secrets}
        self._secrets[node] = after
        return tuple(name for name, now in after.items() if before.get(name) != now)

    def copy(self) -> Store:
        """The same resources in a store of their own, without the secrets: cheap, for they never change."""
        made = Store()
        made._shared = {kind: dict(shelf) for kind, shelf in self._shared.items()}
        made._nodes = dict(self._nodes)
        return made

    def shared(self, kind: Kind) -> Mapping[str, Resource]:
        return self._shared[kind]

    def nodes(self) -> Mapping[str, NodeResources]:
        return self._nodes

    def view(self, node: str) -> NodeView:
        return NodeView(self, node)

    def find(self, node: str, kind: Kind, name: str) -> Resource | None:
        if kind is Kind.SECRET and (secret := self._secrets.get(node, {}).get(name)) is not None:
            return secret
        resources = self._nodes.get(node)
        if resources is None:
            return None
        own = resources.own.get(kind, {}).get(name)
        if own is not None:
            return own
        return self._shared[kind].get(name) if name in resources.sees.get(kind, ()) else None

    def names(self, node: str, kind: Kind) -> tuple[str, ...]:
        """All names of a kind that this node may have, in a fixed order."""
        resources = self._nodes.get(node)
        if resources is None:
            return ()
        seen = (name for name in resources.sees.get(kind, ()) if name in self._shared[kind])
        return tuple(sorted({*seen, *resources.own.get(kind, ())}))


@dataclass(frozen=True, slots=True)
class NodeView:
    """The store as one node sees it; reads through, so it is always current."""

    _store: Store
    _node: str

    @property
    def known(self) -> bool:
        """Whether a view was published for this node at all."""
        return self._node in self._store.nodes()

    def find(self, kind: Kind, name: str) -> Resource | None:
        return self._store.find(self._node, kind, name)

    def names(self, kind: Kind) -> tuple[str, ...]:
        return self._store.names(self._node, kind)
