"""(declaration, world) -> traffic.

Two functions, because two things change at different speeds. `view` builds everything and runs when an
intention changed the declaration or an instance got new ports; `assignment` builds the endpoints of one
service and runs at every birth and death. Both are pure and deterministic: the same world gives the
same value, and whoever publishes it finds out by comparison that there is nothing to send.
"""

from __future__ import annotations

from collections.abc import Mapping

from idi.declaration.types import ExternalIssuer, KubernetesTarget, Module, ModuleName, Platform, Route
from idi.plan.bus import BUS, RELAY
from idi.traffic.types import (
    CONTROL,
    GATEWAY,
    Assignment,
    EmbeddedKeys,
    Endpoint,
    EndpointGroup,
    Gateway,
    GatewayRoute,
    Inbound,
    Outbound,
    Service,
    Sidecar,
    Traffic,
)
from idi.world.types import Instance, InstanceId, ModuleWorld, World


def view(
    platform: Platform,
    world: World,
    address: str,
    port: int,
    issuer: EmbeddedKeys | ExternalIssuer,
    access_log: str = "",
) -> Traffic:
    """Everything: services, endpoints, every sidecar that exists, the gateway at `address:port`."""
    shapes = services(platform)
    return Traffic(
        trust_domain=platform.trust_domain,
        services=shapes,
        assignments={
            name: assignment(world, service) for name, service in shapes.items() if service.address is None
        },
        sidecars={
            instance.id: sidecar(platform, instance, shapes)
            for instance in world.instances()
            if instance.mesh and instance.module in platform.modules
        },
        gateway=gateway(platform, address, port, issuer, access_log),
        certificate_life_s=platform.certificates.life_s,
    )


def services(platform: Platform) -> dict[str, Service]:
    """One service per port of each module, and one per external."""
    found = {}
    for module in platform.modules.values():
        for index, port in enumerate(module.ports):
            name = service_name(module, port.name, index)
            found[name] = Service(name, module.name, port.protocol, platform.identity(module.name))
    for external in platform.externals.values():
        found[external.name] = Service(
            external.name, "", external.protocol, "", (external.host, external.port)
        )
    return found


def service_name(module: Module, port: str, index: int | None = None) -> str:
    if index is None:
        index = [p.name for p in module.ports].index(port)
    return module.name if index == 0 else f"{module.name}.{port}"


def route_port(module: Module, route: Route) -> str:
    """The port that a route leads to: the default one unless it names another."""
    return route.port if any(port.name == route.port for port in module.ports) else module.ports[0].name


def assignment(world: World, service: Service) -> Assignment:
    """The ready endpoints of one service, by revision. Without explicit shares each revision weighs as
    many as it has endpoints; a revision with share 0 keeps its endpoints and gets no traffic."""
    module = world.modules.get(ModuleName(service.module), ModuleWorld())
    port = service.name.partition(".")[2]
    by_revision: dict[str, list[Endpoint]] = {}
    for instance in sorted(module.instances.values(), key=lambda i: i.id):
        if instance.state != "ready":
            continue
        mesh = instance.mesh.get(port) if port else next(iter(instance.mesh.values()), None)
        if mesh:
            endpoint = Endpoint(instance.id, instance.address, mesh)
            by_revision.setdefault(instance.revision, []).append(endpoint)
    shares: Mapping[str, int] = {str(k): v for k, v in module.shares.items()}
    groups = (
        EndpointGroup(revision, shares.get(revision, 0) if shares else len(endpoints), tuple(endpoints))
        for revision, endpoints in sorted(by_revision.items())
    )
    return Assignment(service.name, tuple(groups))


def sidecar(platform: Platform, instance: Instance, shapes: Mapping[str, Service]) -> Sidecar:
    """What one sidecar listens on. Callers: modules that declare it under `calls`, and the gateway
    where a route leads to that port. Where events are posted the relay alone may call: an event is what it was
    let in as. On a cluster control calls the bus as anybody does; on a laptop it is beside it."""
    module = platform.modules[instance.module]
    callers = [m.name for m in platform.modules.values() if module.name in m.calls]
    inbound = []
    for port in module.ports:
        mesh_port = instance.mesh.get(port.name)
        if not mesh_port:
            continue
        allowed = [platform.identity(name) for name in callers]
        if any(route_port(module, route) == port.name for route in module.routes):
            allowed.append(platform.identity(GATEWAY))
        if module.name == BUS and isinstance(platform.target, KubernetesTarget):
            allowed.append(platform.identity(CONTROL))
        inbound.append(
            Inbound(
                port.name,
                port.protocol,
                instance.address,
                mesh_port,
                instance.ports[port.name],
                tuple(sorted(allowed)),
                # Events are posted to the default port.
                reserved=tuple(sorted(set(module.handles.values()))) if port is module.ports[0] else (),
                reserved_for=platform.identity(RELAY),
            )
        )
    outbound = [
        Outbound(peer, shapes[peer].protocol, listen)
        for peer, listen in instance.outbound.items()
        if peer in shapes and (peer.partition(".")[0] in module.calls)
    ]
    return Sidecar(
        InstanceId(instance.id), module.name, platform.identity(module.name), tuple(inbound), tuple(outbound)
    )


def gateway(
    platform: Platform,
    address: str,
    port: int,
    issuer: EmbeddedKeys | ExternalIssuer,
    access_log: str,
) -> Gateway:
    """The door: every route of every module, most specific first."""
    routes = []
    for module in platform.modules.values():
        for route in module.routes:
            routes.append(
                GatewayRoute(
                    service=service_name(module, route_port(module, route)),
                    path=route.path,
                    rewrite=route.rewrite,
                    host=route.host,
                    methods=route.methods,
                    headers=route.headers,
                    scopes=route.scopes,
                    public=route.public,
                    timeout_s=route.timeout_s,
                    body_bytes=route.body_bytes,
                )
            )
    routes.sort(key=lambda r: (-len(r.path), not r.host, -len(r.headers), not r.methods, r.path, r.service))
    return Gateway(
        address=address,
        port=port,
        identity=platform.identity(GATEWAY),
        routes=tuple(routes),
        issuer=issuer,
        rate_limit=platform.gateway.rate_limit,
        address_limit=platform.gateway.address_limit,
        limits=platform.gateway.limits,
        cors=platform.gateway.cors,
        tls=platform.gateway.tls,
        access_log=access_log,
    )
