"""The bus and the relay come with events and not without, and who may do what follows from the declaration."""

from __future__ import annotations

import json

import pytest

from idi.declaration.load import Loaded, load
from idi.declaration.types import Module, ModuleName, Platform, Port, Reference, Template
from idi.parts.bus.interface import Topic
from idi.plan.bus import BUS, LOGIN, OWN, RELAY, Grant, grants, topic, with_bus
from idi.plan.desired import desired
from idi.plan.types import Context, Overlays
from idi.relay.settings import from_environment
from idi.world.types import PeerPort, PortSpec

pytestmark = pytest.mark.requirement("B1")

JEDE, CAM, PAS, EAT = (ModuleName(name) for name in ("jede", "cam", "pas", "eat"))
QUIET = """\
platform: shop
modules:
  jede: {run: serve, calls: [cam]}
  cam: {run: serve}
"""
TEXT = """\
platform: shop
modules:
  jede:
    run: serve --bus ${bus.url} --events ${events.url} --port ${port}
    calls: [cam]
    publishes: [jede.revoked, jede.decided]
    config: {BUS: "${bus.url}", HOOK: "${events.url}?from=jede", PLAIN: text}
  cam:
    run: serve
    handles: {jede.revoked: /revoked, jede.decided: /decided}
  my-pas:
    run: serve
    handles: {jede.decided: /}
  eat:
    run: serve
    consumes: [jede.decided]
  vtl: {run: serve}
events:
  jede.decided: {keep: 1d, durable: false, deliver: {attempts: 3, backoff: 2s..8s}}
"""
SECRET = Reference(("secret", "idi/bus"))
CONTEXT = Context(
    "/shop",
    "http://127.0.0.1:8080",
    places={"bus.program": "/opt/nats-server", "bus.config": "/run/nats.conf"},
)


def declared(text: str = TEXT) -> Platform:
    found = load(text, file="platform.yaml", environment="dev")
    assert isinstance(found, Loaded), found
    return found.platform


def shop(text: str = TEXT) -> Platform:
    return with_bus(declared(text))


def module(name: str, platform: Platform | None = None) -> Module:
    return (platform or shop()).modules[ModuleName(name)]


def test_a_platform_without_events_is_as_it_was() -> None:
    quiet = declared(QUIET)
    assert with_bus(quiet) is quiet
    assert grants(quiet) == []


@pytest.mark.parametrize("uses", ["publishes: [a.b]", "handles: {a.b: /}", "consumes: [a.b]"])
def test_any_use_of_events_brings_both(uses: str) -> None:
    platform = shop(QUIET.replace("cam: {run: serve}", f"cam: {{run: serve, {uses}}}"))
    assert [*platform.modules] == [BUS, RELAY, JEDE, CAM]
    assert {BUS, RELAY} == OWN


def test_who_uses_events_calls_both_and_nobody_else_does() -> None:
    calls = {name: found.calls for name, found in shop().modules.items()}
    assert calls == {
        BUS: (),
        RELAY: (BUS, CAM, "my-pas"),
        JEDE: (CAM, BUS, RELAY),
        CAM: (BUS, RELAY),
        "my-pas": (BUS, RELAY),
        EAT: (BUS, RELAY),
        "vtl": (),
    }
    assert module("vtl") == declared().modules[ModuleName("vtl")]


def test_the_broker_is_a_module_with_a_disk_and_one_writer() -> None:
    bus = module("bus")
    assert bus.ports == (Port("nats", "tcp"),)
    assert bus.storage is not None
    assert (bus.readiness.tcp, bus.readiness.port) == (True, "nats")
    wanted = desired(shop(), Overlays(), CONTEXT).modules[BUS]
    assert wanted.strategy == "recreate"
    assert wanted.count == 1
    assert wanted.spec.command == (
        "exec /opt/nats-server -c /run/nats.conf -a 127.0.0.1 -p ${port} -sd ${data_dir}"
    )
    assert wanted.spec.ports == (PortSpec("nats", "tcp"),)
    assert wanted.spec.peers == ()


def test_the_relay_is_asked_by_http() -> None:
    relay = module("relay")
    assert relay.readiness.http == "/ready"
    spec = desired(shop(), Overlays(), CONTEXT).modules[RELAY].spec
    assert spec.ports == (PortSpec("http", "http"),)
    assert spec.peers == (PeerPort("bus", "tcp"), PeerPort("cam", "http"), PeerPort("my-pas", "http"))
    assert spec.environment["CAM_URL"] == "${peer.cam.url}"
    assert spec.environment["BUS_URL"] == "nats://${secret.idi/bus}@${peer.bus.address}"


