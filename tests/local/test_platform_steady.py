"""Nothing fails while things change: a constant open-loop load through the gateway, and one act after another on the
nine modules. Times are measured and printed, never asserted.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from tests.local.test_platform_mesh import SHOWING, seats
from tests.support.platform import NINE, Platform, alive, platform, until
from tests.support.scale import scale
from tests.support.steady import (
    Act,
    figure,
    in_ms,
    kill,
    meanwhile,
    nothing_failed,
    report,
    under_load,
    wait_back,
    wrongly_routed,
)
from tests.support.strangers import context, issue

CLIENTS = ("pilot", "bridge", "field", "desk", "review")
PATHS = ("/v1/cam/echo", "/v1/jede/call/cam", "/v1/jede/echo")
RATE = scale(120.0, 500.0)
SECONDS = scale(0.0, 60.0)
"""How long an act's load lasts at least."""

DECLARATION = re.sub(
    r"(    (?:pilot|bridge|field|desk|review): )\{.*\}", r"\1{scopes: [jede.read, cam.read]}", NINE
)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def nine() -> Iterator[Platform]:
    with platform(DECLARATION) as one:
        one.up()
        yield one


@pytest.fixture
def tokens(nine: Platform) -> list[str]:
    """Everything is ready and as declared, whatever the test before left."""
    nine.wait_ready()
    return [nine.token("--client", name, "--ttl", "1h") for name in CLIENTS]


async def stay(act: Act) -> None:
    await asyncio.sleep(max(0.0, SECONDS - act.now()))


# --- wanted changes ---


@pytest.mark.requirement("D1", "G1")
@pytest.mark.parametrize("count", [4, 2])
async def test_scaling_out_and_in_loses_nothing(nine: Platform, tokens: list[str], count: int) -> None:
    async with under_load(nine, PATHS, tokens, RATE) as act:
        begun = time.monotonic()
        await meanwhile(nine.run, "scale", f"cam={count}")
        took = time.monotonic() - begun
        await stay(act)
    assert nine.module("cam")["ready"] == count
    report(f"scale cam={count}", act, took=f"{took:.1f} s")
    nothing_failed(act)


@pytest.mark.requirement("D1", "G2")
async def test_a_restart_loses_nothing(nine: Platform, tokens: list[str]) -> None:
    before = nine.pids()
    async with under_load(nine, PATHS, tokens, RATE) as act:
        begun = time.monotonic()
        await meanwhile(nine.run, "restart", "jede")
        took = time.monotonic() - begun
        await stay(act)
    after = nine.pids()
    assert not {pid for name, pid in before.items() if name.startswith("jede")} & set(after.values())
    assert nine.module("jede")["ready"] == 2
    report("restart jede", act, took=f"{took:.1f} s")
    nothing_failed(act)


ABRUPT = """
platform: abrupt
gateway:
  clients:
    pilot: {scopes: [plain.call]}
modules:
  plain: {run: "python showing.py ${port}", instances: 3}
"""


@pytest.mark.requirement("D1", "G1")
async def test_a_module_that_ends_at_once_on_sigterm_loses_nothing_either() -> None:
    """Most modules know nothing of draining: what they are doing is over before they are told to end."""
    with platform(ABRUPT, {"showing.py": SHOWING}) as one:
        one.up()
        token = one.token("--client", "pilot", "--ttl", "1h")
        for what in (("scale", "plain=1"), ("scale", "plain=3"), ("restart", "plain")):
            async with under_load(one, "/v1/plain/slow/250", [token], 60.0, method="POST") as act:
                await meanwhile(one.run, *what)
                await asyncio.sleep(scale(0.0, 10.0))
            report(f"{' '.join(what)}, requests of 250 ms", act)
            nothing_failed(act)
        # Without the runtime folder a sidecar cannot be asked whether it is idle: it is given time instead.
        shutil.rmtree(one.paths.runtime)
        one.up()
        one.wait_ready()
        async with under_load(one, "/v1/plain/slow/250", [token], 60.0, method="POST") as act:
            await meanwhile(one.run, "scale", "plain=1")
        report("scale plain=1 after the runtime folder vanished, requests of 250 ms", act)
        nothing_failed(act)


# --- unwanted ones ---


@pytest.mark.requirement("G1", "T3")
async def test_control_killed_and_up_again_loses_nothing(nine: Platform, tokens: list[str]) -> None:
    before = nine.pids()
    async with under_load(nine, PATHS, tokens, RATE) as act:
        await kill(before["control"])
        await asyncio.sleep(scale(1.0, 10.0))
        begun = time.monotonic()
        await meanwhile(nine.up)
        took = time.monotonic() - begun
        await meanwhile(nine.wait_ready)
        await stay(act)
    after = nine.pids()
    assert after["control"] != before["control"]
    assert {**after, "control": 0} == {**before, "control": 0}, "only control is another"
    nine.audit()
    report("control killed, up again", act, up=f"{took:.1f} s")
    nothing_failed(act)


@pytest.mark.requirement("D1", "T3")
async def test_a_killed_instance_costs_no_idempotent_request(nine: Platform, tokens: list[str]) -> None:
    kills = scale(2, 10)
    for number in range(kills):
        victim = nine.instances("cam")[number % 2]
        async with under_load(nine, PATHS, tokens, RATE) as act:
            killed = time.time()
            died = await kill(victim["pid"])
            again = await wait_back(nine, "cam", victim["id"], "pid", victim["pid"])
            whole = asyncio.get_running_loop().time() - died
            await asyncio.sleep(scale(0.0, 5.0))
        assert again["restarts"] == victim["restarts"] + 1
        report(
            f"module killed ({victim['id']})",
            act,
            **wrongly_routed(nine, killed),
            ready_again_seen_after=f"{whole:.2f} s",
        )
        nothing_failed(act)


