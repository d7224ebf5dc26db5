"""Each key of a whole platform is rotated under a steady load: no request fails, and every event that was published
meanwhile is handled. Afterwards the former key is good for nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.errors
import pytest
from cryptography import x509

from idi.parts.clients.openbao import AppRole, OpenBao, OpenBaoRefused, Session, State
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.keys import KeyFolder, Recovery
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from idi.parts.secrets.openbao.server import Places
from tests.local.test_platform_mesh import seats
from tests.local.test_registration import api
from tests.support.openbao import SCOPE, Server, opens, server
from tests.support.platform import ROOT, Platform, alive, free_port, platform, until
from tests.support.scale import scale
from tests.support.steady import Act, kill, meanwhile, nothing_failed, report, under_load
from tests.support.strangers import issue, knock

EVENTFUL = (ROOT / "tests" / "support" / "eventful.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}, grace: 2s}
gateway:
  clients:
    pilot: {scopes: [front.call]}
  rate_limit: {per: client, requests: 2000, every: 1s, burst: 1000}
modules:
  front: {run: exec python -m standins.python, instances: 2, calls: [back], routes: [{path: /v1/front/}]}
  back: {run: exec python -m standins.python, instances: 2, secrets: {KEY: back/key}}
  orders: {run: exec python eventful.py, publishes: [order.placed]}
  mail: {run: exec python eventful.py, handles: {order.placed: /placed}, config: {LOG: heard-mail}}
  stock: {run: exec python eventful.py, consumes: [order.placed], config: {LOG: heard-stock, CONSUMES: order.placed}}
events:
  order.placed: {deliver: {attempts: 5, backoff: 100ms..400ms}}
"""
PATHS = ("/v1/front/call/back", "/v1/front/echo")
RATE = scale(60.0, 200.0)
ROUNDS = scale(1, 5)
EVENTS_PER_S = 20.0

