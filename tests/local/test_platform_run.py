"""`idi run` on a real platform: a developer's process under a real debugger stands for one of the platform's own,
gets real calls and events, and is given back however it ends. Nothing is lost meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.command.terminal import Terminal
from tests.support.platform import ROOT, Platform, alive, free_port, platform, until
from tests.support.scale import need_part
from tests.support.steady import kill, meanwhile, nothing_failed, report, under_load

SOURCE = (ROOT / "tests" / "support" / "debugged.py").read_text()
EVENTFUL = (ROOT / "tests" / "support" / "eventful.py").read_text()
LINES = SOURCE.splitlines()
CALLED = next(n for n, line in enumerate(LINES, 1) if "a breakpoint stands here" in line)
HEARD = next(n for n, line in enumerate(LINES, 1) if "and one here" in line)
DECLARATION = """
platform: shop
gateway:
  clients:
    pilot: {scopes: [jede.call, pair.call]}
defaults: {readiness: {http: /ready, every: 100ms}, grace: 2s}
modules:
  orders: {run: exec python eventful.py, publishes: [order.placed]}
  jede:
    run: exec python jede.py
    calls: [pair]
    handles: {order.placed: /placed}
    config: {HEARD: heard-jede}
    routes: [{path: /v1/jede/, timeout: 60s}]
  pair: {run: exec python jede.py, instances: 2, routes: [{path: /v1/pair/, timeout: 60s}]}
  kept: {run: exec python jede.py, storage: {size: 1GiB}, config: {ALONE: kept-lock}}
  hidden:
    run: exec python jede.py
    config: {LINK: "http://${port}/"}
    secrets: {TOKEN: hidden/token, KEY: {path: hidden/key, as: file}}
events:
  order.placed: {deliver: {attempts: 3, backoff: 100ms..400ms}}
