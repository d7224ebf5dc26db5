"""What a proxy gets by SDS: its certificate, the roots that it trusts, and for each tcp port who may come to it.

At a tcp port the handshake judges callers (tls.py). Whom it lets in is a secret of the proxy's own, and no part of the
listener: a caller more is taken in by an update of that secret, which ends no connection, where an update of the
listener would end all of them. A caller less has to lose what it has open: the secret gets another name (a number that
counts this), so the listener that names it is another one, and what came in by the former ends with its drain. Who is
allowed still comes again at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from idi.parts.gateway.envoy.render.secrets import callers_resource, secret_resources
from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource
from idi.parts.gateway.interface import Identity
from idi.traffic.types import Traffic

PREFIX = "callers."


@dataclass(slots=True)
class Port:
    """`fewer` counts how often somebody of `allowed` was taken away."""

    allowed: tuple[str, ...] = ()
    fewer: int = 0


def name_of(port_name: str, fewer: int) -> str:
    return f"{PREFIX}{port_name}#{fewer}"


@dataclass(slots=True)
class Callers:
    _ports: dict[str, dict[str, Port]] = field(default_factory=dict)
    _identities: dict[str, Identity] = field(default_factory=dict)
    _trust_domain: str = ""

    def restore(self, nodes: Mapping[str, NodeResources]) -> None:
        """Go on from what was published by an earlier control: else the connections of all would end, or that of one
        who was taken away while there was none would not."""
        for node, resources in nodes.items():
            for listener in resources.own.get(Kind.LISTENER, {}).values():
                for kind, name in listener.needs:
                    if kind is Kind.SECRET and name.startswith(PREFIX):
                        port_name, _, fewer = name.removeprefix(PREFIX).rpartition("#")
                        allowed = resources.admits.get(port_name, ())
                        self._ports.setdefault(node, {})[port_name] = Port(allowed, int(fewer))

    def identity(self, node: str, identity: Identity) -> None:
        self._identities[node] = identity

    def learn(self, traffic: Traffic) -> list[str]:
        """The nodes whose secrets are others now; at first all, for none has had any from here."""
        first, self._trust_domain = not self._trust_domain, traffic.trust_domain
        moved: list[str] = []
        before, self._ports = self._ports, {}
        for node, sidecar in traffic.sidecars.items():
            ports = self._ports[node] = {}
            known = before.get(node, {})
            for inbound in sidecar.inbound:
                if inbound.protocol != "tcp":
                    continue
                was = known.get(inbound.port_name, Port())
                fewer = was.fewer + bool(set(was.allowed) - set(inbound.allowed))
                ports[inbound.port_name] = Port(inbound.allowed, fewer)
            if ports != known or (first and ports):
                moved.append(node)
        for gone in before.keys() - self._ports.keys():
            self._identities.pop(gone, None)
        return moved

    def names(self, node: str) -> tuple[tuple[str, str], ...]:
        """Each tcp port and the name of its secret."""
        ports = self._ports.get(node, {})
        return tuple((port_name, name_of(port_name, port.fewer)) for port_name, port in ports.items())

    def secrets(self, node: str) -> tuple[Resource, ...]:
        """All of a node's; none before its certificate is there."""
        identity = self._identities.get(node)
        if identity is None:
            return ()
        return (*secret_resources(identity), *self._callers(node, identity))

    def _callers(self, node: str, identity: Identity) -> Iterator[Resource]:
        if not self._trust_domain:
            return  # no view was made yet: proxies have what an earlier control said
        for port_name, port in self._ports.get(node, {}).items():
            # What still drains is judged alike, should it be asked.
            for fewer in range(max(0, port.fewer - 1), port.fewer + 1):
                name = name_of(port_name, fewer)
                yield callers_resource(name, identity, port.allowed, self._trust_domain)
