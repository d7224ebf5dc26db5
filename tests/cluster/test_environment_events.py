"""Events of an environment on a cluster: real NATS in a pod of its own, by HTTP and by the broker's own protocol."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.cluster.client import Client
from tests.support.cluster.environment import Environment

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.timeout(600)]

MODULE = """\
  {name}:
    image: {image}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
"""
EVENTS = {
    "jede": ["publishes: [jede.decided]"],
    "cam": [
        "handles: {jede.decided: /events/decided}",
        "publishes: [cam.changed]",
        "config: {STANDIN_ON_EVENT: cam.changed}",
    ],
    "dere": ["handles: {cam.changed: /events/changed}"],
    "vtl": ["publishes: [vtl.seen]"],
}

PUBLISH = r"""
import http.client, json, sys, time
prefix, seconds, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3]
end, number, said = time.time() + seconds, 0, {}
while True:
    began = time.time()
    connection = http.client.HTTPConnection("127.0.0.1", 20001, timeout=30)
    connection.request("POST", f"/publish/{kind}?id={prefix}-{number}", "{}", {"content-type": "application/json"})
    answer = connection.getresponse()
    body = answer.read().decode()
    said.setdefault(answer.status, []).append(number)
    print(json.dumps([round(time.time(), 2), number, answer.status, body[:300]]), flush=True)
    connection.close()
    number += 1
    if time.time() >= end:
        break
    time.sleep(0.1)
"""

NATIVE = r"""
import json, os, socket, sys, time
from urllib.parse import urlsplit
url, subject, seconds = urlsplit(os.environ["BUS_URL"]), sys.argv[1], float(sys.argv[2])
link = socket.create_connection((url.hostname, url.port), 5)
link.settimeout(5)
lines = link.makefile("rb")
assert lines.readline().startswith(b"INFO")
login = {"user": url.username, "pass": url.password, "verbose": False, "headers": True, "no_responders": True}
link.sendall(b"CONNECT " + json.dumps(login).encode() + b"\r\nSUB _INBOX.me 1\r\nPING\r\n")
def said():
    while True:
        line = lines.readline()
        if not line:
            return "closed"
        if line.startswith(b"PING"):
            link.sendall(b"PONG\r\n")
        elif line.startswith((b"MSG", b"HMSG")):
            size = int(line.split()[-1])
            return lines.read(size + 2).decode()
        elif not line.startswith((b"INFO", b"PONG")):
            return line.decode().strip()
        elif line.startswith(b"PONG"):
            return "pong"
first = said()
print(first, flush=True)
if first == "pong":
    link.sendall(f"PUB {subject} _INBOX.me 2\r\n{{}}\r\n".encode())
    print(said(), flush=True)
    end = time.time() + seconds
    while time.time() < end:
        time.sleep(0.3)
        link.sendall(b"PING\r\n")
        if (answer := said()) != "pong":
            print(f"lost: {answer}", flush=True)
            break
    else:
        print("stayed", flush=True)
"""


def declare(shop: Environment, *eventful: str, **more: str) -> None:
    """Those modules with their events, all others without; `more` is a further line of a module."""
    modules = ""
    for name, events in EVENTS.items():
        modules += MODULE.format(name=name, image=shop.images["standin-python"])
        modules += "".join(f"    {line}\n" for line in events if name in eventful)
        modules += f"    {more[name]}\n" if name in more else ""
    shop.declare(modules, events=True)


@pytest.fixture(scope="module")
def shop(
    kube: Client, images: Mapping[str, str], helm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """jede decides, cam changes for it, dere learns of that; vtl has no events yet."""
    made = Environment(tmp_path_factory.mktemp("post"), kube, images, helm, "post")
    with made.ending():
        declare(made, "jede", "cam", "dere")
        made.done("up")
        yield made


def pod_of(shop: Environment, module: str) -> str:
    """The one that serves."""
    shop.until(lambda: len(shop.pods(f"idi.dev/module={module}")) == 1, 60, f"one pod of {module}")
    return str(shop.pods(f"idi.dev/module={module}")[0]["metadata"]["name"])


def uids(shop: Environment, *modules: str) -> set[str]:
    """Of their pods: other ones where one started anew."""
    return {one["metadata"]["uid"] for name in modules for one in shop.pods(f"idi.dev/module={name}")}


def publish(shop: Environment, module: str, kind: str, prefix: str) -> tuple[int, str]:
    said = json.loads(shop.python(pod_of(shop, module), "module", PUBLISH, prefix, "0", kind))
    return said[2], said[3]


def handled(shop: Environment, module: str) -> list[str]:
    """The ids that it handled, the last hundred."""
    script = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:20001/events').read().decode())"
    last: list[str] = json.loads(shop.python(pod_of(shop, module), "module", script))["last"]
    return last


def meanwhile(shop: Environment, pod: str, script: str, *words: str) -> subprocess.Popen[str]:
    """A script in a module's container, beside the test."""
    command = shop.kube.command("-n", shop.namespace, "exec", pod, "-c", "module", "--", "python", "-c")
    return subprocess.Popen([*command, script, *words], stdout=subprocess.PIPE, text=True, bufsize=1)


