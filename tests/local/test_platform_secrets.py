"""Secrets on a whole platform: set by the command, kept by OpenBao, given to real modules, and nowhere else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.load import start_load
from tests.support.platform import ROOT, Platform, alive, platform, until

SHOWING = (ROOT / "tests" / "support" / "showing_module.py").read_text()

DECLARATION = """
platform: shop
modules:
  alpha:
    run: exec python showing.py ${port}
    instances: 2
    secrets: {PASSWORD: alpha/password, KEY: {path: alpha/key.pem, as: file}}
    config: {DSN: "postgres://shop:${secret.alpha/password}@db/shop"}
    routes: [{path: /v1/alpha/, public: true}]
    grace: 3s
  beta:
    run: exec python showing.py ${port}
    routes: [{path: /v1/beta/, public: true}]
    grace: 3s
  gamma:
    run: exec python showing.py ${port}
    secrets: {SHARED: alpha/password, OWN: gamma/own}
    grace: 3s
"""
UNSET = "is not set; idi secrets set"

pytestmark = pytest.mark.requirement("S1", "S2")


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def environments(shop: Platform, module: str) -> list[dict[str, str]]:
    return [environment(one["pid"]) for one in shop.instances(module)]


def put(shop: Platform, path: str, value: str) -> str:
    return shop.run("secrets", "set", path, stdin=value).stdout


def listed(shop: Platform) -> dict[str, tuple[int, list[str], bool]]:
    document = json.loads(shop.run("secrets", "list", "--json").stdout)
    return {one["path"]: (one["version"], one["modules"], one["missing"]) for one in document["secrets"]}


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"showing.py": SHOWING}) as one:
        yield one
        folder = memory(one)
        assert one.down().returncode == 0
        assert not folder.exists()  # the files went with their instances


def memory(shop: Platform) -> Path:
    return Path(f"/dev/shm/idi-{os.getuid()}-{shop.paths.hash8}")


def test_what_is_not_set_is_said_and_the_others_come_up(shop: Platform) -> None:
    done = shop.up(check=False)
    assert done.returncode == 1
    assert f"secret alpha/key.pem {UNSET} alpha/key.pem" in done.stdout + done.stderr
    assert shop.module("beta")["state"] == "ready"
    alpha, gamma = shop.module("alpha"), shop.module("gamma")
    assert (alpha["state"], alpha["ready"]) == ("failed", 0)
    assert alpha["reason"] == f"secret alpha/key.pem {UNSET} alpha/key.pem"
    assert gamma["reason"] == f"secret alpha/password {UNSET} alpha/password"
    assert listed(shop) == {
        "alpha/key.pem": (0, ["alpha"], True),
        "alpha/password": (0, ["alpha", "gamma"], True),
        "gamma/own": (0, ["gamma"], True),
    }


def test_setting_the_last_one_begins_the_module(shop: Platform) -> None:
    (shop.folder / "key.pem").write_bytes(b"\xff\0KEY\n\n")
    said = put(shop, "alpha/password", "geheim  \n")
    assert "alpha does not start before alpha/key.pem is set, too." in said
    shop.run("secrets", "set", "alpha/key.pem", "--from-file", "key.pem")
    alpha = shop.module("alpha")
    assert (alpha["state"], alpha["ready"], len(alpha["instances"])) == ("ready", 2, 2)
    for one in environments(shop, "alpha"):
        assert (one["PASSWORD"], one["DSN"]) == ("geheim  ", "postgres://shop:geheim  @db/shop")
        file = Path(one["KEY"])
        assert (file.name, file.read_bytes()) == ("key.pem", b"\xff\0KEY\n\n")
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
        assert file.is_relative_to(memory(shop) / one["IDI_INSTANCE"])
        for folder in list(file.parents)[:3]:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    put(shop, "gamma/own", "own")
    shop.wait_ready()
    [gamma] = environments(shop, "gamma")
    assert (gamma["SHARED"], gamma["OWN"]) == ("geheim  ", "own")
    assert shop.up().returncode == 0
    assert "PASSWORD" not in environments(shop, "beta")[0]


async def test_rotating_rolls_those_that_use_it_and_loses_no_request(shop: Platform) -> None:
    before = shop.pids()
    async with start_load(shop.load("/v1/alpha/ready", [], rate=25, seconds=60)) as running:
        await asyncio.sleep(1)
        await asyncio.to_thread(shop.run, "secrets", "rotate", "alpha/password")
        await asyncio.sleep(1)
    result = running.result
    assert result.sent > 50
    assert (result.failed, result.timeouts) == (0, 0), result.failures
    after = shop.pids()
    kept = {name for name, pid in after.items() if before.get(name) == pid}
    assert not {name for name in kept if name.startswith(("alpha", "gamma"))}
    assert {"control", "openbao", "gateway", "beta-1", "beta-1 sidecar"} <= kept
    values = {one["PASSWORD"] for one in environments(shop, "alpha")}
    values |= {one["SHARED"] for one in environments(shop, "gamma")}
    [value] = values
    assert len(base64.urlsafe_b64decode(value + "=")) == 32
    assert listed(shop)["alpha/password"] == (2, ["alpha", "gamma"], False)
    assert len(list(memory(shop).iterdir())) == 2


def test_while_openbao_is_sealed_new_instances_wait_and_the_others_go_on(shop: Platform) -> None:
    running = shop.pids()
    key = shop.paths.keys / "seal.key"
    aside = shop.paths.keys / "aside"
    key.rename(aside)
    try:
        os.kill(running["openbao"], 9)
        until(lambda: any(p["name"] == "openbao" and p["state"] != "ready" for p in shop.status()["parts"]))
        done = shop.run("secrets", "set", "gamma/own", stdin="other", check=False)
        assert done.returncode == 1
        assert "OpenBao is" in done.stderr
        pid = shop.instances("gamma")[0]["pid"]
        assert pid > 1
        os.kill(pid, 9)
        until(lambda: "its secrets cannot be had: OpenBao is" in shop.module("gamma")["reason"], 30)
        assert shop.module("alpha")["ready"] == 2
        assert alive(running["beta-1"])
        assert shop.ask("/v1/alpha/ready").status_code == 200
    finally:
        aside.rename(key)
    shop.wait_ready(60)
    [gamma] = environments(shop, "gamma")
    assert gamma["OWN"] == "own"


def test_what_an_instance_left_in_memory_is_swept_by_the_next_control(shop: Platform) -> None:
    left = memory(shop) / "alpha-77"
    left.mkdir(mode=0o700)
    (left / "file").write_text("geheim")
    os.kill(shop.control_pid(), 9)
    shop.up()
    assert not left.exists()
    assert all(Path(one["KEY"]).exists() for one in environments(shop, "alpha"))


def forms(value: bytes) -> set[bytes]:
    """A value as others may write it down; base64 at each of its three offsets."""
    found = {value, value.hex().encode(), value.hex().upper().encode(), quote(value, safe="").encode()}
    found.add(json.dumps(value.decode())[1:-1].encode())
    for offset in range(3):
        shifted = bytes(offset) + value
        whole = base64.b64encode(shifted)[offset + (offset > 0) : len(shifted) // 3 * 4]
        found |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return found


@pytest.mark.requirement("T4")
def test_a_value_is_found_nowhere_but_in_its_own_modules(shop: Platform) -> None:
    value = f'cän"{os.urandom(12).hex()}/+ary'
    wanted = forms(value.encode())
    put(shop, "alpha/password", value)
    shop.wait_ready()
    assert shop.run("secrets", "set", "alpha/password", "--from-file", "nothing", check=False).returncode == 2
    said = [
        shop.run("status", "--json").stdout,
        shop.run("plan", "--json").stdout,
        shop.run("secrets", "list", "--json").stdout,
        shop.run("audit", "list", "--json", "--limit", "100000").stdout,
        shop.run("logs", check=False).stdout,
    ]
    for text in said:
        assert not [form for form in wanted if form in text.encode()]
    for base in (shop.folder, shop.home, shop.paths.state, shop.paths.runtime):
        for path in base.rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                assert not [form for form in wanted if form in content], path
    own = {one["pid"] for module in ("alpha", "gamma") for one in shop.instances(module)}
    seen = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue
        assert not [form for form in wanted if form in arguments], entry
        if int(entry.name) in own:
            seen += value.encode() in variables
        else:
            assert not [form for form in wanted if form in variables], entry
    assert seen == 3
    noted = [one for one in shop.journal() if one.get("subject") == "alpha/password"]
    assert noted
    assert noted[-1]["actor"]["name"]
