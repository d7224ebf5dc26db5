"""The real OpenBao: what it listens on, how it is set up, and what a crash anywhere in that leaves behind."""

import base64
import json
import os
import random
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.clients.openbao import AppRole, OpenBao, OpenBaoRefused, Session, State
from idi.parts.clients.openbao_layout import SIGN_PATH, Scope
from idi.parts.errors import PartError
from idi.parts.secrets.openbao import access, bootstrap, pki
from idi.parts.secrets.openbao.bootstrap import STEPS, AnswerLost, Bootstrap, Ready
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from idi.parts.secrets.openbao.server import wait_for
from idi.parts.secrets.openbao.store import OpenBaoSecrets
from tests.support import openbao
from tests.support.openbao import SCOPE, Server
from tests.support.scale import scale

JEDE = "spiffe://shop.idi/dev/jede"


class Crash(Exception):
    pass


@pytest.fixture
def server() -> Iterator[Server]:
    with openbao.server() as one:
        yield one


@pytest.fixture(scope="module")
def kept() -> Iterator[Server]:
    """One store for the tests that only look."""
    with openbao.server() as one:
        one.start()
        yield one


async def set_up(server: Server, crash_after: str = "", **more: Any) -> Ready:
    def reached(step: str) -> None:
        if step == crash_after:
            raise Crash(step)

    async with server.client() as client:
        return await Bootstrap(client, server.keys, SCOPE, reached=reached, **more).run()


async def root_token(server: Server, client: OpenBao) -> str:
    recovery = server.keys.recovery()
    assert recovery is not None
    return await make_root_token(client, recovery)


async def root_tokens(server: Server) -> int:
    """How many root tokens the store knows, but for the one that asking takes (and gives back)."""
    async with server.client() as client:
        token = await root_token(server, client)
        found = 0
        for accessor in await client.listing("auth/token/accessors", token=token):
            about = await client.write("auth/token/lookup-accessor", {"accessor": accessor}, token=token)
            found += "root" in about["data"]["policies"]
        await client.write("auth/token/revoke-self", token=token)
    return found - 1


async def assert_issues(server: Server) -> None:
    async with server.authority() as authority:
        assert (await authority.issue(JEDE, 60)).spiffe_id == JEDE


# --- the first start and the next ---


@pytest.mark.requirement("S2", "S4")
async def test_first_start_then_restart(server: Server) -> None:
    began = time.monotonic()
    server.start()
    assert str(server.places.keys) in server.notice
    first = await set_up(server)
    assert first.changed
    await assert_issues(server)
    print(f"first start to first certificate {time.monotonic() - began:.2f} s")
    server.stop()

    began = time.monotonic()
    server.start()
    assert server.notice == ""
    second = await set_up(server)
    await assert_issues(server)
    print(f"restart to first certificate {time.monotonic() - began:.2f} s")
    # No privilege was needed, and the same credential and roots go on.
    assert not second.changed
    assert second.credential == first.credential
    assert await root_tokens(server) == 0


@pytest.mark.requirement("S2")
async def test_seal_key_opens_the_store_and_only_it(server: Server) -> None:
    server.start()
    await set_up(server)
    server.stop()
    right = server.keys.seal_key.read_bytes()

    server.keys.seal_key.unlink()
    with pytest.raises(PartError, match=r"seal\.key is gone") as caught:
        server.start()
    assert not caught.value.retryable
    assert not server.keys.seal_key.exists()

    server.keys.seal_key.write_bytes(bytes(32))
    server.start()
    async with server.client() as client:
        health = await wait_for(client, {State.SEALED})
        assert "seal key" in health.reason
        with pytest.raises(PartError, match="sealed") as sealed:
            await Session(client, AppRole("a", "b")).call("POST", SIGN_PATH, {})
        assert sealed.value.retryable
    server.stop()

    server.keys.seal_key.write_bytes(right)
    server.start()
    assert not (await set_up(server)).changed


# --- what listens, and what lies where ---


def listening_ports(pid: int) -> dict[int, str]:
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    ports = {}
    for family in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in sockets and (fields[3] == "0A" or family.startswith("udp")):
                address, _, port = fields[1].partition(":")
                ports[int(port, 16)] = address
    return ports