def tail(
    shop: Environment, kind: str, enough: Callable[[list[str]], bool], timeout_s: float = 60
) -> list[str]:
    """Ids of a type from its first event on, as `idi events tail` says, until there are enough."""
    process = subprocess.Popen(
        shop.words("events", "tail", kind, "--since", "1", "--json"),
        cwd=shop.folder,
        env=shop.place(),
        stdout=subprocess.PIPE,
        text=True,
    )
    stop = threading.Timer(timeout_s, process.kill)
    stop.start()
    ids: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            ids.append(json.loads(line)["event"]["id"])
            if enough(ids):
                return ids
        raise AssertionError(f"not within {timeout_s:g} s; {len(ids)} of {kind}: {ids[-5:]}")
    finally:
        stop.cancel()
        process.terminate()
        process.wait(10)


@pytest.mark.requirement("B1")
def test_an_event_goes_from_module_to_module_across_the_mesh(shop: Environment) -> None:
    status, said = publish(shop, "jede", "jede.decided", "first")
    assert status in (200, 202), said
    shop.until(lambda: "first-0" in handled(shop, "dere"), 30, "dere to handle what cam made of it")
    assert "first-0" in handled(shop, "cam")
    parts = {one["name"]: one["state"] for one in shop.done("status", "--json").document["parts"]}
    assert (parts["bus"], parts["relay"]) == ("ready", "ready")
    assert "No changes" in shop.done("plan").out


@pytest.mark.requirement("B1", "S4")
def test_what_is_not_declared_is_refused(shop: Environment) -> None:
    status, said = publish(shop, "cam", "jede.decided", "forged")
    assert status == 403, said
    status, said = publish(shop, "vtl", "vtl.seen", "forged")
    assert status == 404, said
    own = meanwhile(shop, pod_of(shop, "jede"), NATIVE, "cam.changed", "0")
    lines = own.communicate(timeout=30)[0].splitlines()
    assert lines[0] == "pong"
    assert "Permissions Violation" in lines[1], lines
    # The bus's pod is reached by those alone who declare events.
    bus = shop.pods("idi.dev/module=bus")[0]["status"]["podIP"]
    reach = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 20101), 3); print('connected')\n"
        "except OSError: print('no')"
    )
    assert shop.python(pod_of(shop, "vtl"), "module", reach, bus).strip() == "no"
    assert shop.python(pod_of(shop, "jede"), "module", reach, bus).strip() == "connected"


@pytest.mark.requirement("B1")
def test_people_publish_and_read_by_the_command(shop: Environment) -> None:
    said = shop.done("events", "publish", "jede.decided", '{"by": "hand"}', "--id", "by-hand")
    assert "jede.decided" in said.out + said.err
    shop.until(lambda: "by-hand" in handled(shop, "dere"), 30, "dere")
    assert "by-hand" in tail(shop, "jede.decided", lambda ids: "by-hand" in ids)
    assert shop.done("events", "dead", "--json").out == ""


