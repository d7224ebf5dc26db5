"""The nine modules of the project's own declaration, up on this machine: one door, its tokens and limits, the mesh
behind it, and what an operator asks. One platform serves all of it; nothing in here takes it down.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support import forged
from tests.support.load import LoadResult, run_load, start_load
from tests.support.platform import NINE, ROOT, Platform, platform
from tests.support.scale import scale
from tests.support.sockets import tcp_of, unix_of

INSTANCES = {"jede": 2, "dere": 1, "vtl": 1, "cti": 1, "eat": 1, "sfl": 1, "cam": 2, "pas": 1, "rame": 2}
CALLS = {"jede": 2, "dere": 1, "vtl": 1, "cti": 1, "eat": 0, "sfl": 1, "cam": 1, "pas": 1, "rame": 1}
EVENTS = {"jede": 2, "dere": 2, "eat": 2, "cam": 2, "bus": 0, "relay": 5}
"""Further ones: whoever has to do with events calls the bus and the relay, the relay the bus and whoever handles."""

AUDIENCE = "idi/dev"


@pytest.fixture(scope="module")
def nine() -> Iterator[Platform]:
    with platform(NINE) as one:
        one.up()
        yield one
        one.down()
        assert not one.processes(), "down left processes"
        with pytest.raises(httpx.ConnectError):
            httpx.get(one.url, trust_env=False)


@pytest.fixture(scope="module")
def token(nine: Platform) -> str:
    return nine.token("--ttl", "1h")


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem document of an error, which must be one."""
    assert answer.headers["content-type"].partition(";")[0] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"]
    assert document["detail"]
    assert isinstance(document, dict)
    return document


# --- what is there ---


@pytest.mark.requirement("D1")
def test_nine_modules_are_ready_with_the_instances_declared(nine: Platform) -> None:
    status = nine.status()
    assert {module["name"]: module["desired"] for module in status["modules"]} == INSTANCES
    assert {module["name"]: module["ready"] for module in status["modules"]} == INSTANCES
    assert {module["state"] for module in status["modules"]} == {"ready"}
    assert {part["name"]: part["state"] for part in status["parts"]} == {
        "openbao": "ready",
        "gateway": "ready",
        "bus": "ready",
        "relay": "ready",
    }
    assert status["gateway"]["url"] == nine.url
    assert status["rejections"] == []
    for module in status["modules"]:
        for one in module["instances"]:
            assert one["state"] == "ready"
            assert Path(f"/proc/{one['pid']}").exists()
            assert one["address"].startswith("127.0.0.1:")


@pytest.mark.requirement("G1", "D1")
def test_every_module_is_reached_and_every_instance_serves(nine: Platform, token: str) -> None:
    for name, count in INSTANCES.items():
        seen = Counter(nine.ask(f"/v1/{name}/", token).json()["instance"] for _ in range(6 * count))
        assert sorted(seen) == [f"{name}-{number}" for number in range(1, count + 1)]


@pytest.mark.requirement("T1")
def test_the_smoke_test_passes(nine: Platform) -> None:
    done = nine.run("test", "smoke")
    assert "checks passed" in done.stdout


# --- the door ---


@pytest.mark.requirement("G1", "S3")
def test_without_a_token_there_is_a_problem_document(nine: Platform) -> None:
    for name in INSTANCES:
        answer = nine.ask(f"/v1/{name}/")
        assert answer.status_code == 401
        assert "Bearer" in answer.headers["www-authenticate"]
        problem(answer)
    assert nine.ask("/healthz").status_code == 200


@pytest.mark.requirement("G1", "S3")
def test_the_operators_token_opens_every_module(nine: Platform) -> None:
    token = nine.token()
    for name in INSTANCES:
        assert nine.ask(f"/v1/{name}/", token).status_code == 200


