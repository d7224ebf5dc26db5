"""The whole view: which resources there are, and which node sees what.

Rendering is remembered by its input: a publish after the birth of one instance encodes that instance's
resources and looks the others up. What was not used in a publish is forgotten after it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from idi.parts.gateway.envoy.render import clusters, endpoints, sidecar
from idi.parts.gateway.envoy.render.callers import Callers
from idi.parts.gateway.envoy.render.gateway import gateway_resources
from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Shelf
from idi.traffic.types import Assignment, Gateway, Sidecar, Traffic

Result = TypeVar("Result")


def render_assignment(assignment: Assignment) -> Resource:
    return endpoints.assignment_resource(assignment)


class Renderer:
    """Renders views; keeps what the last one was made of. `callers` has what goes by SDS."""

    def __init__(self) -> None:
        self.callers = Callers()
        self._moved: dict[str, None] = {}
        self._before: dict[Hashable, object] = {}
        self._now: dict[Hashable, object] = {}

    def render(self, traffic: Traffic) -> tuple[Shelf, Mapping[str, NodeResources]]:
        self._before, self._now = self._now, {}
        self._moved |= dict.fromkeys(self.callers.learn(traffic))
        lives = clusters.Lives(traffic.certificate_life_s)
        services = traffic.services.values()
        shared: Shelf = {
            Kind.CLUSTER: _by_name(
                self._once(clusters.service_cluster, service, lives) for service in services
            ),
            # A service that has no assignment yet has an empty one: its cluster is ready, and answers 503.
            Kind.ASSIGNMENT: _by_name(
                self._once(
                    endpoints.assignment_resource,
                    traffic.assignments.get(service.name) or Assignment(service.name, ()),
                )
                for service in services
                if service.address is None
            ),
        }
        nodes: dict[str, NodeResources] = {
            instance: self._once(_sidecar, each, traffic.trust_domain, lives, self.callers.names(instance))
            for instance, each in traffic.sidecars.items()
        }
        if traffic.gateway is not None:
            nodes |= dict.fromkeys(traffic.gateways, self._once(_gateway, traffic.gateway))
        return shared, nodes

    def moved(self) -> list[str]:
        """The nodes for which what goes by SDS is another one since this was asked last, also where a view could not be
        made meanwhile."""
        moved, self._moved = [*self._moved], {}
        return moved

    def _once(self, make: Callable[..., Result], *inputs: Hashable) -> Result:
        key = (make, *inputs)
        if key not in self._now:
            self._now[key] = self._before[key] if key in self._before else make(*inputs)
        return self._now[key]  # type: ignore[return-value]


def _sidecar(
    each: Sidecar, trust_domain: str, lives: clusters.Lives, callers: tuple[tuple[str, str], ...]
) -> NodeResources:
    named = dict(callers)
    http = [inbound for inbound in each.inbound if inbound.protocol != "tcp"]
    return NodeResources(
        sees=_sees(outbound.service for outbound in each.outbound),
        own={
            Kind.CLUSTER: _by_name(clusters.app_cluster(inbound) for inbound in each.inbound),
            Kind.LISTENER: _by_name(
                [
                    *(
                        sidecar.inbound_listener(
                            inbound, trust_domain, lives, named.get(inbound.port_name, "")
                        )
                        for inbound in each.inbound
                    ),
                    *(sidecar.outbound_listener(outbound) for outbound in each.outbound),
                ]
            ),
            Kind.ROUTES: _by_name(sidecar.inbound_routes(inbound) for inbound in http),
        },
        admits={inbound.port_name: inbound.allowed for inbound in each.inbound if inbound.protocol == "tcp"},
    )


def _gateway(gateway: Gateway) -> NodeResources:
    own: dict[Kind, dict[str, Resource]] = {}
    for resource in gateway_resources(gateway):
        own.setdefault(resource.kind, {})[resource.name] = resource
    return NodeResources(sees=_sees(route.service for route in gateway.routes), own=own)


def _sees(services: Iterable[str]) -> Mapping[Kind, frozenset[str]]:
    names = frozenset(services)
    return {Kind.CLUSTER: names, Kind.ASSIGNMENT: names}


def _by_name(resources: Iterable[Resource]) -> dict[str, Resource]:
    return {resource.name: resource for resource in resources}