@pytest.mark.requirement("T4", "S2")
async def test_nothing_but_the_socket_answers(kept: Server) -> None:
    await set_up(kept)
    assert kept.process is not None
    ports = listening_ports(kept.process.pid)
    assert set(ports.values()) == {"0100007F"}, "beyond loopback"
    for port in ports:
        for base in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}"):
            async with OpenBao(base, timeout_s=3) as client:
                assert (await client.health()).state is State.UNREACHABLE
    about = kept.places.socket.stat()
    assert stat.S_ISSOCK(about.st_mode)
    assert stat.S_IMODE(about.st_mode) == 0o600


@pytest.mark.requirement("T4", "S2")
async def test_keys_are_private_and_nowhere_else(server: Server) -> None:
    server.start()
    tokens: list[str] = []

    async with server.client() as client:
        real = client.write

        async def watched(path: str, body: Any = None, *, token: str = "") -> Any:
            tokens.append(token)
            return await real(path, body, token=token)

        client.write = watched  # type: ignore[method-assign]
        await Bootstrap(client, server.keys, SCOPE).run()
    await assert_issues(server)
    server.stop()

    recovery, control = server.keys.recovery(), server.keys.control()
    assert recovery is not None
    assert control is not None
    canaries = {
        server.keys.seal_key.read_bytes(),
        *(key.encode() for key in recovery.keys),
        control.secret_id.encode(),
        *(token.encode() for token in tokens if token),
    }
    assert len(canaries) >= 4
    for path in server.base.rglob("*"):
        inside = server.places.keys in path.parents
        if inside or path == server.places.keys:
            assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        elif path.is_file():
            content = path.read_bytes()
            assert not [canary for canary in canaries if canary in content], path
    for path in server.places.keys.iterdir():
        content = path.read_bytes()
        assert not [token for token in tokens if token and token.encode() in content], path


# --- what control may do ---


@pytest.mark.requirement("T4", "S4")
async def test_control_may_sign_leaves_keep_secrets_and_do_nothing_else(kept: Server) -> None:
    ready = await set_up(kept)
    async with kept.client() as client:
        session = Session(client, ready.credential)
        forbidden = [
            ("GET", "sys/mounts", None),
            ("GET", "sys/policies/acl/idi-control", None),
            ("POST", "auth/token/create", {}),
            ("GET", "auth/token/lookup-self", None),
            ("POST", "pki/issue/workload", {"uri_sans": JEDE}),
            ("POST", "pki/root/generate/internal", {"common_name": "x"}),
            ("POST", "pki/roles/workload", {"allow_any_name": True}),
            ("POST", "pki/sign-verbatim", {"csr": ""}),
            ("POST", "pki-root/root/sign-intermediate", {"csr": ""}),
            ("POST", "pki-root/sign/workload", {"csr": ""}),
            ("POST", "auth/approle/role/idi-control/secret-id", {}),
            ("DELETE", "kv/data/jede", None),
            ("DELETE", "kv/metadata/jede", None),
            ("POST", "kv/metadata/jede", {"max_versions": 1}),
            ("PUT", "kv/delete/jede", {"versions": [1]}),
            ("PUT", "kv/destroy/jede", {"versions": [1]}),
            ("GET", "kv/metadata?list=true", None),
            ("GET", "kv/config", None),
            ("POST", "kv/config", {"cas_required": False}),
            ("GET", "transit/keys/jede", None),
            ("PUT", "sys/seal", None),
        ]
        for method, path, body in forbidden:
            with pytest.raises(OpenBaoRefused) as caught:
                await session.call(method, path, body)
            assert caught.value.status == 403, path


