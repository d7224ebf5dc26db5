"""What fails and what then: each failure of the design's table made real, with what goes on meanwhile, what is
refused and in which words, and how it heals.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import small_disk
from tests.support.platform import ROOT, Platform, alive, free_port, platform, until
from tests.support.scale import need_part, scale
from tests.support.steady import meanwhile, nothing_failed, report, under_load

SMALL = (ROOT / "tests" / "support" / "small_module.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms, deadline: 4s}, grace: 2s}
modules:
  jede: {run: python -I -S small.py, calls: [cam]}
  cam: {run: python -I -S small.py}
"""
WHO = "/v1/cam/IDI_INSTANCE"


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(DECLARATION, {"small.py": SMALL}) as one:
        one.up()
        yield one


@pytest.fixture
def shop(running: Platform) -> Platform:
    """The shared platform, as declared and ready, whatever the test before did with it."""
    running.write(DECLARATION)
    running.up()
    running.run("scale", "jede=1", "cam=1")
    running.wait_ready()
    return running


@pytest.fixture
def other() -> Iterator[Platform]:
    """One that is not up yet."""
    with platform(DECLARATION, {"small.py": SMALL}) as one:
        yield one


# --- starting ---


@pytest.mark.requirement("T3")
def test_a_taken_port_is_named_with_its_holder_and_nothing_is_started(other: Platform) -> None:
    listen = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])))"
    listen += "; print(flush=True); s.accept()"
    command = [sys.executable, "-c", listen, str(other.gateway_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            done = other.up(check=False)
        finally:
            holder.kill()
    assert done.returncode == 1
    assert f"Port {other.gateway_port}" in done.stderr
    assert f"pid {holder.pid}" in done.stderr
    assert "python" in done.stderr
    assert "--gateway-port" in done.stderr
    assert other.processes() == []
    assert other.run("status", check=False).returncode == 3
    assert not (other.paths.state / "journal").exists()


@pytest.mark.requirement("D1")
def test_two_ups_at_once_are_one_platform(other: Platform) -> None:
    both = [other.start("up", "--detach", *other.ports) for _ in range(2)]
    ended = [each.communicate(timeout=60) for each in both]
    assert [each.returncode for each in both] == [0, 0], ended
    assert other.ready()
    leaders = set(other.pids().values()) - {other.control_pid()}
    assert {pid for pid in other.processes() if os.getsid(pid) == pid} == leaders
    controls = subprocess.run(
        ["pgrep", "-f", f"idi.control --file {other.file}"], capture_output=True, text=True
    )
    assert controls.stdout.split() == [str(other.control_pid())]
    changes = [entry for entry in other.journal() if entry["action"] == "up" and entry["phase"] == "finish"]
    assert [entry["ok"] for entry in changes] == [True]


def foreground(one: Platform, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`idi up` as in a terminal: it leads a process group of its own, which is what Ctrl-C is sent to."""
    return one.start("up", *one.ports, start_new_session=True, **({"env": env} if env else {}))


def ctrl_c(process: subprocess.Popen[str]) -> tuple[str, str]:
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=60)


@pytest.mark.requirement("D1")
def test_ctrl_c_stops_everything(other: Platform) -> None:
    process = foreground(other)
    until(lambda: other.run("status", check=False).returncode == 0 and other.ready(), 30)
    assert other.ask(WHO, other.token()).text == "cam-1"
    output = ctrl_c(process)
    assert process.returncode == 130, output
    assert other.processes() == []
    assert other.run("status", check=False).returncode == 3
    other.audit()
    # And in the middle of starting.
    for number in range(scale(1, 6)):
        process = foreground(other)
        time.sleep(1.2 - 0.2 * number)
        output = ctrl_c(process)
        assert process.returncode == 130, output
        assert "Traceback" not in output[1]
        assert other.processes() == []
        other.audit()


@pytest.mark.requirement("S5", "T3")
def test_openbao_started_ahead_is_adopted_or_ended_whoever_dies(other: Platform) -> None:
    """It is the first process of a second start, before control answers anybody."""
    other.up()
    other.down()

    def started() -> tuple[subprocess.Popen[str], int, int]:
        process = other.start("up", "--detach", *other.ports)
        [bao] = until(other.processes, every_s=0.002)
        lock = other.paths.lock.read_text()
        return process, bao, int(lock)

    process, bao, control = started()
    os.kill(control, signal.SIGTERM)
    assert process.wait(20) != 0
    assert not alive(bao)
    process, bao, control = started()
    os.kill(control, signal.SIGKILL)
    assert process.wait(20) != 0
    assert alive(bao)
    assert other.run("down").returncode == 0
    assert not alive(bao)
    process, bao, control = started()
    os.kill(control, signal.SIGKILL)
    assert process.wait(20) != 0
    other.up()
    assert other.pids()["openbao"] == bao
    for stream in ("stdout", "stderr"):
        getattr(process, stream).close()
    other.down()
    other.audit()


@pytest.mark.requirement("S1")
def test_without_home_the_keys_are_in_the_users_home_all_the_same(other: Platform) -> None:
    """Found by the user database; a service manager or a bare container sets no HOME."""
    env = other.environment()
    del env["HOME"]
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    keys = home / ".local" / "share" / "idi" / other.paths.hash8
    try:
        process = other.start("up", "--detach", *other.ports, env=env)
        output = process.communicate(timeout=60)
        assert process.returncode == 0, output
        assert (keys / "seal.key").exists()
        assert keys.stat().st_mode & 0o777 == 0o700
        # A command with HOME finds the same platform: its socket does not depend on it.
        assert other.run("status").returncode == 0
        process = other.start("down", env=env)
        output = process.communicate(timeout=60)
        assert process.returncode == 0, output
    finally:
        shutil.rmtree(keys, ignore_errors=True)
    assert not [path for path in other.folder.rglob("*") if path.name == "~"]


# --- modules ---


@pytest.mark.requirement("T3")
def test_a_module_that_crashes_at_start_says_why_and_the_others_run(shop: Platform) -> None:
    shop.write(
        DECLARATION
        + """
  bad: {run: python -I -S small.py, config: {CRASH: "3", HELLO: cannot find my database}}
  mute: {run: python -I -S small.py, config: {UNREADY: small.py}}
"""
    )
    done = shop.up(check=False)
    assert done.returncode == 1
    assert "bad-1" in said(done)
    assert "cannot find my database" in said(done)
    assert "exit code 3" in said(done)
    # The other never answers its probe as it should: the probe's own words.
    assert "mute-1" in said(done)
    assert "503" in said(done)
    status = shop.status()
    states = {module["name"]: module["state"] for module in status["modules"]}
    assert (states["jede"], states["cam"], states["bad"]) == ("ready", "ready", "failed")
    assert shop.ask(WHO, shop.token()).text == "cam-1"
    # A change of something else is not held up by it.
    shop.run("scale", "cam=2")
    assert shop.module("cam")["ready"] == 2
    # Nor is its end.
    shop.write(DECLARATION)
    shop.up()
    assert {module["name"] for module in shop.status()["modules"]} == {"jede", "cam"}


@pytest.mark.requirement("D1")
def test_a_module_that_ignores_sigterm_is_killed_after_its_grace(shop: Platform) -> None:
    """With what it started, in a process group of its own and as deaf."""
    shop.write(
        DECLARATION
        + """
  deaf: {run: python -I -S small.py, grace: 1s, config: {IGNORE_TERM: "1", GRANDCHILD: child.pid}}
"""
    )
    shop.up()
    [one] = shop.instances("deaf")
    child = int((shop.folder / "child.pid").read_text())
    assert alive(child)
    shop.run("scale", "deaf=0")
    assert not alive(one["pid"])
    assert not alive(child)
    assert shop.module("deaf")["instances"] == []


# --- parts ---


@pytest.mark.requirement("S4", "T3")
async def test_without_its_seal_key_openbao_stops_new_instances_and_nothing_else(shop: Platform) -> None:
    token = shop.token("--ttl", "1h")
    key, aside = shop.paths.keys / "seal.key", shop.home / "copy-of-seal.key"
    before = shop.pids()
    async with under_load(shop, WHO, [token], 40.0) as act:
        key.rename(aside)
        os.kill(before["openbao"], signal.SIGKILL)
        scaled = await meanwhile(lambda: shop.run("scale", "cam=2", check=False))
        assert scaled.returncode == 1
        assert "cam-2" in said(scaled)
        assert "no certificate" in said(scaled)
        assert "OpenBao" in said(scaled)
        status = await meanwhile(lambda: shop.run("status").stdout)
        assert "no seal key" in status
        assert str(key) in status
        assert "Put the key back" in status
        assert "Traffic goes on" in status
        # Control may die on top of it.
        os.kill(shop.control_pid(), signal.SIGKILL)
        again = await meanwhile(lambda: shop.up(check=False))
        assert again.returncode == 1
        assert "no seal key" in said(again)
        assert "no seal key" in await meanwhile(lambda: shop.run("status").stdout)
        parts = {part["name"]: part["state"] for part in (await meanwhile(shop.status))["parts"]}
        assert parts == {"openbao": "failed", "gateway": "ready"}, "it serves by the certificate it holds"
        aside.rename(key)
        began = time.monotonic()
        await meanwhile(shop.wait_ready)
        healed = time.monotonic() - began
    report("OpenBao without its seal key", act, healed_after=f"{healed:.1f} s")
    nothing_failed(act)
    assert shop.module("cam")["ready"] == 2
    after = shop.pids()
    assert all(after[name] == pid for name, pid in before.items() if name not in ("openbao", "control"))
    assert "no seal key" not in shop.run("status").stdout


@pytest.mark.requirement("S4", "T3")
def test_an_openbao_that_crashes_at_its_first_start_fails_everything_at_once(other: Platform) -> None:
    program = other.folder / "bao"
    program.write_text("#!/bin/sh\nexit 3\n" + "#" * 1_100_000)
    program.chmod(0o700)
    other.exported["IDI_BAO"] = str(program)
    began = time.monotonic()
    done = other.up(check=False)
    assert time.monotonic() - began < 15.0, said(done)
    assert done.returncode != 0
    assert "OpenBao does not start: ended with exit code 3" in said(done)
    assert "The gateway gets no certificate: OpenBao does not start" in said(done)
    assert "jede-1 gets no certificate: OpenBao does not start" in said(done)


@pytest.mark.requirement("S4", "T3")
def test_an_openbao_that_hangs_is_told_and_fails_the_next_up(shop: Platform) -> None:
    def openbao() -> dict[str, str]:
        return {part["name"]: part for part in shop.status()["parts"]}["openbao"]

    pid = shop.pids()["openbao"]
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: openbao()["state"] == "unready", 15)
        assert "no answer of its health" in openbao()["reason"]
        again = shop.up(check=False)
        assert again.returncode == 1
        assert "OpenBao does not issue: it gives no answer of its health" in said(again)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: openbao()["state"] == "ready", 15)
    assert shop.pids()["openbao"] == pid
    shop.up()


@pytest.mark.requirement("T3")
async def test_a_vanished_runtime_folder_is_made_again(shop: Platform) -> None:
    token = shop.token("--ttl", "1h")
    before = shop.pids()
    async with under_load(shop, WHO, [token], 40.0) as act:
        shutil.rmtree(shop.paths.runtime)
        first = await meanwhile(lambda: shop.run("status", check=False))
        # Either it has healed already, or it says what to do.
        assert first.returncode == 0 or "idi up" in said(first)
        await meanwhile(shop.up)
        await meanwhile(shop.wait_ready)
        await meanwhile(lambda: shop.run("scale", "cam=2"))
        await asyncio.sleep(0.5)
    report("runtime folder deleted", act)
    nothing_failed(act)
    assert shop.paths.runtime.stat().st_mode & 0o777 == 0o700
    after = shop.pids()
    untouched = ("gateway", "jede-1", "jede-1 sidecar", "cam-1", "cam-1 sidecar")
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


# --- side by side ---


@pytest.mark.requirement("D1")
def test_a_second_platform_stands_beside_the_first(shop: Platform, other: Platform) -> None:
    other.home = shop.home  # one user, two checkouts
    before = shop.pids()
    other.up()
    assert other.url != shop.url
    assert shop.ask(WHO, shop.token()).text == "cam-1"
    assert other.ask(WHO, other.token()).text == "cam-1"
    # Same declaration, same names: still strangers.
    assert other.ask(WHO, shop.token()).status_code == 401
    assert not set(before.values()) & set(other.pids().values())
    other.down()
    assert other.processes() == []
    assert shop.pids() == before
    assert shop.ask(WHO, shop.token()).text == "cam-1"


# --- state ---


@pytest.mark.requirement("S5", "T4")
def test_a_damaged_journal_is_named_and_set_aside(shop: Platform) -> None:
    token, before = shop.token(), shop.pids()
    journal = shop.paths.state / "journal"
    os.kill(before["control"], signal.SIGKILL)
    database = journal / "journal.db"
    good = database.read_bytes()
    database.write_bytes(os.urandom(len(good)))
    refused = shop.up(check=False)
    assert refused.returncode == 1
    assert str(database) in said(refused)
    assert f"mv {journal} " in said(refused)
    assert "Traffic goes on" in said(refused)
    assert shop.run("down", check=False).returncode == 1
    assert shop.ask(WHO, token).text == "cam-1"
    database.write_bytes(good)

    # Of another version: both are named.
    version(database, 99)
    refused = shop.up(check=False)
    assert refused.returncode == 1
    assert "99" in said(refused)
    assert str(version(database, 1)) in said(refused)
    assert str(database) in said(refused)
    assert shop.ask(WHO, token).text == "cam-1"

    # As it is told: set aside, and up. What runs is taken over.
    journal.rename(journal.with_name("journal.aside"))
    shop.up()
    after = shop.pids()
    assert {**after, "control": 0} == {**before, "control": 0}
    shop.audit()
    shop.run("scale", "cam=2")


def version(database: Path, number: int) -> int:
    connection = sqlite3.connect(database)
    try:
        connection.execute(f"pragma user_version = {number}")
        connection.commit()
        return number
    finally:
        connection.close()


@pytest.mark.requirement("S5", "T3")
def test_on_a_full_disk_forward_changes_are_refused_and_down_works() -> None:
    need_part("a mount namespace", small_disk.possible(), "run as root where namespaces can be made")
    with small_disk.holder() as pid, platform(DECLARATION, {"small.py": SMALL}) as one:
        disk = small_disk.Namespace(pid, one.folder, "64m")
        one.wrapper = disk.wrapper
        one.up()
        token = one.token()
        disk.fill()
        for change in (("scale", "cam=2"), ("restart", "jede")):
            refused = one.run(*change, check=False)
            assert refused.returncode == 1, refused
            assert "is full" in said(refused)
            assert "Make room" in said(refused)
        status = one.run("status").stdout
        assert "is full" in status
        assert one.ask(WHO, token).text == "cam-1"
        assert one.module("cam")["ready"] == 1
        one.down()
        assert one.processes() == []
        one.audit()
        refused = one.up(check=False)
        assert refused.returncode == 1
        assert "is full" in said(refused)
        disk.make_room()
        one.up()
        one.run("scale", "cam=2")
        assert one.ask(WHO, one.token()).status_code == 200
        assert "is full" not in one.run("status").stdout
        one.audit()
        one.down()


def test_free_ports_are_out_of_everybodys_way() -> None:
    """The frame of all of the above: a port for a gateway is not one that an outgoing connection may take."""
    low, _ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert free_port() < low
