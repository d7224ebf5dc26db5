"""Traffic follows the declaration and the world, and only what was declared may flow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idi.declaration.types import (
    EmbeddedIssuer,
    External,
    Gateway,
    LocalTarget,
    Module,
    ModuleName,
    Platform,
    Port,
    Route,
)
from idi.traffic.types import EmbeddedKeys, Endpoint
from idi.traffic.view import assignment, view
from idi.world.events import InstanceReady, InstanceSeen, RevisionEnsured, SharesSet
from idi.world.fold import fold, fold_all
from idi.world.types import InstanceId, RevisionId, World
from tests.support.worlds import instance, spec

CAM, JEDE = ModuleName("cam"), ModuleName("jede")
KEYS = EmbeddedKeys("http://127.0.0.1:8080", "junzi", "{}", "/run/issuer")


def platform(*modules: Module) -> Platform:
    return Platform(
        name="junzi",
        environment="dev",
        target=LocalTarget(),
        gateway=Gateway(issuer=EmbeddedIssuer()),
        modules={module.name: module for module in modules},
        externals={"db": External("db", "127.0.0.1", 5432)},
    )


JUNZI = platform(
    Module(JEDE, calls=("cam", "db"), routes=(Route("/v1/jede/"), Route("/v1/jede/deep/", methods=("GET",)))),
    Module(CAM, ports=(Port("http"), Port("admin"))),
)


def world_of(*slots: tuple[str, int, str, str]) -> World:
    events = []
    for module, slot, revision, state in slots:
        events.append(RevisionEnsured(spec(module, revision), 1))
        events.append(InstanceSeen(instance(module, slot, revision, state)))  # type: ignore[arg-type]
    return fold_all(World(), events)[0]


@pytest.mark.requirement("D1")
def test_only_ready_instances_get_traffic() -> None:
    world = world_of(
        ("cam", 1, "aaaa", "ready"), ("cam", 2, "aaaa", "unready"), ("cam", 3, "aaaa", "stopping")
    )
    traffic = view(JUNZI, world, "127.0.0.1", 8080, KEYS)
    [group] = traffic.assignments["cam"].groups
    assert [endpoint.instance for endpoint in group.endpoints] == ["cam-1"]
    assert group.weight == 1


def test_revisions_weigh_by_their_instances_until_shares_say_otherwise() -> None:
    world = world_of(("cam", 1, "aaaa", "ready"), ("cam", 2, "aaaa", "ready"), ("cam", 3, "bbbb", "ready"))
    service = view(JUNZI, world, "127.0.0.1", 8080, KEYS).services["cam"]
    assert [(g.revision, g.weight) for g in assignment(world, service).groups] == [("aaaa", 2), ("bbbb", 1)]
    world, dirty = fold(world, SharesSet(CAM, ((RevisionId("aaaa"), 90), (RevisionId("bbbb"), 10))))
    assert dirty == {CAM}
    assert [(g.revision, g.weight) for g in assignment(world, service).groups] == [("aaaa", 90), ("bbbb", 10)]


@pytest.mark.requirement("S4", "G2")
def test_a_sidecar_lets_in_who_declared_it_and_nobody_else() -> None:
    world = world_of(("cam", 1, "aaaa", "ready"), ("jede", 1, "aaaa", "ready"))
    sidecars = view(JUNZI, world, "127.0.0.1", 8080, KEYS).sidecars
    [inbound] = sidecars[InstanceId("cam-1")].inbound
    assert inbound.allowed == ("spiffe://junzi.idi/dev/jede",)
    [inbound] = sidecars[InstanceId("jede-1")].inbound
    assert inbound.allowed == ("spiffe://junzi.idi/dev/gateway",)


@pytest.mark.requirement("S4", "G2")
def test_the_gateway_is_let_in_where_a_route_leads_and_at_no_other_port() -> None:
    cam = Module(CAM, ports=(Port("web"), Port("http"), Port("admin")), routes=(Route("/v1/cam/"),))
    world, _ = fold(
        World(),
        InstanceSeen(
            replace(
                instance("cam", 1, "aaaa"),
                ports={"web": 1, "http": 2, "admin": 3},
                mesh={"web": 4, "http": 5, "admin": 6},
            )
        ),
    )
    traffic = view(platform(cam), world, "127.0.0.1", 8080, KEYS)
    assert traffic.gateway is not None
    assert [route.service for route in traffic.gateway.routes] == ["cam.http"]
    allowed = {
        inbound.port_name: inbound.allowed for inbound in traffic.sidecars[InstanceId("cam-1")].inbound
    }
    assert allowed == {"web": (), "http": ("spiffe://junzi.idi/dev/gateway",), "admin": ()}


def test_a_further_port_is_a_service_of_its_own() -> None:
    traffic = view(JUNZI, world_of(), "127.0.0.1", 8080, KEYS)
    assert list(traffic.services) == ["jede", "cam", "cam.admin", "db"]
    assert traffic.services["db"].address == ("127.0.0.1", 5432)


def test_the_most_specific_route_comes_first() -> None:
    gateway = view(JUNZI, world_of(), "127.0.0.1", 8080, KEYS).gateway
    assert gateway is not None
    assert [route.path for route in gateway.routes] == ["/v1/jede/deep/", "/v1/jede/"]


def test_the_fast_path_gives_what_the_whole_view_gives() -> None:
    world = world_of(("cam", 1, "aaaa", "starting"), ("jede", 1, "aaaa", "ready"))
    before = view(JUNZI, world, "127.0.0.1", 8080, KEYS)
    world, _ = fold(world, InstanceReady(CAM, InstanceId("cam-1"), 1.0))
    after = view(JUNZI, world, "127.0.0.1", 8080, KEYS)
    assert assignment(world, before.services["cam"]) == after.assignments["cam"]
    first = instance("cam", 1, "aaaa")
    assert after.assignments["cam"].groups[0].endpoints == (
        Endpoint("cam-1", "127.0.0.1", first.mesh["http"]),
    )