pytestmark = [pytest.mark.timeout(300), pytest.mark.requirement("S2", "S4", "D1")]


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"eventful.py": EVENTFUL}) as one:
        one.up(check=False)
        one.run("secrets", "set", "back/key", stdin="kept")
        one.wait_ready()
        port = free_port()
        attached = subprocess.Popen(
            [sys.executable, "-m", "standins.python"],
            cwd=ROOT,
            env={"PORT": str(port), "IDI_MODULE": "back", "IDI_INSTANCE": "attached"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            status, registered = api(
                one, "POST", "/v1/registrations", {"module": "back", "port": port, "ttl_s": 3600}
            )
            assert status == 201, registered
            until(lambda: sum(each["state"] == "ready" for each in one.instances("back")) == 3)
            yield one
        finally:
            attached.terminate()
            attached.wait(10)


@dataclass
class Published:
    """Events that were published, and how often each was refused before it was kept."""

    ids: list[str] = field(default_factory=list)
    refused: int = 0


@asynccontextmanager
async def events(shop: Platform, name: str) -> AsyncIterator[Published]:
    """One after another at a steady rate; one that is not acknowledged is published again, as a publisher does."""
    done, published = asyncio.Event(), Published()
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:

        async def beside_orders() -> str:
            """Where an instance that is ready publishes."""
            while True:
                try:
                    ready = [
                        one for one in await meanwhile(shop.instances, "orders") if one["state"] == "ready"
                    ]
                    return str((await client.get(f"http://{ready[-1]['address']}/urls")).json()["EVENTS_URL"])
                except (
                    AssertionError,
                    IndexError,
                    httpx.HTTPError,
                ):  # control is just not there, or an instance
                    await asyncio.sleep(0.2)

        async def publish() -> None:
            url = await beside_orders()
            while not done.is_set():
                key = f"{name}-{len(published.ids)}"
                document = {"specversion": "1.0", "id": key, "source": "/test", "type": "order.placed"}
                while True:
                    try:
                        answer = await client.post(
                            url,
                            content=json.dumps(document),
                            headers={"content-type": "application/cloudevents+json"},
                        )
                        if answer.status_code == 200:
                            break
                    except httpx.HTTPError:  # the instance beside which it is was replaced
                        url = await beside_orders()
                    published.refused += 1
                    await asyncio.sleep(0.1)
                published.ids.append(key)
                await asyncio.sleep(1 / EVENTS_PER_S)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(publish())
            try:
                yield published
            finally:
                done.set()


def lost(shop: Platform, published: Published) -> set[tuple[str, str]]:
    """Which event which module has not heard of."""
    missing = set()
    for module in ("mail", "stock"):
        file = shop.folder / f"heard-{module}"
        heard = {json.loads(line)[1] for line in file.read_text().splitlines()} if file.exists() else set()
        missing |= {(module, key) for key in published.ids if key not in heard}
    return missing


@asynccontextmanager
async def steady(shop: Platform, name: str) -> AsyncIterator[Act]:
    token = shop.token("--client", "pilot", "--ttl", "1h")
    async with events(shop, name) as published, under_load(shop, PATHS, [token], RATE) as act:
        yield act
    # What an instance had in its hands when it ended is handed out again after 30 s.
    await meanwhile(until, lambda: not lost(shop, published), 60.0, lambda: str(lost(shop, published)))
    report(name, act, events=len(published.ids), events_refused=published.refused)
    assert published.ids
    nothing_failed(act)


async def rotated(shop: Platform, *keys: str) -> str:
    done = await meanwhile(shop.run, "keys", "rotate", *keys)
    return str(done.stdout)


def settled(shop: Platform) -> bool:
    """Everything is ready, the attached instance too."""
    status = shop.status()
    return all(part["state"] == "ready" for part in status["parts"]) and all(
        module["ready"] == len(module["instances"]) for module in status["modules"]
    )


def untouched(before: dict[str, int], after: dict[str, int], *but: str) -> None:
    assert {name: pid for name, pid in after.items() if name not in but} == {
        name: pid for name, pid in before.items() if name not in but
    }


# --- certificates ---


def authority_of(port: int, caller: Any) -> bytes:
    """Who signed the intermediate that is shown to a new connection there."""
    import socket
    import ssl

    from tests.support.strangers import context

    made = context(caller, caller.roots)
    made.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain, made.wrap_socket(plain) as tls:
        leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert found is not None
    return found


@asynccontextmanager
async def newcomers(shop: Platform, ports: list[int]) -> AsyncIterator[None]:
    """Again and again somebody who has just started opens a connection, by what the authority gives at that moment:
    warm connections, by which a load goes, would not notice who trusts whom."""
    done, tried, refused = asyncio.Event(), 0, list[str]()

    async def come() -> None:
        nonlocal tried
        while not done.is_set():
            for port in ports:
                mine = await issue(shop, "shop.idi", "front")
                answer = await meanwhile(knock, port, mine, mine.roots)
                tried += 1
                if answer.status != 200:
                    refused.append(f"{port}: {answer.why or answer.status}")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(come())
        try:
            yield
        finally:
            done.set()
    print(f"{tried} new connections, refused {len(refused)}")
    assert tried
    assert not refused, refused[:5]


async def test_another_root_of_certificates(shop: Platform) -> None:
    before = shop.pids()
    for number in range(ROUNDS):
        former = await issue(shop, "shop.idi", "front")
        ports = [seat["mesh"]["http"] for name, seat in seats(shop).items() if name.startswith("back-")]
        assert len(ports) == 3, "one of them was attached"
        assert {knock(port, former, former.roots).status for port in ports} == {200}
        async with steady(shop, f"certificates-{number}"), newcomers(shop, ports):
            await rotated(shop, "certificates")
        new = await issue(shop, "shop.idi", "front")
        assert new.roots != former.roots
        [intermediate] = x509.load_pem_x509_certificates(new.chain)[1:]
        identifier = intermediate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        for port in ports:
            assert authority_of(port, new) == identifier
            assert knock(port, new, new.roots).status == 200
            # Neither shows a leaf of the former root nor takes one.
            assert knock(port, new, former.roots).status == 0
            assert knock(port, former, new.roots).status == 0
    untouched(before, shop.pids())
    assert shop.status()["rejections"] == []


# --- the seal ---


def opened_with(shop: Platform, key: bytes) -> State:
    """How a copy of the platform's store takes this seal key."""
    import tempfile

    base = Path(tempfile.mkdtemp(prefix="bao-", dir="/tmp"))
    copied = Server(base)
    try:
        shutil.copytree(shop.paths.state / "openbao", copied.places.storage)
        copied.keys.make()
        copied.keys.seal_key.write_bytes(key)
        copied.start()

        async def state() -> State:
            async with copied.client() as client:
                return await opens(client)

        return asyncio.run(state())
    finally:
        copied.stop()
        shutil.rmtree(base, ignore_errors=True)


async def test_another_seal_key(shop: Platform) -> None:
    before, keys = shop.pids(), KeyFolder(shop.paths.keys)
    for number in range(ROUNDS):
        former = keys.seal_key.read_bytes()
        async with steady(shop, f"seal-{number}"):
            said = await rotated(shop, "seal")
        [kept] = [path for path in keys.former_seal_keys() if path.read_bytes() == former]
        assert f"That one stays in {kept}" in said
        await meanwhile(until, lambda: settled(shop))
        assert await meanwhile(opened_with, shop, former) is State.SEALED
        assert await meanwhile(opened_with, shop, keys.seal_key.read_bytes()) is State.ACTIVE
    untouched(before, shop.pids(), "openbao")
    # It opens after a start of its own, and secrets are there.
    os.kill(shop.pids()["openbao"], signal.SIGKILL)
    await meanwhile(until, lambda: settled(shop))
    await meanwhile(shop.run, "restart", "back")
    assert not (shop.paths.state / "openbao.before").exists()


# --- the recovery key, and control's own credential ---


async def root_token_by(shop: Platform, recovery: Recovery) -> None:
    async with OpenBao(Places(shop.paths.state, shop.paths.runtime, shop.paths.keys).address) as client:
        await revoke_root_tokens(client, await make_root_token(client, recovery))


async def test_another_recovery_key(shop: Platform) -> None:
    keys = KeyFolder(shop.paths.keys)
    former = keys.recovery()
    assert former is not None
    async with steady(shop, "recovery"):
        await rotated(shop, "recovery")
    new = keys.recovery()
    assert new is not None
    assert new != former
    with pytest.raises(Exception, match="does not belong"):
        await root_token_by(shop, former)
    await root_token_by(shop, new)


async def test_another_credential_of_control(shop: Platform) -> None:
    keys = KeyFolder(shop.paths.keys)
    former = keys.control()
    assert former is not None
    async with steady(shop, "control"):
        await rotated(shop, "control")
    assert keys.control() != former
    async with OpenBao(f"unix:{shop.paths.runtime / 'bao.sock'}") as client:
        with pytest.raises(OpenBaoRefused):
            await Session(client, AppRole(former.role_id, former.secret_id)).login()
    # Control itself goes on with the new one.
    shop.run("secrets", "rotate", "back/key")


# --- tokens ---


def signs_from(said: str) -> str:
    return said.partition("signs from ")[2].partition(" ")[0]


async def test_another_key_for_tokens(shop: Platform) -> None:
    token = shop.token("--client", "pilot")
    async with steady(shop, "tokens"):
        said = await rotated(shop, "tokens")
        assert "signs from" in said
        again = await rotated(shop, "tokens")  # one that waits is not made again
        assert signs_from(again) == signs_from(said)
    assert shop.ask("/v1/front/echo", token).status_code == 200
    jwks = shop.ask("/.well-known/jwks.json")
    if jwks.status_code == 200:
        assert len(jwks.json()["keys"]) == 2
    said = await rotated(shop, "tokens", "--now")
    assert "has ended" in said
    until(lambda: shop.ask("/v1/front/echo", token).status_code == 401)
    assert shop.ask("/v1/front/echo", shop.token("--client", "pilot")).status_code == 200


# --- logins at the bus ---


async def bus_url_of(shop: Platform, module: str) -> str:
    [instance] = shop.instances(module)
    async with httpx.AsyncClient(trust_env=False) as client:
        return str((await client.get(f"http://{instance['address']}/urls")).json()["BUS_URL"])


async def connects(url: str) -> bool:
    try:
        bus = await nats.connect(url, allow_reconnect=False, connect_timeout=3)
    except (nats.errors.Error, OSError):
        return False
    await bus.close()
    return True


async def test_other_logins_at_the_bus(shop: Platform) -> None:
    for number in range(1 + ROUNDS):
        before, former = shop.pids(), await bus_url_of(shop, "stock")
        assert await connects(former)
        async with steady(shop, f"bus-{number}"):
            await rotated(shop, "bus")
        new = await bus_url_of(shop, "stock")
        port = former.rpartition(":")[2]
        assert new.rpartition("@")[0] != former.rpartition("@")[0]
        assert await connects(new)
        # The new instance has a port of its own to the same broker.
        assert not await connects(f"{former.rpartition(':')[0]}:{new.rpartition(':')[2]}"), port
        after = shop.pids()
        rolled = {name for name, pid in before.items() if after.get(name) != pid}
        assert {name.partition("-")[0] for name in rolled} == {"orders", "mail", "stock", "relay"}


# --- a secret, and all of it at once ---


async def test_another_value_of_a_secret(shop: Platform) -> None:
    async with steady(shop, "secret"):
        await meanwhile(shop.run, "secrets", "rotate", "back/key")


async def test_all_at_once(shop: Platform) -> None:
    before = shop.pids()
    async with steady(shop, "all"):
        done = await meanwhile(shop.run, "keys", "rotate", "all", "--json")
    items = [json.loads(line) for line in done.stdout.splitlines()]
    assert items[-1] == {"type": "done", "ok": True}
    assert {item["step"]["module"] for item in items if item["type"] == "step"} == {
        "seal", "recovery", "control", "certificates", "tokens", "orders", "mail", "stock", "relay",
    }  # fmt: skip
    after = shop.pids()
    kept = {name for name, pid in before.items() if after.get(name) == pid}
    assert {"control", "gateway", "bus-1", "front-1", "front-2", "back-1 sidecar"} <= kept


# --- what is said, and what is written down ---


def test_keys_are_listed_and_no_key_is_shown(shop: Platform) -> None:
    document = json.loads(shop.run("keys", "list", "--json").stdout)
    assert [one["name"] for one in document["keys"]] == [
        "seal", "recovery", "control", "certificates", "tokens", "bus",
    ]  # fmt: skip
    assert all(one["since"] for one in document["keys"])
    assert len(document["keys"][0]["kept"]) >= 2
    said = shop.run("keys", "list")
    assert "A former seal key is kept as" in said.stdout + said.stderr


def test_the_journal_names_who_rotated_what_and_no_key(shop: Platform) -> None:
    shop.audit()
    entries = [one for one in shop.journal() if one["action"] == "keys"]
    assert {"seal", "certificates", "tokens", "seal recovery control certificates tokens"} <= {
        one.get("subject") for one in entries
    }
    assert all(one["actor"]["name"] for one in entries)
    keys = KeyFolder(shop.paths.keys)
    recovery, control = keys.recovery(), keys.control()
    assert recovery is not None
    assert control is not None
    canaries = [
        *(path.read_bytes() for path in [keys.seal_key, *keys.former_seal_keys()]),
        *(path.read_bytes().hex().encode() for path in [keys.seal_key, *keys.former_seal_keys()]),
        recovery.keys[0].encode(),
        control.secret_id.encode(),
    ]
    for base in (shop.folder, shop.paths.state, shop.paths.runtime):
        for path in base.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert not [canary for canary in canaries if canary in content], path
    assert alive(shop.control_pid())


def test_what_cannot_be_is_refused_with_words(shop: Platform) -> None:
    assert shop.run("keys", "rotate", "nothing", check=False).returncode == 2
    assert shop.run("keys", "rotate", "seal", "--now", check=False).returncode == 2
    keys = KeyFolder(shop.paths.keys)
    aside = shop.paths.keys / "in-the-safe"
    keys.recovery_path.rename(aside)
    try:
        done = shop.run("keys", "rotate", "all", check=False)
    finally:
        aside.rename(keys.recovery_path)
    assert done.returncode == 1
    assert "needs the recovery key" in done.stderr
    assert not keys.next_seal_key.exists()


# --- in the middle of it ---


def keys_of_the_bus(shop: Platform) -> Iterator[Path]:
    return shop.paths.keys.glob("bus-key-*")


async def test_control_is_killed_in_the_middle_and_the_next_run_completes_it(
    shop: Platform, seeded: random.Random
) -> None:
    before = shop.pids()
    steps = 24
    async with steady(shop, "killed"):
        for _ in range(scale(2, 12)):
            at = seeded.randrange(2 * steps)
            running = await asyncio.create_subprocess_exec(
                *shop.command("keys", "rotate", "all", "--json"),
                cwd=shop.folder,
                env=shop.environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert running.stdout is not None
            seen = 0
            async for line in running.stdout:
                seen += b'"step"' in line
                if seen > at:
                    break
            print(f"control killed after {seen} items of progress")
            await kill(shop.pids()["control"])
            await running.communicate()
            await meanwhile(shop.up)
            await meanwhile(until, lambda: settled(shop))
        await rotated(shop, "all")
    await meanwhile(until, lambda: settled(shop))
    after = shop.pids()
    kept = {name for name, pid in before.items() if after.get(name) == pid}
    assert {"gateway", "bus-1", "front-1", "front-2", "front-1 sidecar"} <= kept
    assert len([*keys_of_the_bus(shop)]) == 1
    keys = KeyFolder(shop.paths.keys)
    assert not keys.next_seal_key.exists()
    assert keys.next_recovery() is None
    assert not (shop.paths.state / "openbao.before").exists()
    new = await issue(shop, "shop.idi", "front")
    assert len(x509.load_pem_x509_certificates(new.roots)) == 1
    for name, seat in seats(shop).items():
        if name.startswith("back-"):
            assert knock(seat["mesh"]["http"], new, new.roots).status == 200
    shop.audit()


# --- sealed ---


def openbao(shop: Platform) -> dict[str, Any]:
    [part] = [part for part in shop.status()["parts"] if part["name"] == "openbao"]
    assert isinstance(part, dict)
    return part


async def test_sealed_by_a_wrong_key_traffic_goes_on_and_everybody_says_what_to_do(shop: Platform) -> None:
    key = shop.paths.keys / "seal.key"
    right = key.read_bytes()
    said: dict[str, str] = {}
    async with steady(shop, "sealed"):
        key.write_bytes(bytes(32))
        try:
            await kill(openbao(shop)["pid"])
            await meanwhile(until, lambda: openbao(shop)["reason"].startswith("sealed"))
            for what in (
                ("secrets", "set", "back/key"),
                ("keys", "rotate", "all"),
                ("up", "--detach", *shop.ports),
            ):
                done = await meanwhile(lambda what=what: shop.run(*what, stdin="x", check=False))
                assert done.returncode == 1, what
                said[what[0]] = done.stdout + done.stderr
            said["status"] = shop.run("status").stdout
        finally:
            key.write_bytes(right)
        await meanwhile(until, lambda: settled(shop))
    for text in said.values():
        assert "sealed: the store is closed until its seal key opens it" in text
        assert f"{key} is not the key that it was closed with. Put that back from your copy" in text
    assert "Traffic goes on" in said["status"]
    shop.run("secrets", "rotate", "back/key")


async def test_sealed_by_hand_it_says_what_opens_it(shop: Platform) -> None:
    async with steady(shop, "sealed-by-hand"):
        async with OpenBao(f"unix:{shop.paths.runtime / 'bao.sock'}") as client:
            token = await make_root_token(client, KeyFolder(shop.paths.keys).need_recovery("a test"))
            await client.call("PUT", "sys/seal", token=token)
        await meanwhile(until, lambda: openbao(shop)["reason"].startswith("sealed"))
        pid = openbao(shop)["pid"]
        assert f"end process {pid}, it opens when it starts" in shop.run("status").stdout
        await asyncio.sleep(2)
        assert openbao(shop)["pid"] == pid, "what a person has sealed stays sealed"
        await kill(pid)
        await meanwhile(until, lambda: settled(shop))
    shop.run("keys", "rotate", "control")


def test_a_store_that_its_rotation_has_broken_is_put_back(shop: Platform) -> None:
    """OpenBao died between the two writes by which it stores a new root key. Last, since it takes everything down."""
    store, before = shop.paths.state / "openbao", shop.paths.state / "openbao.before"
    assert shop.down().returncode == 0
    store.rename(before)
    with server() as other:
        other.start()

        async def made() -> None:
            async with other.client() as client:
                await Bootstrap(client, other.keys, SCOPE).run()

        asyncio.run(made())
        other.stop()
        shutil.copytree(other.places.storage, store)
    shop.up()
    assert settled(shop)
    assert not before.exists()
    assert (shop.paths.state / "openbao.broken-1").exists()
    shop.run("secrets", "rotate", "back/key")
    shop.run("keys", "rotate", "seal")
