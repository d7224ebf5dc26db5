"""Who may call whom, tried from outside the rules: real certificates of the platform's own authority, somebody
else's, none at all; at every mesh port of a running platform.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from idi.parts.certificates.interface import Certificate
from idi.parts.errors import PartError
from tests.support import sniffer
from tests.support.platform import ROOT, Platform, platform
from tests.support.scale import need_part
from tests.support.sockets import tcp_of
from tests.support.strangers import SIGN_PATH, ask_authority, issue, knock, knock_plainly, say, self_made

pytestmark = pytest.mark.requirement("S4", "G2")

TRUST_DOMAIN = "shop.idi"
DECLARATION = """
platform: shop
modules:
  jede: {run: python -m standins.python, instances: 2, calls: [cam]}
  cam: {run: python -m standins.python, calls: [lines]}
  dere: {run: python -m standins.python, routes: []}
  lines:
    run: python showing.py ${port.http} --tcp ${port}
    ports: {lines: tcp, http: http}
    readiness: {http: /ready, port: http}
    routes: []
"""
MAY = {("jede", "cam"), ("cam", "lines"), ("gateway", "jede"), ("gateway", "cam")}
"""Who may call whom by HTTP."""
WORKLOADS = ("jede", "cam", "dere", "lines", "gateway", "nobody")

SHOWING = (ROOT / "tests" / "support" / "showing_module.py").read_text()


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"showing.py": SHOWING}) as one:
        one.up()
        yield one


@pytest.fixture(scope="module")
def certificates(shop: Platform) -> dict[str, Certificate]:
    async def every() -> dict[str, Certificate]:
        return {name: await issue(shop, TRUST_DOMAIN, name) for name in WORKLOADS}

    return asyncio.run(every())


def seats(shop: Platform) -> dict[str, dict[str, Any]]:
    """The record of every instance: its ports."""
    return {path.stem: json.loads(path.read_text()) for path in (shop.paths.state / "seats").glob("*.json")}


def http_ports(shop: Platform) -> dict[str, tuple[str, int]]:
    """Module and mesh port of every instance's HTTP port."""
    return {
        instance: (instance.rpartition("-")[0], seat["mesh"]["http"])
        for instance, seat in seats(shop).items()
    }


def mesh_ports(shop: Platform) -> set[int]:
    return {port for seat in seats(shop).values() for port in seat["mesh"].values()}


def denied(shop: Platform) -> dict[str, int]:
    time.sleep(1.1)  # figures are that fresh
    return {module["name"]: module["figures"]["denied"] for module in shop.status()["modules"]}


def test_only_declared_callers_are_let_in_and_the_others_are_counted(
    shop: Platform, certificates: dict[str, Certificate]
) -> None:
    before = denied(shop)
    refused: dict[str, int] = dict.fromkeys(before, 0)
    for callee, port in http_ports(shop).values():
        for caller, certificate in certificates.items():
            answer = knock(port, certificate, certificate.roots)
            if (caller, callee) in MAY:
                assert answer.status == 200, f"{caller} may call {callee}: {answer}"
            else:
                assert answer.status == 403, f"{caller} may not call {callee}: {answer}"
                refused[callee] += 1
    after = denied(shop)
    assert {name: after[name] - before[name] for name in after} == refused


def test_a_tcp_port_answers_declared_callers_only(
    shop: Platform, certificates: dict[str, Certificate]
) -> None:
    port = seats(shop)["lines-1"]["mesh"]["lines"]
    for caller, certificate in certificates.items():
        said = say(port, certificate, certificate.roots)
        assert said == (b"hello\n" if caller == "cam" else b""), caller


@pytest.mark.requirement("T4")
def test_without_a_certificate_of_this_platform_nothing_is_answered(
    shop: Platform, certificates: dict[str, Certificate]
) -> None:
    roots = certificates["jede"].roots
    with platform(DECLARATION, {"showing.py": SHOWING}) as twin:
        # Same declaration, same names: another authority.
        twin.write(DECLARATION.replace("instances: 2, ", ""))
        twin.up()
        others = asyncio.run(issue(twin, TRUST_DOMAIN, "jede"))
        assert knock(http_ports(twin)["cam-1"][1], others, others.roots).status == 200
    made = self_made(f"spiffe://{TRUST_DOMAIN}/dev/jede", roots)
    ports = mesh_ports(shop)
    assert len(ports) == 6
    for port in ports:
        assert knock_plainly(port).status == 0
        assert knock(port, None, roots).status == 0
        assert knock(port, others, roots).status == 0
        assert knock(port, made, roots).status == 0
        # And whoever checks finds nobody else behind these ports.
        assert knock(port, others, others.roots).why == "SSLCertVerificationError"