@pytest.mark.requirement("B1")
def test_a_bus_that_is_killed_loses_nothing_that_it_acknowledged(shop: Environment) -> None:
    publishing = meanwhile(shop, pod_of(shop, "jede"), PUBLISH, "killed", "40", "jede.decided")
    time.sleep(3)
    bus = pod_of(shop, "bus")
    began = time.monotonic()
    shop.kubectl("delete", "pod", bus, "--grace-period=0", "--force")
    lines = [json.loads(line) for line in publishing.communicate(timeout=120)[0].splitlines()]
    print(f"published {len(lines)} in {time.monotonic() - began:.0f} s")
    by_status: dict[int, list[int]] = {}
    for _, number, status, _ in lines:
        by_status.setdefault(status, []).append(number)
    kept = [number for status, numbers in by_status.items() if status < 300 for number in numbers]
    away = [at for at, _, status, _ in lines if status == 503]
    print(
        {status: len(numbers) for status, numbers in by_status.items()}, f"away {max(away) - min(away):.1f} s"
    )
    assert set(by_status) <= {200, 202, 503}
    assert max(kept) == lines[-1][1], "it goes on afterwards"
    wanted = {f"killed-{number}" for number in kept}
    assert wanted <= {*tail(shop, "cam.changed", lambda ids: wanted <= {*ids})}
    assert shop.done("events", "dead", "--json").out == ""


@pytest.mark.requirement("B1", "S4")
def test_another_account_disconnects_nobody(shop: Environment) -> None:
    """dere, which only handled, publishes as well."""
    native = meanwhile(shop, pod_of(shop, "jede"), NATIVE, "jede.decided", "45")
    assert native.stdout is not None
    assert native.stdout.readline().strip() == "pong"
    assert '"stream":"jede=decided"' in native.stdout.readline()
    before = uids(shop, "bus", "jede", "dere")
    declare(shop, "jede", "cam", "dere", dere="publishes: [dere.learned]")
    shop.done("up")
    assert uids(shop, "bus", "jede", "dere") == before, "no other has to start again"
    mine = meanwhile(shop, pod_of(shop, "dere"), NATIVE, "dere.learned", "0")
    lines = mine.communicate(timeout=30)[0].splitlines()
    assert lines[0] == "pong"
    assert '"stream":"dere=learned"' in lines[1]
    assert native.communicate(timeout=90)[0].strip() == "stayed"


@pytest.mark.requirement("B1", "S4")
def test_a_module_with_its_first_event_gets_its_account_before_it_starts(shop: Environment) -> None:
    before = uids(shop, "bus", "jede", "cam", "dere")
    native = meanwhile(shop, pod_of(shop, "jede"), NATIVE, "jede.decided", "45")
    assert native.stdout is not None
    assert native.stdout.readline().strip() == "pong"
    declare(shop, "jede", "cam", "dere", "vtl", dere="publishes: [dere.learned]")
    began = time.monotonic()
    shop.done("up")
    print(f"up with one publisher more: {time.monotonic() - began:.1f} s")
    assert uids(shop, "bus", "jede", "cam", "dere") == before, "no other has to start again"
    mine = meanwhile(shop, pod_of(shop, "vtl"), NATIVE, "vtl.seen", "0")
    lines = mine.communicate(timeout=30)[0].splitlines()
    assert lines[0] == "pong"
    assert '"stream":"vtl=seen"' in lines[1]
    assert publish(shop, "vtl", "vtl.seen", "new")[0] < 300
    shop.until(lambda: publish(shop, "jede", "jede.decided", "still")[0] < 300, 30, "everybody goes on")
    # Longer than a drain of the broker's sidecar: whoever was connected there is so still.
    assert native.communicate(timeout=90)[0].splitlines()[-1] == "stayed"
    told = [line for line in shop.kubectl("logs", "control-0").splitlines() if "taken its accounts" in line]
    print(*told, sep="\n")


@pytest.mark.requirement("S2", "B1")
def test_logins_rotate_and_nothing_is_lost(shop: Environment) -> None:
    publishing = meanwhile(shop, pod_of(shop, "cam"), PUBLISH, "rotated", "1", "cam.changed")
    publishing.communicate(timeout=60)
    script = "import os; print(os.environ['BUS_URL'].split(':')[1])"
    before = shop.python(pod_of(shop, "jede"), "module", script).strip()
    shop.done("keys", "rotate", "bus")
    after = shop.python(pod_of(shop, "jede"), "module", script).strip()
    assert (before, after) == ("//jede", "//jede.1")
    assert publish(shop, "jede", "jede.decided", "rotated-after")[0] < 300
    shop.until(lambda: "rotated-after-0" in handled(shop, "dere"), 30, "dere")
    kept = json.loads(shop.kubectl("get", "secret", "bus-accounts", "-o", "json"))["data"]["nats.conf"]
    assert kept
