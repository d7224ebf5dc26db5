"""`idi config set` on a real platform: under a constant load nothing fails, every instance has the new value, nobody
else is renewed, and nothing of it is in the record but the names. Times are measured and printed, never asserted.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.local.test_platform_mesh import SHOWING
from tests.support.platform import Platform, platform, until
from tests.support.scale import scale
from tests.support.steady import figure, kill, meanwhile, nothing_failed, report, under_load

CLIENTS = ("pilot", "bridge", "field", "desk", "review")
"""Together they stay below what each may ask for in a second."""
RATE = scale(120.0, 500.0)
SECONDS = scale(0.0, 30.0)
DECLARATION = """
platform: configured
gateway:
  clients:
    pilot: {scopes: [plain.call, kept.call]}
    bridge: {scopes: [plain.call]}
    field: {scopes: [plain.call]}
    desk: {scopes: [plain.call]}
    review: {scopes: [plain.call]}
defaults:
  config: {LEVEL: info}
modules:
  plain:
    run: "python showing.py ${port}"
    instances: 2
    calls: [kept]
    config: {WORKERS: 4}
  kept:
    run: "python showing.py ${port}"
    storage: {size: 1GiB}
"""
pytestmark = [pytest.mark.timeout(300), pytest.mark.requirement("S1")]


@pytest.fixture(scope="module")
def one() -> Iterator[Platform]:
    with platform(DECLARATION, {"showing.py": SHOWING}) as found:
        found.up()
        yield found


@pytest.fixture(scope="module")
def token(one: Platform) -> str:
    return one.token("--client", "pilot", "--ttl", "1h")


def configured(one: Platform, module: str) -> dict[str, Any]:
    [found] = json.loads(one.run("config", "get", module, "--json").stdout)["modules"]
    assert isinstance(found, dict)
    return found


def environments(one: Platform, module: str, token: str) -> dict[str, dict[str, str]]:
    """What every instance of a module finds in its environment, through the gateway."""
    wanted = {each["id"] for each in one.instances(module)}
    seen: dict[str, dict[str, str]] = {}

    def all_seen() -> bool:
        answer = one.ask(f"/v1/{module}/environment", token)
        if answer.status_code == 200:
            found = answer.json()
            seen[found["IDI_INSTANCE"]] = found
        return seen.keys() == wanted

    until(all_seen, 20.0, lambda: f"{sorted(seen)} of {sorted(wanted)}", 0.01)
    return seen


async def test_a_value_is_set_under_load_and_nothing_fails(one: Platform, token: str) -> None:
    tokens = [one.token("--client", name, "--ttl", "1h") for name in CLIENTS]
    for number in range(scale(2, 6)):
        one.wait_ready()
        before = one.pids()
        value = f"level-{number}"
        async with under_load(one, "/v1/plain/environment", tokens, RATE) as act:
            begun = time.monotonic()
            await meanwhile(one.run, "config", "set", "plain", f"LEVEL={value}", f"WORKERS={8 + number}")
            took = time.monotonic() - begun
            await asyncio.sleep(max(0.0, SECONDS - act.now()))
        report("config set plain", act, took=f"{took:.1f} s")
        nothing_failed(act)
        found = environments(one, "plain", token)
        assert len(found) == 2
        assert {(each["LEVEL"], each["WORKERS"]) for each in found.values()} == {(value, str(8 + number))}
        after = one.pids()
        same = {name for name in before if before[name] == after.get(name)}
        assert {name for name in before if not name.startswith("plain")} == same, "nobody else is renewed"
    assert configured(one, "plain")["version"] == scale(2, 6)


def test_a_stale_version_is_refused_and_nothing_is_lost(one: Platform, token: str) -> None:
    version = configured(one, "kept")["version"]
    one.run("config", "set", "kept", "LEVEL=anna", "LINK=127.0.0.1:${port}")
    pids = one.pids()
    late = one.run("config", "set", "kept", "LEVEL=bert", "--expect", str(version), check=False)
    assert late.returncode == 1
    assert "There is LEVEL=anna (idi config set); wanted was LEVEL=bert.\n" in late.stderr
    assert one.pids() == pids
    found = environments(one, "kept", token)["kept-1"]
    assert (found["LEVEL"], found["LINK"]) == ("anna", f"127.0.0.1:{found['PORT']}")
    wrong = one.run("config", "set", "kept", "EVENTS_URL=x", check=False)
    assert wrong.returncode == 2
    assert "EVENTS_URL is set by the platform itself for every module; choose another name." in wrong.stderr


async def test_it_outlives_control_and_up_and_goes_when_it_is_taken_back(one: Platform, token: str) -> None:
    pids = one.pids()
    await kill(pids["control"])
    await meanwhile(one.up)
    assert {**one.pids(), "control": 0} == {**pids, "control": 0}
    assert environments(one, "kept", token)["kept-1"]["LEVEL"] == "anna"
    assert re.search(r"modules\.kept\.config\.LEVEL +idi config set", one.run("plan", "--origins").stdout)
    one.down()
    assert "LEVEL  anna               idi config set" in one.run("config", "get", "kept").stdout
    one.up()
    assert environments(one, "kept", token)["kept-1"]["LEVEL"] == "anna"
    one.run("config", "set", "kept", "--unset", "LEVEL", "--unset", "LINK")
    found = environments(one, "kept", token)["kept-1"]
    assert found["LEVEL"] == "info"
    assert "LINK" not in found
    assert "of kept is set" not in one.run("plan").stderr


def test_the_record_names_variables_and_no_value(one: Platform) -> None:
    details = [entry.get("detail") for entry in one.journal() if entry["action"] == "config"]
    assert {"module": "kept", "set": ["LEVEL", "LINK"], "unset": []} in details
    assert not any(value in json.dumps(one.journal()) for value in ("anna", "bert", "level-1"))
    assert "kept; set LEVEL, LINK\n" in one.run("audit", "list", "--limit", "1000").stdout
    one.audit()
    figure("audit log", entries=one.audit()["size"])
