"""The workflow that the project's own declaration makes: jede.decided -> cam.changed -> dere.learned -> eat.

Nobody calls anybody: each module hears of an event, does its part and publishes the next. What was published goes
through all of it although modules in between are killed, also where they are written in other languages.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.local.test_standins import command
from tests.support.platform import NINE, Platform, platform, until

pytestmark = pytest.mark.requirement("B1")

DECISIONS = 20
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e47{:02x}"
PYTHON = "run: python -m standins.python"
VARIANTS: dict[str, dict[str, str]] = {
    "as declared": {},
    "cam in Node, dere in Go": {"cam": "node", "dere": "go"},
}


def declaration(languages: dict[str, str]) -> str:
    """The project's own, where the modules named run in another language."""
    result = NINE
    for module, language in languages.items():
        program = "exec " + shlex.join(command(language))  # skips where its part is missing
        before, head, rest = result.partition(f"\n  {module}:\n    {PYTHON}\n")
        assert head, f"{module} is declared in another way"
        result = f"{before}\n  {module}:\n    run: {program}\n{rest}"
    return result


@pytest.fixture(params=VARIANTS)
def nine(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform(declaration(VARIANTS[request.param])) as one:
        one.up()
        yield one


def decide(nine: Platform, token: str, number: int) -> str:
    """The id of a decision that the platform has kept; of some cam needs a second or third attempt."""
    id = f"d-{number}"

    def answered() -> httpx.Response | None:
        answer = nine.ask(
            f"/v1/jede/publish/jede.decided?id={id}&subject=F%C3%A4lle/{number}",
            token,
            method="POST",
            json={"decided": number, "fail_attempts": (0, 0, 1, 0, 2)[number % 5]},
            headers={"traceparent": f"00-{TRACE_ID.format(number)}-00f067aa0ba902b7-01"},
        )
        return None if answer.status_code == 503 else answer  # not kept: a publisher sends it again

    answer = until(answered, 10)
    assert answer is not None
    assert answer.status_code == 200, answer.text
    assert (answer.json()["id"], answer.json()["answer"]) == (id, {"kept": 1})
    return id


def listed(nine: Platform, module: str) -> list[dict[str, Any]]:
    """What each instance of it says that it handled."""
    return [
        httpx.get(f"http://{one['address']}/events", trust_env=False, timeout=10).json()
        for one in nine.instances(module)
    ]


def kill(nine: Platform, module: str) -> None:
    """All of its instances at once, without a chance to finish anything."""
    for one in nine.instances(module):
        os.kill(one["pid"], signal.SIGKILL)


def test_each_decision_is_learned_once(nine: Platform) -> None:
    token = nine.token("--ttl", "1h")

    def learned() -> dict[str, Any]:
        answer = nine.ask("/v1/eat/events", token)
        assert answer.status_code == 200
        document = answer.json()
        assert isinstance(document, dict)
        return document

    before = {one["id"]: one["pid"] for one in nine.instances("cam")}
    ids = []
    for number in range(DECISIONS):
        ids.append(decide(nine, token, number))
        if number == DECISIONS // 2:
            kill(nine, "cam")  # some decisions wait for another attempt then
    until(lambda: len(learned()["last"]) >= DECISIONS, 60, lambda: json.dumps(learned()))
    nine.wait_ready()
    after = {one["id"]: one["pid"] for one in nine.instances("cam")}
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values()), "they were killed"

    until(lambda: {id for one in listed(nine, "jede") for id in one["last"]} == set(ids), 30)
    found = learned()
    assert sorted(found["last"]) == sorted(ids), "each once"
    assert found["handled"] == {"dere.learned": DECISIONS}
    for module, kind in (("dere", "cam.changed"), ("jede", "cam.changed"), ("cam", "jede.decided")):
        assert {name for one in listed(nine, module) for name in one["handled"]} <= {kind}
    assert nine.run("events", "dead", "--json").stdout == ""

    # One trace leads from the request that decided to what was learned of it, whatever lay between.
    traces = {id: trace.split("-")[1] for id, trace in zip(found["last"], found["traces"], strict=True)}
    assert traces == {id: TRACE_ID.format(number) for number, id in enumerate(ids)}
