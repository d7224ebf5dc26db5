"""From a view to resources: who sees what, the same bytes for the same view, and what must be in them."""

import json
import re
import socket
import sys
from dataclasses import replace

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2

from idi.declaration.types import AddressLimit, EdgeLimits, ExternalIssuer, RateLimit
from idi.parts.errors import Bug
from idi.parts.gateway.envoy.arguments import cluster_argv
from idi.parts.gateway.envoy.render.cluster_bootstrap import ClusterXds
from idi.parts.gateway.envoy.render.clusters import Lives, app_cluster
from idi.parts.gateway.envoy.render.secrets import secret_resources
from idi.parts.gateway.envoy.render.sidecar import inbound_listener, inbound_routes
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment
from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Shelf
from idi.parts.gateway.envoy.start import cluster_files
from idi.parts.gateway.interface import Identity
from idi.traffic.types import (
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
from idi.world.types import InstanceId

JWKS = '{"keys":[{"kty":"EC","crv":"P-256","x":"a","y":"b"}]}'


def identity(module: str) -> str:
    return f"spiffe://t.idi/dev/{module}"


def traffic(**changes: object) -> Traffic:
    """cam (two ports), jede that calls it and a database, rame that nobody calls; a gateway to cam."""
    services = {
        "cam": Service("cam", "cam", "http", identity("cam")),
        "cam.admin": Service("cam.admin", "cam", "grpc", identity("cam")),
        "jede": Service("jede", "jede", "http", identity("jede")),
        "rame": Service("rame", "rame", "http", identity("rame")),
        "warehouse": Service("warehouse", "warehouse", "tcp", "", ("127.0.0.1", 5432)),
    }
    cam = Sidecar(
        InstanceId("cam-1"),
        "cam",
        identity("cam"),
        (
            Inbound("http", "http", "127.0.0.1", 7001, 7002, (identity("jede"), identity(GATEWAY))),
            Inbound("admin", "grpc", "127.0.0.1", 7003, 7004, (identity("jede"),)),
        ),
        (),
    )
    jede = Sidecar(
        InstanceId("jede-1"),
        "jede",
        identity("jede"),
        (Inbound("http", "http", "127.0.0.1", 7005, 7006, ()),),
        (
            Outbound("cam", "http", 7007),
            Outbound("cam.admin", "grpc", 7008),
            Outbound("warehouse", "tcp", 7009),
        ),
    )
    gateway = Gateway(
        "127.0.0.1",
        8080,
        identity(GATEWAY),
        (GatewayRoute("cam", "/v1/cam/", "/", scopes=("cam.read",)),),
        EmbeddedKeys("https://issuer", "t", JWKS, "/run/issuer"),
        RateLimit(),
        AddressLimit(),
        EdgeLimits(),
    )
    made = Traffic(
        "t.idi",
        services,
        {"cam": Assignment("cam", (EndpointGroup("r1", 1, (Endpoint("cam-1", "127.0.0.1", 7001),)),))},
        {cam.instance: cam, jede.instance: jede},
        gateway,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def content(resource: Resource) -> bytes:
    (entry,) = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.entry).resources
    assert entry.name == resource.name
    assert entry.version == resource.version
    value: bytes = entry.resource.value
    return value


def everything(view: tuple[Shelf, dict[str, NodeResources]]) -> dict[str, bytes]:
    shared, nodes = view
    out = {f"{kind.name} {name}": r.entry for kind, shelf in shared.items() for name, r in shelf.items()}
    for node, resources in nodes.items():
        for kind, shelf in resources.own.items():
            out |= {f"{node} {kind.name} {name}": r.entry for name, r in shelf.items()}
    return out


def render(view: Traffic) -> tuple[Shelf, dict[str, NodeResources]]:
    shared, nodes = Renderer().render(view)
    return shared, dict(nodes)


def test_the_same_view_gives_the_same_bytes_in_any_order() -> None:
    one = traffic()
    turned = replace(
        one,
        services=dict(reversed(list(one.services.items()))),
        sidecars={
            key: replace(
                each,
                inbound=tuple(replace(i, allowed=tuple(reversed(i.allowed))) for i in each.inbound),
            )
            for key, each in reversed(list(one.sidecars.items()))
        },
    )
    assert everything(render(one)) == everything(render(turned))


def test_what_did_not_change_is_not_rendered_again() -> None:
    renderer = Renderer()
    _, first = renderer.render(traffic())
    other = dict(traffic().sidecars)
    other[InstanceId("rame-1")] = Sidecar(InstanceId("rame-1"), "rame", identity("rame"), (), ())
    _, second = renderer.render(traffic(sidecars=other))
    assert second["jede-1"] is first["jede-1"]
    assert second[GATEWAY] is first[GATEWAY]
    assert set(second) == {"cam-1", "jede-1", "rame-1", GATEWAY}


def test_a_node_sees_what_it_calls_and_nothing_else() -> None:
    shared, nodes = render(traffic())
    assert set(shared[Kind.CLUSTER]) == {"cam", "cam.admin", "jede", "rame", "warehouse"}
    assert nodes["cam-1"].sees[Kind.CLUSTER] == frozenset()
    assert nodes["jede-1"].sees[Kind.CLUSTER] == {"cam", "cam.admin", "warehouse"}
    assert nodes[GATEWAY].sees[Kind.ASSIGNMENT] == {"cam"}
    assert set(nodes["cam-1"].own[Kind.LISTENER]) == {"in.http", "in.admin"}
    assert set(nodes["jede-1"].own[Kind.LISTENER]) == {"in.http", "out.cam", "out.cam.admin", "out.warehouse"}


def test_every_service_has_an_assignment_even_if_empty() -> None:
    shared, _ = render(traffic())
    assert set(shared[Kind.ASSIGNMENT]) == {"cam", "cam.admin", "jede", "rame"}
    message = endpoint_pb2.ClusterLoadAssignment.FromString(content(shared[Kind.ASSIGNMENT]["rame"]))
    assert len(message.endpoints) == 0


def test_groups_are_localities_with_weights() -> None:
    ends = (Endpoint("cam-2", "127.0.0.1", 2), Endpoint("cam-1", "127.0.0.1", 1))
    resource = render_assignment(
        Assignment(
            "cam",
            (
                EndpointGroup("new", 10, ends),
                EndpointGroup("old", 90, ends[:1]),
                EndpointGroup("off", 0, ends),
            ),
        )
    )
    message = endpoint_pb2.ClusterLoadAssignment.FromString(content(resource))
    assert [(each.locality.zone, each.load_balancing_weight.value) for each in message.endpoints] == [
        ("new", 10),
        ("old", 90),
    ]
    ports = [each.endpoint.address.socket_address.port_value for each in message.endpoints[0].lb_endpoints]
    assert ports == [1, 2]


def test_who_may_call_is_in_the_routes_and_not_in_the_listener() -> None:
    before, after = render(traffic()), render(traffic(sidecars=revoked()))
    assert before[1]["cam-1"].own[Kind.LISTENER] == after[1]["cam-1"].own[Kind.LISTENER]
    assert before[1]["cam-1"].own[Kind.ROUTES] != after[1]["cam-1"].own[Kind.ROUTES]
    message = content(after[1]["cam-1"].own[Kind.ROUTES]["in.http"])
    assert identity("jede").encode() not in message
    assert identity(GATEWAY).encode() in message


def revoked() -> dict[InstanceId, Sidecar]:
    sidecars = dict(traffic().sidecars)
    cam = sidecars[InstanceId("cam-1")]
    inbound = tuple(replace(each, allowed=(identity(GATEWAY),)) for each in cam.inbound)
    sidecars[cam.instance] = replace(cam, inbound=inbound)
    return sidecars


def test_no_route_is_open_by_accident() -> None:
    """Every route of the gateway either asks for a token or is declared public (or IDI's own)."""
    _, nodes = render(traffic())
    message = route_pb2.RouteConfiguration.FromString(content(nodes[GATEWAY].own[Kind.ROUTES]["gateway"]))
    for host in message.virtual_hosts:
        open_routes = {
            each.name
            for each in host.routes
            if "envoy.filters.http.jwt_authn" in each.typed_per_filter_config
        }
        assert open_routes == {"health", "issuer", "not-found"}
        for each in host.routes:
            if each.name == "cam":
                assert b"cam.read" in each.typed_per_filter_config["envoy.filters.http.rbac"].value


def test_a_cluster_accepts_exactly_one_identity() -> None:
    shared, _ = render(traffic())
    message = cluster_pb2.Cluster.FromString(content(shared[Kind.CLUSTER]["cam"]))
    assert identity("cam").encode() in message.transport_socket.typed_config.value
    plain = cluster_pb2.Cluster.FromString(content(shared[Kind.CLUSTER]["warehouse"]))
    assert not plain.HasField("transport_socket")


@pytest.mark.requirement("D1", "G2")
def test_a_machine_that_vanished_is_noticed_by_the_kernel_of_whoever_calls_it() -> None:
    shared, _ = render(traffic())
    message = cluster_pb2.Cluster.FromString(content(shared[Kind.CLUSTER]["cam"]))
    keepalive = message.upstream_connection_options.tcp_keepalive
    assert keepalive.keepalive_time.value + keepalive.keepalive_interval.value * 3 <= 4
    if sys.platform == "linux":
        [option] = message.upstream_bind_config.socket_options
        assert (option.level, option.name) == (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert option.int_value == 3000
    outside = cluster_pb2.Cluster.FromString(content(shared[Kind.CLUSTER]["warehouse"]))
    assert not outside.HasField("upstream_bind_config")


def test_the_key_is_in_its_secret_alone() -> None:
    secret, roots = secret_resources(Identity(identity("cam"), b"CHAIN", b"KEY", b"ROOTS", 0.0))
    assert b"KEY" in secret.entry
    assert b"KEY" not in roots.entry
    assert "KEY" not in repr(secret)


def test_keys_of_an_external_issuer_must_have_been_found() -> None:
    gateway = traffic().gateway
    assert gateway is not None
    with pytest.raises(Bug):
        render(traffic(gateway=replace(gateway, issuer=ExternalIssuer("https://issuer", "t"))))


def test_certificates_of_short_life_give_connections_of_shorter_life() -> None:
    shared, _ = render(traffic(certificate_life_s=9.0))
    message = cluster_pb2.Cluster.FromString(content(shared[Kind.CLUSTER]["cam"]))
    (options,) = message.typed_extension_protocol_options.values()
    assert options.value  # its duration is checked on a real Envoy, under rotation
    other, _ = render(traffic())
    assert other[Kind.CLUSTER]["cam"].version != shared[Kind.CLUSTER]["cam"].version


@pytest.mark.requirement("T4")
@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        ("/events/decided", True), ("/events/decided/", True), ("//events///decided", True), ("/Events/DECIDED", True),
        ("/events%2Fdecided", True), ("%2fevents/decided", True), ("/events;a=b/decided;c", True),
        ("/x/..;/events/decided", True), ("/x/..%2Fevents/decided", True),
        ("/events", False), ("/events/decided/else", False), ("/events/decided-not", False),
        ("/a/events/decided", False),
    ],
)  # fmt: skip
def test_a_reserved_path_is_known_in_every_spelling(path: str, reserved: bool) -> None:
    inbound = Inbound(
        "http", "http", "127.0.0.1", 1, 2, ("a",), reserved=("/events/decided",), reserved_for="relay"
    )
    message = route_pb2.RouteConfiguration.FromString(content(inbound_routes(inbound)))
    routes = message.virtual_hosts[0].routes[:-1]
    assert any(re.fullmatch(each.match.safe_regex.regex, path) for each in routes) == reserved