def test_references_to_the_bus_and_to_events_are_filled_in() -> None:
    jede = module("jede")
    bus_url = Template(("nats://", SECRET, "@", Reference(("peer", BUS, "address"))))
    hook = (Reference(("peer", RELAY, "url")), "/events")
    assert LOGIN == SECRET
    assert jede.config["BUS_URL"] == jede.config["BUS"] == bus_url
    assert jede.config["EVENTS_URL"] == Template(hook)
    assert jede.config["HOOK"] == Template((*hook, "?from=jede"))
    assert jede.config["PLAIN"] == Template(("text",))
    spec = desired(shop(), Overlays(), CONTEXT).modules[JEDE].spec
    assert spec.command == (
        "serve --bus nats://${secret.idi/bus}@${peer.bus.address} "
        "--events ${peer.relay.url}/events --port ${port}"
    )
    assert spec.environment["HOOK"] == "${peer.relay.url}/events?from=jede"
    assert "RELAY_URL" not in spec.environment


@pytest.mark.requirement("S4")
def test_what_each_may_do_at_the_broker() -> None:
    assert grants(shop()) == [
        Grant(JEDE, ("jede.decided", "jede.revoked")),
        Grant(CAM),
        Grant(ModuleName("my-pas")),
        Grant(EAT, (), ("jede.decided",)),
    ]


def test_no_password_is_in_what_is_planned() -> None:
    """It is a reference until a target starts something."""
    for one in desired(shop(), Overlays(), CONTEXT).modules.values():
        for value in (one.spec.command, *one.spec.environment.values()):
            assert "nats://" not in value or "//${secret.idi/bus}@" in value


def test_the_relay_reads_what_it_is_told() -> None:
    spec = desired(shop(), Overlays(), CONTEXT).modules[RELAY].spec
    found = from_environment(
        {
            **spec.environment,
            "PORT": "1",
            "BUS_URL": "nats://idi:pass@127.0.0.1:2",
            "CAM_URL": "http://127.0.0.1:3",
            "MY_PAS_URL": "http://127.0.0.1:4",
        }
    )
    assert found.trust == declared().identity("")
    assert found.trust + "jede" == declared().identity("jede")
    assert found.publishers == {"jede": frozenset({"jede.decided", "jede.revoked"})}
    assert {name: (one.keep_s, one.durable) for name, one in found.topics.items()} == {
        "jede.decided": (86400.0, False),
        "jede.revoked": (7 * 86400.0, True),
    }
    assert {
        key: (one.path, one.attempts, one.first_s, one.last_s) for key, one in found.deliveries.items()
    } == {
        ("jede.decided", "cam"): ("/decided", 3, 2.0, 8.0),
        ("jede.revoked", "cam"): ("/revoked", 8, 1.0, 300.0),
        ("jede.decided", "my-pas"): ("/", 3, 2.0, 8.0),
    }
    assert found.consumers == (("jede.decided", "eat", 3),)
    assert found.urls == {"cam": "http://127.0.0.1:3", "my-pas": "http://127.0.0.1:4"}


def test_the_same_declaration_gives_the_same_bytes() -> None:
    def specs(text: str) -> dict[str, str]:
        found = desired(shop(text), Overlays(), CONTEXT).modules
        return {name: one.spec.revision for name, one in found.items()}

    before = specs(TEXT)
    assert specs(TEXT) == before
    turned = TEXT.replace("[jede.revoked, jede.decided]", "[jede.decided, jede.revoked]").replace(
        "{jede.revoked: /revoked, jede.decided: /decided}", "{jede.decided: /decided, jede.revoked: /revoked}"
    )
    assert turned != TEXT
    assert specs(turned) == before
    # A change of who handles what is a change of the relay, and of nobody else who runs.
    changed = specs(TEXT.replace("jede.decided: /}", "jede.decided: /new}"))
    assert {name for name in before if changed[name] != before[name]} == {"relay"}


def test_what_the_relay_is_told_is_json_in_one_order() -> None:
    text = module("relay").config["IDI_RELAY"].parts[0]
    assert isinstance(text, str)
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text


def test_every_limit_of_a_topic_is_declared() -> None:
    said = "keep: 1h, limit: 2MiB, most: 7, deduplicate: 5s, full: drop-oldest, durable: false"
    text = f"platform: shop\nmodules: {{jede: {{run: x, publishes: [a.b]}}}}\nevents: {{a.b: {{{said}}}}}\n"
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded), loaded
    assert Topic("a.b", **topic(loaded.platform, "a.b")) == Topic(  # type: ignore[arg-type]
        "a.b",
        keep_s=3600.0,
        durable=False,
        most_bytes=2 << 20,
        most_events=7,
        drop_oldest=True,
        same_s=5.0,
    )