@pytest.mark.requirement("G1", "S3")
def test_a_scope_opens_its_own_routes_only(nine: Platform) -> None:
    limited = nine.token("--scope", "cam.read")
    assert nine.ask("/v1/cam/", limited).status_code == 200
    refused = nine.ask("/v1/jede/", limited)
    assert refused.status_code == 403
    problem(refused)
    client = nine.token("--client", "field")
    assert nine.ask("/v1/vtl/", client).status_code == 200
    assert nine.ask("/v1/cam/", client).status_code == 403


@pytest.mark.requirement("S3", "T4")
def test_tokens_that_are_no_good_are_refused(nine: Platform) -> None:
    keys, issuer, scope = nine.paths.keys, nine.url, "jede.read"
    good = forged.claims(issuer, AUDIENCE, scope)
    # The frame is right: the same claims with the same key are let in.
    assert nine.ask("/v1/jede/", forged.signed(keys, good)).status_code == 200
    now = int(time.time())
    wrong = {
        "garbage": "garbage",
        "three garbages": "garbage.garbage.garbage",
        "alg none": forged.unsigned(good),
        "another key": forged.with_another_key(keys, good),
        "another issuer": forged.signed(keys, good | {"iss": "http://127.0.0.1:1"}),
        "another audience": forged.signed(keys, good | {"aud": "idi/production"}),
        "no audience": forged.signed(keys, forged.claims(issuer, AUDIENCE, scope, aud=None)),
        "expired": forged.signed(keys, good | {"iat": now - 600, "exp": now - 300}),
        "no expiry": forged.signed(keys, forged.claims(issuer, AUDIENCE, scope, exp=None)),
        "not yet": forged.signed(keys, good | {"nbf": now + 300}),
        "a changed claim": changed(forged.signed(keys, good)),
    }
    for what, token in wrong.items():
        answer = nine.ask("/v1/jede/", token)
        assert answer.status_code == 401, what
        problem(answer)


def changed(token: str) -> str:
    head, _, signature = token.split(".")
    more = forged.claims("", AUDIENCE, "jede.read cam.write")
    return f"{head}.{forged.encoded(more)}.{signature}"


@pytest.mark.requirement("S3")
def test_a_token_ends_when_it_says(nine: Platform) -> None:
    token = nine.token("--ttl", "2s")
    assert nine.ask("/v1/jede/", token).status_code == 200
    time.sleep(4)
    answer = nine.ask("/v1/jede/", token)
    assert answer.status_code == 401
    problem(answer)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.requirement("S3")
def test_a_client_gets_a_token_with_the_secret_that_was_made_for_it(nine: Platform) -> None:
    made = nine.run("token", "--client", "pilot", "--new-secret")
    secret = made.stdout.strip()
    assert "shown once" in made.stderr
    metadata = nine.ask("/.well-known/openid-configuration").json()
    assert metadata["issuer"] == nine.url
    asked = {"grant_type": "client_credentials", "scope": "jede.read cam.read"}
    granted = httpx.post(metadata["token_endpoint"], data=asked, auth=("pilot", secret), verify=False)
    assert granted.status_code == 200
    assert granted.headers["cache-control"] == "no-store"
    token = granted.json()["access_token"]
    keys = KeySet.import_key_set(nine.ask(metadata["jwks_uri"].removeprefix(nine.url)).json())
    claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
    assert (claims["sub"], claims["iss"], claims["aud"]) == ("pilot", nine.url, AUDIENCE)
    assert set(claims["scope"].split()) == {"jede.read", "cam.read"}
    assert nine.ask("/v1/jede/", token).status_code == 200
    assert nine.ask("/v1/eat/", token).status_code == 403
    refused = nine.ask("/oauth2/token", method="POST", data=asked, auth=("pilot", "wrong"))
    assert refused.status_code == 401
    # Kept hashed: not in the state, the key folder or a log.
    for folder in (nine.folder / ".idi", nine.paths.keys, nine.paths.runtime):
        for path in folder.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path


@pytest.mark.requirement("G1")
def test_an_unknown_path_is_not_found_and_says_so(nine: Platform, token: str) -> None:
    for path in ("/v1/nobody/", "/", "/v1/"):
        answer = nine.ask(path, token)
        assert answer.status_code == 404
        problem(answer)