@pytest.mark.requirement("T4", "S4")
@pytest.mark.parametrize(
    "body",
    [
        {"uri_sans": "spiffe://shop.idi/production/jede"},
        {"uri_sans": "spiffe://shop.idi/dev"},
        {"uri_sans": f"{JEDE},https://shop.idi/"},
        {"uri_sans": JEDE, "common_name": "jede"},
        {"uri_sans": JEDE, "alt_names": "jede.shop"},
        {"uri_sans": JEDE, "ip_sans": "127.0.0.1"},
        {"uri_sans": JEDE, "other_sans": "1.2.3.4;UTF8:x"},
    ],
)
async def test_the_authority_itself_refuses_other_names(kept: Server, body: dict[str, str]) -> None:
    """Past our own check: what a stolen credential could ask for."""
    from idi.parts.certificates.keys import new_key, request_pem

    async with kept.client() as client:
        ready = await Bootstrap(client, kept.keys, SCOPE).run()
        session = Session(client, ready.credential)
        with pytest.raises(OpenBaoRefused) as caught:
            await session.call("POST", SIGN_PATH, {"csr": request_pem(new_key()), "ttl": "60s", **body})
        assert caught.value.status == 400
        longest = await session.call(
            "POST", SIGN_PATH, {"csr": request_pem(new_key()), "uri_sans": JEDE, "ttl": "9999h"}
        )
        leaf = x509.load_pem_x509_certificate(longest["data"]["certificate"].encode())
        assert leaf.not_valid_after_utc.timestamp() - time.time() <= SCOPE.life_s + 5


# --- crashes ---


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("step", ["announced", "initialised", "recovery kept"])
async def test_a_crash_around_the_initialisation_converges(server: Server, step: str) -> None:
    server.start()
    with pytest.raises(Crash):
        await set_up(server, step)
    if step == "initialised":
        # The server outlived control: it holds nothing yet, and says so.
        with pytest.raises(AnswerLost):
            await set_up(server)
        server.stop()
        server.start()
    assert (await set_up(server)).changed
    await assert_issues(server)
    assert await root_tokens(server) == 0


@pytest.mark.requirement("S2")
async def test_a_crash_after_each_later_step_in_turn_converges(server: Server, seeded: random.Random) -> None:
    """One store, whose set-up dies one step further each time; sometimes the server dies with it."""
    server.start()
    with pytest.raises(Crash):
        await set_up(server, "root borrowed")
    for step in STEPS[STEPS.index("root authority") : -1]:
        if seeded.random() < 0.4:
            server.stop(kill=True)
            server.start()
        with pytest.raises(Crash):
            await set_up(server, step)
    ready = await set_up(server)
    assert ready.changed
    await assert_issues(server)
    assert not (await set_up(server)).changed
    # Those that the dead set-ups had borrowed are gone as well, and so are their credentials.
    assert await root_tokens(server) == 0
    async with server.client() as client:
        token = await root_token(server, client)
        assert len(await client.listing("auth/approle/role/idi-control/secret-id", token=token)) == 1
        assert len(await client.listing("pki/issuers", token=token)) == 2
        assert len(await client.listing("pki-root/issuers", token=token)) == 1
        await revoke_root_tokens(client, token)