@pytest.mark.requirement("T4")
async def test_a_certificate_that_has_ended_opens_nothing(shop: Platform) -> None:
    short = await issue(shop, TRUST_DOMAIN, "jede", life_s=3)
    port = http_ports(shop)["cam-1"][1]
    assert knock(port, short, short.roots).status == 200
    await asyncio.sleep(4)
    assert knock(port, short, short.roots).status == 0


@pytest.mark.requirement("T4", "S4")
async def test_controls_credential_signs_workloads_of_this_environment_and_nothing_else(
    shop: Platform, certificates: dict[str, Certificate]
) -> None:
    from idi.parts.certificates.keys import new_key, request_pem

    for wrong in (
        f"spiffe://{TRUST_DOMAIN}/production/jede",
        "spiffe://other.idi/dev/jede",
        f"spiffe://{TRUST_DOMAIN}/dev",
        "https://example.com",
    ):
        body: dict[str, object] = {"csr": request_pem(new_key()), "uri_sans": wrong, "ttl": "60s"}
        with pytest.raises(PartError):
            await ask_authority(shop, "POST", SIGN_PATH, body)
    for method, path in (
        ("GET", "sys/mounts"),
        ("GET", "kv/metadata?list=true"),
        ("POST", "pki-root/sign-intermediate"),
        ("POST", "sys/seal"),
        ("GET", "sys/policies/acl/idi-control"),
    ):
        with pytest.raises(PartError):
            await ask_authority(shop, method, path, {} if method == "POST" else None)


def test_an_undeclared_peer_has_no_url_and_no_socket(shop: Platform) -> None:
    token = shop.token()
    assert shop.ask("/v1/jede/", token).json()["peers"] == ["cam"]
    answer = shop.ask("/v1/jede/call/dere", token)
    assert answer.status_code == 404
    assert "DERE_URL" in answer.json()["detail"]
    pids = shop.pids()
    for instance, seat in seats(shop).items():
        mine = {port for _, port in tcp_of(pids[f"{instance} sidecar"])}
        assert mine == {*seat["mesh"].values(), *seat["outbound"].values()}
    assert set(seats(shop)["jede-1"]["outbound"]) == {"cam"}
    assert set(seats(shop)["dere-1"]["outbound"]) == set()


@pytest.mark.requirement("G1")
def test_a_module_without_routes_is_not_behind_the_gateway(shop: Platform) -> None:
    assert shop.ask("/v1/dere/", shop.token()).status_code == 404


@pytest.mark.requirement("T4")
def test_between_proxies_nothing_goes_in_plain(shop: Platform) -> None:
    need_part("packet sockets", sniffer.possible(), "run as root, or with CAP_NET_RAW")
    every = seats(shop)
    marks = [f"mark-{number:04d}-of-a-body" for number in range(40)]
    token = shop.token()
    with sniffer.Sniffer() as seen:
        for mark in marks:
            answer = shop.ask("/v1/jede/call/cam/echo", token, method="POST", content=mark)
            assert answer.json()["peer"]["body"] == mark

    def plain(port: int) -> int:
        return sum(mark.encode() in seen.seen[port] for mark in marks)

    # The frame: where it is meant to be plain it is seen so.
    assert plain(shop.gateway_port) == len(marks)
    assert plain(every["cam-1"]["ports"]["http"]) == len(marks)
    assert sum(plain(every[name]["outbound"]["cam"]) for name in ("jede-1", "jede-2")) == len(marks)
    for name in ("jede-1", "jede-2", "cam-1"):
        port = every[name]["mesh"]["http"]
        assert len(seen.seen[port]) > 1000, "nothing went there at all"
        assert plain(port) == 0


def test_a_changed_declaration_changes_who_may_call(
    shop: Platform, certificates: dict[str, Certificate]
) -> None:
    """After it the declaration is as it was."""
    jede, dere = certificates["jede"], certificates["dere"]
    changed = DECLARATION.replace("instances: 2, calls: [cam]", "instances: 2").replace(
        "dere: {run: python -m standins.python", "dere: {run: python -m standins.python, calls: [cam]"
    )
    shop.write(changed)
    shop.up()
    port = http_ports(shop)["cam-1"][1]
    assert knock(port, jede, jede.roots).status == 403
    assert knock(port, dere, dere.roots).status == 200
    assert shop.ask("/v1/jede/", shop.token()).json()["peers"] == []
    shop.write(DECLARATION)
    shop.up()
    port = http_ports(shop)["cam-1"][1]
    assert knock(port, jede, jede.roots).status == 200
    assert knock(port, dere, dere.roots).status == 403