"""
STANDS = "stands for one of"
NODE = """const http = require("node:http");
http.createServer((request, response) => {
  if (request.url === "/ready") {
    response.end();
  } else {
    response.end(JSON.stringify({who: process.env.WHO}));
  }
}).listen(process.env.PORT, "127.0.0.1");
"""
STOP = 6
pytestmark = [pytest.mark.timeout(300), pytest.mark.requirement("D1", "B1")]


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"jede.py": SOURCE, "eventful.py": EVENTFUL, "pair.js": NODE}) as one:
        one.up(check=False)  # hidden lacks its secrets
        one.run("secrets", "set", "hidden/token", stdin="s3cr3t-token")
        one.run("secrets", "set", "hidden/key", stdin="s3cr3t-key")
        one.wait_ready()
        yield one


@contextmanager
def running(shop: Platform, module: str, *command: str, **more: Any) -> Iterator[Terminal]:
    """`idi run` in a terminal, until its instance stands for one of ours."""
    command = command or ("python", "jede.py")
    with Terminal(
        shop.command("run", module, "--", *command),
        env={**shop.environment(), "WHO": "mine", "COLUMNS": ""},
        cwd=shop.folder,
        **more,
    ) as terminal:
        try:
            yield terminal
        finally:
            if terminal.process.poll() is None:
                terminal.signal(signal.SIGTERM)
                terminal.ends(30)


def who(shop: Platform, module: str, token: str) -> str:
    answer = shop.ask(f"/v1/{module}/", token)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["who"])


def as_before(shop: Platform, module: str, count: int = 1) -> bool:
    found = shop.module(module)
    return len(found["instances"]) == found["ready"] == count and not any(
        "by" in each for each in found["instances"]
    )


def mine(shop: Platform, module: str) -> dict[str, Any]:
    [found] = [each for each in shop.instances(module) if "by" in each]
    return found


class Asking(threading.Thread):
    """One request, answered some time later."""

    def __init__(self, shop: Platform, path: str, token: str) -> None:
        super().__init__()
        self.answer: httpx.Response | None = None
        self._given = (shop, path, token)
        self.start()

    def run(self) -> None:
        shop, path, token = self._given
        self.answer = shop.ask(path, token, timeout_s=60)

    def end(self) -> httpx.Response:
        self.join(60)
        assert self.answer is not None
        return self.answer


def publish(shop: Platform, id: str) -> None:
    [instance] = shop.instances("orders")
    urls = httpx.get(f"http://{instance['address']}/urls", trust_env=False).json()
    event = {"specversion": "1.0", "id": id, "source": "/test", "type": "order.placed"}
    answer = httpx.post(
        urls["EVENTS_URL"],
        content=json.dumps(event),
        headers={"content-type": "application/cloudevents+json"},
        trust_env=False,
    )
    assert answer.status_code == 200


def heard(shop: Platform) -> list[str]:
    try:
        return (shop.folder / "heard-jede").read_text().splitlines()
    except FileNotFoundError:
        return []


def test_a_breakpoint_gets_a_real_call_and_a_real_event(shop: Platform) -> None:
    token = shop.token()
    debugger = ("python", "-m", "pdb", "-c", f"b jede.py:{CALLED}", "-c", f"b jede.py:{HEARD}", "-c", "c")
    with running(shop, "jede", *debugger, "jede.py") as terminal:
        terminal.until(STANDS)
        assert [each["by"] for each in shop.instances("jede")], "ours is gone"
        call = Asking(shop, "/v1/jede/", token)
        terminal.until("(Pdb)")
        # It answers nothing now: twice its timeout is more than a module may miss.
        publish(shop, "at-the-breakpoint")
        terminal.feed(5.0)
        found = shop.module("jede")
        assert (found["state"], found["ready"], found["desired"]) == ("ready", 1, 1)
        assert "one run by" in shop.run("status").stdout
        terminal.send("p 'the call', self.path\n")
        terminal.until("('the call', '/')")
        terminal.send("c\n")
        assert call.end().json() == {"who": "mine"}
        terminal.until("do_POST")
        terminal.send("p 'the event', event\n")
        terminal.until("('the event', 'at-the-breakpoint')")
        terminal.send("c\n")
        until(lambda: heard(shop) == ["at-the-breakpoint 1 mine"], why=lambda: f"{heard(shop)}")
        terminal.feed(1.0)  # until it waits for the next request: there Ctrl-C is the debugger's
        terminal.send("\x03")
        terminal.until("Program interrupted")
        terminal.send("q\n")
        assert terminal.ends(30) == 0
        assert "Given back: 1 instance of jede ready." in terminal.text
    assert as_before(shop, "jede")
    assert who(shop, "jede", token) == "ours"
    assert shop.run("events", "dead").stdout.startswith("No event is dead.")


def test_a_debugger_of_another_language_does_as_well(shop: Platform) -> None:
    """`node inspect` runs the module as a child of its own."""
    need_part("Node", shutil.which("node"), "https://nodejs.org/")
    token = shop.token()
    with running(shop, "pair", "node", "inspect", f"--port={free_port()}", "pair.js") as terminal:
        terminal.until("Break on start in pair.js")
        terminal.feed(0.5)
        terminal.send(f"sb('pair.js', {STOP})\n")
        terminal.until("6")
        terminal.send("c\n")
        terminal.until(STANDS)
        for _ in range(50):  # until one comes to ours
            call = Asking(shop, "/v1/pair/", token)
            while call.is_alive() and "break in pair.js" not in terminal.text:
                terminal.feed(0.1)
            if "break in pair.js" in terminal.text:
                break
            assert call.end().json() == {"who": "ours"}
        terminal.feed(1.0)
        assert shop.module("pair")["ready"] == 2
        terminal.send("exec('request.url')\n")
        terminal.until("'/'")
        terminal.send("c\n")
        assert call.end().json() == {"who": "mine"}
        terminal.send("\x04")
        terminal.ends(30)
    until(lambda: as_before(shop, "pair", 2))


def test_ctrl_z_stops_both_and_nothing_is_taken_away(shop: Platform) -> None:
    token = shop.token()
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with Terminal(shell, env={**shop.environment(), "WHO": "mine"}, cwd=shop.folder) as terminal:
        terminal.send(f"{' '.join(shop.command('run', 'jede', '--', 'python', 'jede.py'))}\n")
        terminal.until(STANDS)
        terminal.send("\x1a")
        terminal.until("Stopped")
        call = Asking(shop, "/v1/jede/", token)
        terminal.feed(3.0)
        assert mine(shop, "jede")["state"] == "ready"
        terminal.send("fg\n")
        assert call.end().json() == {"who": "mine"}
        terminal.send("\x03")
        terminal.until("Given back")
        terminal.send("echo it ended with $?\n")
        terminal.until("it ended with 130")


def test_it_is_in_the_journal_and_shown(shop: Platform) -> None:
    token = shop.token()
    with running(shop, "jede") as terminal:
        terminal.until(STANDS)
        assert who(shop, "jede", token) == "mine"
        assert "one run by" in shop.run("status").stdout
        assert "is run by" in shop.run("plan").stderr
        second = shop.run("run", "jede", "--", "python", "jede.py", check=False)
        assert second.returncode == 1
        assert "runs an instance of jede already" in second.stderr
        terminal.send("\x03")
        assert terminal.ends(30) == 130 or terminal.process.returncode == 1  # as Python ends by Ctrl-C
    until(lambda: as_before(shop, "jede"))
    entries = [one for one in shop.journal() if one.get("action") in ("run", "hand-over", "give-back")]
    assert [(one["action"], one["phase"]) for one in entries[-6:]] == [
        (action, phase) for action in ("run", "hand-over", "give-back") for phase in ("begin", "finish")
    ]
    assert entries[-6]["actor"]["kind"] == "peer"
    assert "command has ended" in entries[-2]["detail"]["why"]
    shop.audit()


async def test_nothing_is_lost_when_it_comes_and_goes(shop: Platform) -> None:
    token = await meanwhile(shop.token, "--client", "pilot", "--ttl", "1h")
    async with under_load(shop, "/v1/jede/", [token], 100.0) as act:
        with running(shop, "jede") as terminal:
            await meanwhile(terminal.until, STANDS)
            assert await meanwhile(who, shop, "jede", token) == "mine"
            terminal.signal(signal.SIGTERM)  # to idi: ours comes back first
            assert await meanwhile(terminal.ends, 30.0) == 0
        await meanwhile(until, lambda: as_before(shop, "jede"))
    report("one instance, replaced and given back", act)
    nothing_failed(act)


async def test_nothing_is_lost_beside_another_instance(shop: Platform) -> None:
    """Ended by its own Ctrl-C: the other instance has the traffic until ours is back."""
    token = await meanwhile(shop.token, "--client", "pilot", "--ttl", "1h")
    async with under_load(shop, "/v1/pair/", [token], 100.0) as act:
        with running(shop, "pair") as terminal:
            await meanwhile(terminal.until, STANDS)
            assert {await meanwhile(who, shop, "pair", token) for _ in range(6)} == {"mine", "ours"}
            terminal.send("\x03")
            await meanwhile(terminal.ends, 30.0)
        await meanwhile(until, lambda: as_before(shop, "pair", 2))
    report("one of two, replaced and ended by Ctrl-C", act)
    nothing_failed(act)


async def test_it_outlives_control(shop: Platform) -> None:
    token = await meanwhile(shop.token, "--ttl", "1h")
    with running(shop, "jede") as terminal:
        await meanwhile(terminal.until, STANDS)
        before = mine(shop, "jede")
        await kill(shop.control_pid())
        assert await meanwhile(who, shop, "jede", token) == "mine"
        await meanwhile(shop.up)
        after = mine(shop, "jede")
        assert (before["id"], before["pid"]) == (after["id"], after["pid"])
        assert len(shop.instances("jede")) == 1, "ours stays away"
        await asyncio.sleep(1.5)
        assert await meanwhile(who, shop, "jede", token) == "mine"
        terminal.signal(signal.SIGTERM)
        assert await meanwhile(terminal.ends, 30.0) == 0
        assert "Given back" in terminal.text
    assert as_before(shop, "jede")


async def test_it_is_given_back_when_it_ends_without_control(shop: Platform) -> None:
    with running(shop, "jede") as terminal:
        await meanwhile(terminal.until, STANDS)
        await kill(shop.control_pid())
        terminal.send("\x03")
        await meanwhile(terminal.ends, 60.0)
        assert "Control gives it back by itself" in terminal.text.replace("\n     ", " ")
    await meanwhile(shop.up)
    await meanwhile(until, lambda: as_before(shop, "jede"))


async def test_it_is_given_back_when_idi_is_killed(shop: Platform) -> None:
    token = await meanwhile(shop.token, "--client", "pilot", "--ttl", "1h")
    async with under_load(shop, "/v1/jede/", [token], 100.0) as act:
        # In a shell: with the leader of a session its terminal goes, and everything in it.
        shell = [
            "sh",
            "-c",
            " ".join([*shop.command("run", "jede", "--", "python", "jede.py"), "; sleep 600"]),
        ]
        with Terminal(shell, env={**shop.environment(), "WHO": "mine"}, cwd=shop.folder) as terminal:
            await meanwhile(terminal.until, STANDS)
            command = mine(shop, "jede")["pid"]
            assert alive(command)
            await kill(next(e["actor"]["pid"] for e in reversed(shop.journal()) if e.get("action") == "run"))
            await meanwhile(until, lambda: as_before(shop, "jede"))
            await meanwhile(until, lambda: not alive(command))
    report("given back after idi was killed", act)
    nothing_failed(act)


def test_one_that_is_never_ready_takes_nothing_away(shop: Platform) -> None:
    token = shop.token()
    with running(shop, "jede", "sleep", "600") as terminal:
        terminal.until("is not ready: waiting for /ready")
        assert "ours goes on serving" in terminal.text.replace("\n     ", " ")
        assert who(shop, "jede", token) == "ours"
        assert shop.module("jede")["ready"] == 1
        terminal.send("\x03")
        assert terminal.ends(30) == 130
    assert as_before(shop, "jede")


def test_with_storage_there_are_never_two(shop: Platform) -> None:
    with running(shop, "kept") as terminal:
        terminal.until(STANDS)
        assert "two writers" not in terminal.text
        assert [each["by"] for each in shop.instances("kept")]
        terminal.signal(signal.SIGTERM)
        assert terminal.ends(30) == 0
    until(lambda: as_before(shop, "kept"))
    assert shop.module("kept")["instances"][0]["restarts"] == 0
    assert "two writers" not in shop.run("logs", "kept").stdout


def test_it_has_the_environment_of_the_module(shop: Platform) -> None:
    """All of it, and what the user has beside it; secrets are in nobody's arguments and in no log."""
    dump = "import json, os; json.dump([dict(os.environ), os.getcwd()], open('dump', 'w'))"
    token = shop.token()
    for module in ("jede", "hidden"):
        ours = shop.ask(f"/v1/{module}/environment", token).json()
        done = subprocess.run(
            shop.command("run", module, "--", "python", "-c", f"{dump}; raise SystemExit(7)"),
            cwd=shop.folder,
            env={**shop.environment(), "EDITOR": "ed"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (7, "")
        theirs, place = json.loads((shop.folder / "dump").read_text())
        assert place == str(shop.folder)
        assert theirs["EDITOR"] == "ed"
        assert ours.keys() - theirs.keys() <= {"IDI_SEAT", "PWD"}
        own = {"PORT", "IDI_INSTANCE", "PAIR_URL", "EVENTS_URL", "OTEL_RESOURCE_ATTRIBUTES", "IDI_SEAT"}
        own |= {"KEY", "LINK", "PATH", "PWD", "BUS_URL"}
        assert {n: v for n, v in ours.items() if n not in own} == {
            n: theirs.get(n) for n in ours if n not in own
        }
    assert (theirs["TOKEN"], ours["TOKEN"]) == ("s3cr3t-token", "s3cr3t-token")
    assert theirs["KEY"].startswith("/dev/shm/")
    assert not os.path.exists(theirs["KEY"]), "it went with the instance"
    assert theirs["LINK"] == f"http://{theirs['PORT']}/"
    assert "s3cr3t" not in json.dumps(shop.journal()) + shop.control_log() + done.stderr


@pytest.mark.requirement("S1")
def test_env_is_what_a_module_gets(shop: Platform) -> None:
    token = shop.token()
    [instance] = shop.instances("hidden")
    ours = shop.ask("/v1/hidden/environment", token).json()
    size = shop.audit()["size"]
    shown = shop.run("env", "hidden")
    assert f"export LINK=http://{ours['PORT']}/\n" in shown.stdout
    assert "s3cr3t" not in shown.stdout
    assert "1 secret is not shown (TOKEN)" in shown.stderr
    assert shop.audit()["size"] == size
    revealed = json.loads(shop.run("env", "hidden", "--reveal", "--json").stdout)
    values = {one["name"]: one["value"] for one in revealed["variables"]}
    assert revealed["instance"] == instance["id"]
    assert values == {name: ours[name] for name in values}
    assert {"PORT", "IDI_INSTANCE", "KEY", "TOKEN", "GATEWAY_URL"} < values.keys()
    last = shop.journal()[-1]
    assert (last["action"], last["subject"], last["actor"]["kind"]) == ("reveal", "hidden", "peer")
    assert "s3cr3t" not in json.dumps(last)
    evaluated = 'eval "$(idi env jede 2>/dev/null)"; echo $IDI_MODULE $PAIR_URL'
    done = subprocess.run(
        ["sh", "-c", evaluated], cwd=shop.folder, env=shop.environment(), capture_output=True, text=True
    )
    jede = shop.ask("/v1/jede/environment", token).json()
    assert done.stdout.split() == ["jede", jede["PAIR_URL"]]
    shop.run("scale", "jede=0")
    nobody = shop.run("env", "jede", "--plain")
    assert "IDI_MODULE=jede\n" in nobody.stdout
    assert "PORT" not in nobody.stdout.replace("EXPORTER", "")
    assert "No instance of jede lives, and only one has" in nobody.stderr
    shop.run("scale", "jede=1")


def test_wrong_uses_are_said_and_change_nothing(shop: Platform) -> None:
    size = shop.audit()["size"]
    absent = shop.run("run", "jede", "--", "no-such-command", check=False)
    assert absent.returncode == 127
    assert "There is no command 'no-such-command'." in absent.stderr
    assert shop.run("run", "jdee", "--", "true", check=False).returncode == 2
    assert shop.run("run", "bus", "--", "true", check=False).returncode == 2
    assert shop.audit()["size"] == size


def test_with_json_it_speaks_on_stderr(shop: Platform) -> None:
    done = shop.run("run", "jede", "--json", "--", sys.executable, "-c", "print('its own')")
    assert done.stdout == "its own\n"
    documents = [json.loads(line) for line in done.stderr.splitlines()]
    assert documents[-1] == {"type": "ended", "instance": "jede-2", "exit": 0}


def test_down_ends_it_with_a_message(shop: Platform) -> None:
    with running(shop, "jede") as terminal:
        terminal.until(STANDS)
        pid = mine(shop, "jede")["pid"]
        shop.down()
        assert terminal.ends(30) == 0  # by the SIGTERM that every module gets
        assert "The platform goes down, and what runs here with it." in terminal.text
        assert not alive(pid)
    done = shop.run("run", "jede", "--", "true", check=False)
    assert done.returncode == 3
    shop.up()
    assert as_before(shop, "jede"), "it does not come back with the platform"