@pytest.mark.requirement("S2")
@pytest.mark.parametrize("index", range(scale(1, 2 * len(STEPS))))
async def test_a_crash_after_any_step_of_a_first_start_converges(
    server: Server, seeded: random.Random, index: int
) -> None:
    step, kill = (
        (STEPS[index // 2], index % 2 == 1) if scale(0, 1) else (seeded.choice(STEPS), seeded.random() < 0.5)
    )
    print("crash after", step, "and kill" if kill else "")
    server.start()
    with pytest.raises(Crash):
        await set_up(server, step)
    if kill or step == "initialised":
        server.stop(kill=kill)
        server.start()
    await set_up(server)
    await assert_issues(server)
    assert await root_tokens(server) == 0


# --- what changes later ---


@pytest.mark.requirement("S1", "S2")
async def test_a_store_of_an_earlier_version_is_set_up_again_and_keeps_secrets(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose control could only sign: the policy is part of the digest."""
    server.start()
    monkeypatch.setattr(access, "POLICY", f'path "{SIGN_PATH}" {{ capabilities = ["update"] }}\n')
    before = await set_up(server)
    async with server.client() as client:
        with pytest.raises(OpenBaoRefused) as caught:
            await OpenBaoSecrets(Session(client, before.credential)).put("jede/key", b"x", 0)
        assert caught.value.status == 403
    monkeypatch.undo()
    after = await set_up(server)
    assert after.changed
    async with server.client() as client:
        store = OpenBaoSecrets(Session(client, after.credential))
        assert await store.put("jede/key", b"x", 0) == 1
    assert not (await set_up(server)).changed
    assert await root_tokens(server) == 0


@pytest.mark.requirement("S2", "T4")
async def test_a_value_is_nowhere_on_disk(server: Server) -> None:
    canary = os.urandom(24).hex()
    server.start()
    ready = await set_up(server)
    async with server.client() as client:
        store = OpenBaoSecrets(Session(client, ready.credential))
        assert await store.put("jede/key", canary.encode(), 0) == 1
        server.stop()
        with pytest.raises(PartError) as caught:
            await store.put("jede/key", canary.encode(), 1)
    assert canary not in f"{caught.value!r}{caught.value.__cause__!r}"
    forms = {canary.encode(), base64.b64encode(canary.encode()), canary.encode().hex().encode()}
    for path in server.base.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [form for form in forms if form in content], path


@pytest.mark.requirement("S2", "S4")
async def test_later_changes_make_the_set_up_run_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    await set_up(server)
    before = server.keys.control()

    # Another declared life changes the role.
    shorter = Scope(SCOPE.trust_domain, SCOPE.environment, 600)
    async with server.client() as client:
        ready = await Bootstrap(client, server.keys, shorter).run()
        assert ready.changed
        certificate = await OpenBaoAuthority(Session(client, ready.credential), shorter).issue(JEDE, 600)
        first_roots = certificate.roots
        # The credential of before is no good any more.
        assert before is not None
        with pytest.raises(OpenBaoRefused):
            await Session(client, before).login()

        # Near its end, the intermediate is made anew under the same root.
        late = time.time() + pki.INTERMEDIATE_LIFE_H * 3600 * 0.7
        ready = await Bootstrap(client, server.keys, shorter, clock=lambda: late).run()
        assert ready.changed
        renewed = await OpenBaoAuthority(Session(client, ready.credential), shorter).issue(JEDE, 600)
        assert renewed.roots == first_roots
        first, second = (x509.load_pem_x509_certificates(each.chain)[1] for each in (certificate, renewed))
        assert first.public_key() != second.public_key()

    # The recovery key was taken away, as one should: a usual start does not need it, a change says so.
    server.keys.recovery_path.rename(server.base / "in-the-safe")
    async with server.client() as client:
        assert not (await Bootstrap(client, server.keys, shorter).run()).changed
        monkeypatch.setattr(bootstrap, "LAYOUT", 99)
        with pytest.raises(PartError, match="recovery key") as caught:
            await Bootstrap(client, server.keys, shorter).run()
        assert not caught.value.retryable


@pytest.mark.requirement("S2")
async def test_a_crash_while_a_root_token_is_made_leaves_nothing_in_the_way(server: Server) -> None:
    server.start()
    await set_up(server)
    async with server.client() as client:
        await client.write("sys/generate-root/attempt")
    (server.places.keys / "set-up.json").unlink()
    assert (await set_up(server)).changed
    assert await root_tokens(server) == 0


@pytest.mark.requirement("S2")
async def test_a_wrong_recovery_key_is_said_plainly(server: Server) -> None:
    server.start()
    await set_up(server)
    path = server.keys.recovery_path
    kept = json.loads(path.read_text())
    kept["keys"] = ["A" * 43 + "="]
    path.write_text(json.dumps(kept))
    (server.places.keys / "set-up.json").unlink()
    with pytest.raises(PartError, match="does not belong"):
        await set_up(server)


@pytest.mark.requirement("S2")
async def test_a_lost_state_folder_begins_anew_and_keeps_the_old_recovery_key(server: Server) -> None:
    server.start()
    await set_up(server)
    old = server.keys.recovery()
    server.stop()
    os.rename(server.places.storage, server.base / "gone")
    server.start()
    assert (await set_up(server)).changed
    await assert_issues(server)
    aside = json.loads((server.places.keys / "recovery-1.json").read_text())
    assert old is not None
    assert tuple(aside["keys"]) == old.keys
    assert server.keys.recovery() != old


@pytest.mark.requirement("S4")
async def test_a_dead_server_is_a_failure_that_may_pass(server: Server) -> None:
    server.start()
    async with server.authority() as authority:
        await authority.issue(JEDE, 60)
        server.stop(kill=True)
        with pytest.raises(PartError, match="does not answer") as caught:
            await authority.issue(JEDE, 60)
        assert caught.value.retryable
        server.start()
        # The same client goes on by itself, once the store is open again.
        async with server.client() as client:
            await wait_for(client, {State.ACTIVE})
        assert (await authority.issue(JEDE, 60)).spiffe_id == JEDE