# --- its limits ---


async def flooded(nine: Platform, flood: list[str], other: str) -> tuple[LoadResult, LoadResult, list[bytes]]:
    """A flood with these tokens (none: without) while another client asks as it may."""
    heads: list[bytes] = []

    def look(_at: float, status: int, head: bytes, _body: bytes) -> None:
        assert b"x-request-id: " in head
        if status == 429:
            heads.append(head.lower())

    seconds = scale(3.0, 20.0)
    plan = nine.load("/v1/jede/", flood, rate=450, seconds=seconds, on_reply=look)
    modest = nine.load("/v1/rame/", [other], rate=20, seconds=seconds)
    async with start_load(plan) as load:
        served = await run_load(modest)
        return await load.wait(), served, heads


@pytest.mark.requirement("G1", "T4")
async def test_a_clients_flood_is_limited_and_another_client_is_served(nine: Platform) -> None:
    desk, field = nine.token("--client", "desk"), nine.token("--client", "field")
    flood, served, heads = await flooded(nine, [desk], field)
    print(f"flood {flood}\nserved {served}")
    assert set(flood.statuses) == {200, 429}
    # 200 a second and 300 at first are its due; a client within its limit is never refused.
    assert flood.statuses[200] >= 200 * (flood.seconds - 1)
    assert served.failed == 0, served.failures[:3]
    for head in heads:
        assert b"\r\nretry-after: " in head
        assert b"\r\nx-ratelimit-limit: " in head
        assert b"\r\nx-ratelimit-remaining: " in head
        assert b"\r\nx-ratelimit-reset: " in head
        assert b"\r\ncontent-type: application/problem+json" in head


@pytest.mark.requirement("G1", "T4")
async def test_a_flood_without_tokens_is_limited_and_a_client_is_served(nine: Platform) -> None:
    field = nine.token("--client", "field")
    flood, served, heads = await flooded(nine, [], field)
    print(f"flood {flood}\nserved {served}")
    assert set(flood.statuses) == {401, 429}
    assert served.failed == 0, served.failures[:3]
    assert heads
    for head in heads:
        assert b"\r\nretry-after: " in head
        assert b"\r\ncontent-type: application/problem+json" in head


# --- the mesh behind it ---


@pytest.mark.requirement("G2", "S4")
def test_a_call_goes_by_both_sidecars(nine: Platform) -> None:
    called = nine.run("call", "jede", "/call/cam")
    document = httpx.Response(200, content=called.stdout).json()
    assert document["module"] == "jede"
    assert document["peer"]["module"] == "cam"
    shown = document["peer"]["headers"]["x-forwarded-client-cert"]
    assert "URI=spiffe://junzi.idi/dev/jede" in shown
    assert "By=spiffe://junzi.idi/dev/cam" in shown
    outside = nine.ask(
        "/v1/jede/echo", nine.token(), headers={"x-forwarded-client-cert": "URI=spiffe://made/up"}
    )
    shown = outside.json()["headers"]["x-forwarded-client-cert"]
    assert "URI=spiffe://junzi.idi/dev/gateway" in shown
    assert "By=spiffe://junzi.idi/dev/jede" in shown
    assert "made/up" not in shown


@pytest.mark.requirement("G2")
def test_the_whole_chain_of_calls_answers(nine: Platform, token: str) -> None:
    """pas -> jede -> cam -> eat: three calls between modules, each by its sidecars."""
    document = nine.ask("/v1/pas/call/jede/call/cam/call/eat", token).json()
    chain = [document]
    while isinstance(chain[-1].get("peer"), dict):
        chain.append(chain[-1]["peer"])
    assert [each["module"] for each in chain] == ["pas", "jede", "cam", "eat"]


# --- what an operator asks ---