def test_all_gateways_have_the_same_resources() -> None:
    _, nodes = render(traffic(gateways=("gateway-7f", "gateway-9c")))
    assert nodes["gateway-7f"] == nodes["gateway-9c"]
    assert GATEWAY not in nodes


def test_a_pod_binds_its_own_address_and_reaches_its_module_by_loopback() -> None:
    inbound = Inbound("http", "http", "10.244.1.7", 20101, 20001, ())
    listener = listener_pb2.Listener.FromString(content(inbound_listener(inbound, "t.idi", Lives(60.0))))
    address = listener.address.socket_address
    assert (address.address, address.port_value) == ("10.244.1.7", 20101)
    cluster = cluster_pb2.Cluster.FromString(content(app_cluster(inbound)))
    (group,) = cluster.load_assignment.endpoints
    (end,) = group.lb_endpoints
    address = end.endpoint.address.socket_address
    assert (address.address, address.port_value) == ("127.0.0.1", 20001)


def test_the_files_of_a_cluster_name_nobody_and_hold_no_token() -> None:
    files = cluster_files(ClusterXds("xds.shop.svc", 8444), b"ROOTS", "/run/idi/envoy.admin", 1000)
    assert set(files) == {"bootstrap.json", "gateway.json", "roots.json"}
    for name in ("bootstrap.json", "gateway.json"):
        document = json.loads(files[name])
        assert "node" not in document
        assert document["admin"]["address"]["pipe"]["path"] == "/run/idi/envoy.admin"
        assert "initial_metadata" not in json.dumps(document)
    assert files["bootstrap.json"] != files["gateway.json"]
    argv = cluster_argv("envoy", "/etc/idi/proxy", "jede-7f9-x2", workers=1)
    assert argv[:5] == ("envoy", "--service-node", "jede-7f9-x2", "--service-cluster", "idi")
    assert "/etc/idi/proxy/bootstrap.json" in argv
    assert "/etc/idi/proxy/gateway.json" in cluster_argv("envoy", "/etc/idi/proxy", "g", gateway=True)
