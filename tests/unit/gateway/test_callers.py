"""Who may come to a tcp port, over the end of a control: whoever was taken away meanwhile loses what it has open."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from idi.parts.gateway.envoy import snapshot
from idi.parts.gateway.envoy.render.view import Renderer
from idi.parts.gateway.envoy.resources import Kind, NodeResources, Shelf, Store
from idi.parts.gateway.interface import Identity
from idi.traffic.types import Inbound, Service, Sidecar, Traffic
from idi.world.types import InstanceId

pytestmark = pytest.mark.requirement("S4", "T4")

NODE = "db-1"


def traffic(*callers: str) -> Traffic:
    allowed = tuple(f"spiffe://t.idi/dev/{caller}" for caller in callers)
    port = Inbound("db", "tcp", "127.0.0.1", 7001, 7002, allowed)
    identity = "spiffe://t.idi/dev/db"
    return Traffic(
        trust_domain="t.idi",
        services={"db": Service("db", "db", "tcp", identity)},
        sidecars={InstanceId(NODE): Sidecar(InstanceId(NODE), "db", identity, (port,), ())},
    )


def listener(nodes: Mapping[str, NodeResources]) -> str:
    [found] = nodes[NODE].own[Kind.LISTENER].values()
    return found.version


def restarted(shared: Shelf, nodes: Mapping[str, NodeResources]) -> Renderer:
    """The renderer of a control that finds on disk what the one before it had published."""
    store = Store()
    store.replace(shared, nodes)
    after = Store()
    after.replace(*snapshot.parse(snapshot.dump(store)))
    renderer = Renderer()
    renderer.callers.restore(after.nodes())
    return renderer


@pytest.mark.parametrize(
    ("now", "ends"),
    [(("cam", "pas"), False), (("cam", "pas", "eat"), False), (("cam",), True), (("cam", "eat"), True)],
)
def test_only_who_was_taken_away_while_there_was_no_control_ends_connections(
    now: tuple[str, ...], ends: bool
) -> None:
    shared, before = Renderer().render(traffic("cam", "pas"))
    _, after = restarted(shared, before).render(traffic(*now))
    assert (listener(after) != listener(before)) is ends


def test_it_goes_on_counting() -> None:
    first = Renderer()
    versions = []
    for callers in (("cam", "pas"), ("cam",), ("cam", "pas"), ("cam",)):
        shared, nodes = first.render(traffic(*callers))
        versions.append(listener(nodes))
    _, same = restarted(shared, nodes).render(traffic("cam"))
    assert listener(same) == versions[-1]
    _, fewer = restarted(shared, nodes).render(traffic())
    assert listener(fewer) not in versions


def test_no_secret_is_made_before_there_is_a_view() -> None:
    """An identity comes first after a start; the proxy keeps whom an earlier control let in."""
    shared, nodes = Renderer().render(traffic("cam"))
    renderer = restarted(shared, nodes)
    renderer.callers.identity(NODE, Identity("spiffe://t.idi/dev/db", b"chain", b"key", b"roots", 0.0))
    names = {secret.name for secret in renderer.callers.secrets(NODE)}
    assert not any(name.startswith("callers.") for name in names)
    renderer.render(traffic("cam"))
    assert renderer.moved() == [NODE], "now it gets all of them, though nothing else has changed"
    assert any(secret.name == "callers.db#0" for secret in renderer.callers.secrets(NODE))
    renderer.render(traffic("cam"))
    assert renderer.moved() == []


def test_what_was_kept_before_callers_were_is_read() -> None:
    store = Store()
    store.replace(*Renderer().render(traffic("cam")))
    document = json.loads(snapshot.dump(store))
    for node in document["nodes"].values():
        del node["admits"]
    _, nodes = snapshot.parse(json.dumps(document).encode())
    renderer = Renderer()
    renderer.callers.restore(nodes)
    _, after = renderer.render(traffic("cam"))
    assert listener(after) == listener(nodes)
