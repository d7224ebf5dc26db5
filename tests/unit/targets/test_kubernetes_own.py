"""Relay and broker on a cluster: which image, which words, who may reach them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from idi.declaration.load import Loaded, load
from idi.declaration.types import KubernetesTarget, Platform
from idi.parts.targets.kubernetes.values import Reach, Settings, release_values
from idi.parts.targets.recorded import document_of, spec_of
from idi.plan.bus import BUS, RELAY, with_bus
from idi.plan.desired import desired
from idi.plan.types import Context, Overlays
from idi.plan.unbuilt import unbuilt
from idi.traffic.view import services, sidecar
from idi.world.types import RevisionSpec
from tests.support.worlds import instance

pytestmark = pytest.mark.requirement("K1", "B1")

D = "@sha256:" + "0" * 64
TEXT = f"""
platform: shop
modules:
  orders: {{run: x, image: "orders{D}", publishes: [order.placed]}}
  mail: {{run: x, image: "mail{D}", handles: {{order.placed: /placed}}}}
environments:
  staging: {{target: {{kubernetes: {{context: here, images: {{control: "c{D}", sidecar: "s{D}", relay: "r{D}"}}}}}}}}
"""
CONTEXT = Context(
    "", "http://gateway", relay=f"r{D}", places={"bus.program": "nats-server", "bus.config": "/c"}
)
NOBODY = Reach()


def declared(text: str = TEXT, environment: str = "staging") -> Platform:
    loaded = load(text, file="platform.yaml", environment=environment)
    assert isinstance(loaded, Loaded), loaded
    return loaded.platform


def specs() -> dict[str, RevisionSpec]:
    found = desired(with_bus(declared()), Overlays(), CONTEXT).modules
    return {str(name): one.spec for name, one in found.items()}


def values(spec: RevisionSpec, reach: Reach = NOBODY) -> dict[str, object]:
    return release_values(Settings("shop", "staging", "shop-staging", "s"), spec, 1, reach)


def test_the_broker_runs_from_the_relays_image_with_its_accounts_mounted() -> None:
    made = values(specs()["bus"], Reach(callers=("relay",), control=True))
    slot = made["slots"]["stable"]  # type: ignore[index]
    assert slot["image"] == f"r{D}"
    assert slot["command"] == ["nats-server", "-c", "/c", "-a", "127.0.0.1", "-p", "20001", "-sd", "/data"]
    assert slot["mounts"] == [{"path": "/etc/idi/bus", "secret": "bus-accounts"}]
    assert made["storage"] == {"size": str(8 << 30), "class": None}
    assert made["networkPolicy"]["control"] is True  # type: ignore[index]


def test_the_relay_has_its_words_and_a_login_and_no_mount() -> None:
    spec = specs()["relay"]
    slot = values(spec)["slots"]["stable"]  # type: ignore[index]
    assert slot["command"] == ["python", "-m", "idi.relay"]
    assert slot["mounts"] == []
    assert slot["secrets"]["env"] == f"relay-secrets-env-{spec.revision}"
    assert "BUS_URL" not in json.dumps([slot["config"], slot["env"]])


def test_a_module_keeps_its_own_image_and_words() -> None:
    slot = values(specs()["orders"])["slots"]["stable"]  # type: ignore[index]
    assert (slot["image"], slot["command"], slot["mounts"]) == (f"orders{D}", None, [])


def test_nothing_in_a_word_is_a_variable_to_kubernetes() -> None:
    spec = specs()["bus"]
    assert spec.workload is not None
    spec = replace(spec, workload=replace(spec.workload, command=("sh", "-c", "echo $(HOME) ${port}")))
    slot = values(spec)["slots"]["stable"]  # type: ignore[index]
    assert slot["command"] == ["sh", "-c", "echo $$(HOME) 20001"]


def test_a_pod_describes_itself_with_its_words() -> None:
    for spec in specs().values():
        assert spec_of(json.loads(json.dumps(document_of(spec)))) == spec


def test_another_image_of_the_relay_is_another_revision_of_the_two_alone() -> None:
    other = replace(CONTEXT, relay=f"r2{D}")
    now = desired(with_bus(declared()), Overlays(), other).modules
    before = specs()
    changed = {name for name, one in now.items() if one.spec.revision != before[name].revision}
    assert changed == {BUS, RELAY}


def test_events_need_the_image_of_relay_and_broker() -> None:
    platform = declared()
    assert unbuilt(platform) == ("", "")
    assert isinstance(platform.target, KubernetesTarget)
    assert platform.target.images is not None
    without = replace(
        platform, target=replace(platform.target, images=replace(platform.target.images, relay=""))
    )
    reason, way_out = unbuilt(without)
    assert "has events" in reason
    assert "environments.staging.target.kubernetes.images.relay" in way_out
    quiet = declared(
        TEXT.replace(", publishes: [order.placed]", "").replace(", handles: {order.placed: /placed}", "")
    )
    assert isinstance(quiet.target, KubernetesTarget)
    assert quiet.target.images is not None
    silent = replace(quiet, target=replace(quiet.target, images=replace(quiet.target.images, relay="")))
    assert unbuilt(silent) == ("", "")


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(("environment", "lets_in"), [("staging", True), ("dev", False)])
def test_control_is_let_in_at_the_bus_of_a_cluster_and_nowhere_else(environment: str, lets_in: bool) -> None:
    platform = with_bus(declared(environment=environment))
    control = platform.identity("control")
    allowed = {
        name: sidecar(platform, replace(instance(name, 1, "aaaa")), services(platform)).inbound[0].allowed
        if name != BUS
        else sidecar(
            platform,
            replace(instance(name, 1, "aaaa"), ports={"nats": 1}, mesh={"nats": 2}),
            services(platform),
        )
        .inbound[0]
        .allowed
        for name in platform.modules
    }
    assert (control in allowed[BUS]) is lets_in
    assert not any(control in callers for name, callers in allowed.items() if name != BUS)