@pytest.mark.requirement("D1", "T3")
async def test_a_killed_instance_costs_only_the_posts_that_it_had(nine: Platform, tokens: list[str]) -> None:
    held_s = 0.2
    for number in range(scale(1, 5)):
        victim = nine.instances("cam")[number % 2]
        async with under_load(
            nine, "/v1/cam/slow?for=200ms", tokens, scale(60.0, 200.0), method="POST"
        ) as act:
            killed = act.now()
            died = await kill(victim["pid"]) - act.begun
            await wait_back(nine, "cam", victim["id"], "pid", victim["pid"])
        result = act.result
        report(f"module killed under POST ({victim['id']})", act, in_flight=round(result.rate * held_s / 2))
        # In flight at the dead process: sent before it was dead, and not answered by then.
        for failure in result.failures:
            assert killed - held_s - 0.5 < failure.at <= died, failure
            assert failure.status in (502, 503), failure
            assert '"status":' in failure.body
        assert result.failed <= 2 * result.rate * held_s + 5
        assert result.retries == 0


@pytest.mark.requirement("D1", "G2", "T3")
async def test_a_killed_sidecar_costs_no_idempotent_request(nine: Platform, tokens: list[str]) -> None:
    for module in ("cam", "jede"):
        victim = nine.instances(module)[0]
        async with under_load(nine, PATHS, tokens, RATE) as act:
            killed = time.time()
            died = await kill(victim["sidecar_pid"])
            again = await wait_back(nine, module, victim["id"], "sidecar_pid", victim["sidecar_pid"])
            whole = asyncio.get_running_loop().time() - died
            await asyncio.sleep(scale(0.0, 5.0))
        assert again["pid"] == victim["pid"], "the module itself is not touched"
        report(
            f"sidecar killed ({victim['id']})",
            act,
            **wrongly_routed(nine, killed),
            ready_again_seen_after=f"{whole:.2f} s",
        )
        nothing_failed(act)


@pytest.mark.requirement("G1", "T3")
async def test_a_killed_gateway_comes_back_by_itself(nine: Platform, tokens: list[str]) -> None:
    before = nine.pids()

    def served() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", nine.gateway_port)) == 0

    async with under_load(nine, PATHS, tokens, RATE, timeout_s=5.0) as act:
        killed = act.now()
        await kill(before["gateway"])
        await meanwhile(until, served, 20.0, lambda: "", 0.005)
        serving = act.now()
        await meanwhile(nine.wait_ready)
        await asyncio.sleep(scale(1.0, 10.0))
    after = nine.pids()
    assert after["gateway"] != before["gateway"]
    assert {**after, "gateway": 0} == {**before, "gateway": 0}
    result = act.result
    outage = [failure.at for failure in result.failures]
    report(
        "gateway killed", act, listening_again_after=in_ms(serving - killed),
        last_failure_after=in_ms(max(outage, default=killed) - killed),
    )  # fmt: skip
    # Nobody is reached while nobody is there; nothing else fails, and nothing that was asked for later.
    assert {failure.status for failure in result.failures} <= {None}, result.failures[:5]
    assert all(killed - 1 < at <= serving + 0.05 for at in outage), (killed, serving, outage[-5:])
    assert set(result.statuses) == {200}


# --- certificates ---


def shown(port: int, caller: Any) -> int:
    """The serial number of the certificate that is shown to a new connection there."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context(caller, caller.roots).wrap_socket(plain) as tls,
    ):
        certificate = tls.getpeercert(binary_form=True)
    assert certificate is not None
    return x509.load_der_x509_certificate(certificate).serial_number


@pytest.mark.requirement("S4")
async def test_certificates_rotate_under_load(nine: Platform, tokens: list[str]) -> None:
    """Last, since it leaves a declared life of 30 s."""
    wanted = scale(1, 3)
    caller = await issue(nine, "junzi.idi", "jede")
    ports = {name: seat["mesh"]["http"] for name, seat in seats(nine).items() if name[:-2] in ("cam", "jede")}
    serials: dict[str, set[int]] = {name: {shown(port, caller)} for name, port in ports.items()}

    def look() -> bool:
        for name, port in ports.items():
            try:
                serials[name].add(shown(port, caller))
            except (OSError, ssl.SSLError):
                continue
        # The first change is the shorter life; what comes after it came in time.
        return all(len(each) >= 2 + wanted for each in serials.values())

    nine.write(DECLARATION.replace("life: 24h", "life: 30s"))
    async with under_load(nine, PATHS, tokens, RATE) as act:
        await meanwhile(nine.up)
        await meanwhile(until, look, 60.0 * wanted, lambda: str(serials), 0.5)
        await stay(act)
    report("certificates of 30 s", act, certificates=[len(each) for each in serials.values()])
    nothing_failed(act)
    assert all(alive(pid) for pid in nine.pids().values())


@pytest.mark.requirement("D1")
def test_nothing_is_left_over_of_all_that(nine: Platform) -> None:
    nine.wait_ready()
    leaders = [pid for pid in nine.processes() if pid in nine.pids().values()]
    assert sorted(leaders) == sorted(set(nine.pids().values()) - {nine.control_pid()})
    assert nine.status()["rejections"] == []
    nine.audit()
    figure("audit log", entries=nine.audit()["size"])