@pytest.mark.requirement("S5")
def test_a_second_up_changes_nothing(nine: Platform) -> None:
    nine.wait_ready()
    before, entries = nine.pids(), nine.audit()["size"]
    again = nine.up()
    assert "Nothing to change" in again.stdout + again.stderr
    assert nine.pids() == before
    assert nine.audit()["size"] == entries
    assert "No changes" in nine.run("plan").stdout


@pytest.mark.requirement("S5", "S6")
def test_the_audit_log_holds_and_names_who_acted(nine: Platform) -> None:
    assert "holds" in nine.run("audit", "verify").stdout
    entries = nine.journal()
    assert len(entries) == nine.audit()["size"]
    assert entries[0]["action"] == "journal.create"
    assert {entry["actor"]["kind"] for entry in entries[1:]} == {"peer"}
    assert any(entry["action"] == "up" and entry["phase"] == "finish" and entry["ok"] for entry in entries)


@pytest.mark.requirement("O2")
def test_logs_of_every_module_are_read_in_one_place(nine: Platform) -> None:
    lines = nine.run("logs").stdout
    for name in INSTANCES:
        assert f"{name}-1" in lines
    assert "started" in nine.run("logs", "jede").stdout


# --- who listens where ---


def documented(page: str, heading: str) -> dict[str, str]:
    """First and second column of the table under a heading."""
    text = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {row[0].strip(): row[1].strip() for row in rows[2:]}


@pytest.mark.requirement("S4", "T4")
def test_only_what_is_documented_listens(nine: Platform) -> None:
    page = (ROOT / "docs" / "reference" / "sockets.md").read_text()
    status, pids = nine.status(), nine.pids()
    # Nobody is there whom status does not name (children of a module would be: there are none).
    leaders = {
        int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]) for pid in nine.processes()
    }
    assert leaders == set(pids.values()) - {pids["control"]}

    counts: dict[str, str] = {}
    tcp = {name: tcp_of(pid) for name, pid in pids.items()}
    for name, sockets in tcp.items():
        assert {address for address, _ in sockets} <= {"127.0.0.1"}, f"{name} listens on {sockets}"
    assert tcp["control"] == []
    assert tcp["gateway"] == [("127.0.0.1", nine.gateway_port)]
    assert len(tcp["openbao"]) == 2
    counts |= {"control": "none", "gateway": "1", "OpenBao": "2"}
    own = [part for part in status["parts"] if "instances" in part]
    assert [part["name"] for part in own] == ["bus", "relay"]
    for module in [*own, *status["modules"]]:
        name = module["name"]
        for one in module["instances"]:
            assert tcp[one["id"]] == [("127.0.0.1", int(one["address"].rpartition(":")[2]))]
            assert len(tcp[f"{one['id']} sidecar"]) == 1 + CALLS.get(name, 0) + EVENTS.get(name, 0)
    counts |= {"module": "1 for each of its ports", "sidecar": "1 for each port of its module and each call"}
    assert documented(page, "TCP") == counts

    folder = str(nine.paths.runtime)
    unix = {name: {path.removeprefix(folder + "/") for path in unix_of(pid)} for name, pid in pids.items()}
    assert unix["control"] == {"control", "xds", "issuer"}
    assert unix["openbao"] == {"bao.sock"}
    assert unix["gateway"] == {"gateway.admin"}
    assert unix["jede-1"] == set()
    assert unix["jede-1 sidecar"] == {"jede-1.admin"}
    assert set(documented(page, "Unix sockets")) == {
        "`control`", "`xds`", "`issuer`", "`bao.sock`", "`gateway.admin`", "`INSTANCE.admin`",
    }  # fmt: skip
    for path in nine.paths.runtime.iterdir():
        assert path.lstat().st_mode & 0o077 == 0, path
    assert nine.paths.runtime.stat().st_mode & 0o777 == 0o700


@pytest.mark.requirement("T4")
async def test_openbaos_tcp_listeners_answer_nobody(nine: Platform) -> None:
    for address, port in tcp_of(nine.pids()["openbao"]):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(5):
                answer = await reader.read(64)
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        assert b"HTTP/1.1 200" not in answer
