"""`idi config`: what it asks, what it shows, and what it says where nothing runs."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from idi.api.place import place
from idi.control.change.wanted import Wanted
from idi.declaration.overlay import value_of
from idi.declaration.types import ModuleName
from idi.parts.store.interface import Actor
from idi.parts.store.sqlite.store import open_store
from idi.plan.configured import changed
from idi.plan.types import Overlays
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl
from tests.command.test_asking import done, problem

pytestmark = pytest.mark.requirement("S1")

JEDE = ModuleName("jede")
DECLARATION = """\
platform: junzi
defaults:
  config: {LOG_LEVEL: info}
modules:
  jede:
    run: "true"
    config: {WORKERS: 4}
    secrets: {PASSWORD: jede/password}
  cam: {run: "true"}
"""


def value(name: str, text: str | None, origin: str) -> dict[str, Any]:
    return {"name": name, "value": text, "origin": origin}


VIEW = {
    "modules": [
        {
            "module": "jede",
            "version": 3,
            "values": [
                value("EMPTY", "", "platform.yaml:9:1"),
                value("LOG_LEVEL", "debug\nx", "idi config set"),
                value("PASSWORD", None, "platform.yaml:8:25"),
                value("WORKERS", "4", "platform.yaml:7:23 (dev)"),
            ],
        },
        {"module": "cam", "version": 0, "values": []},
    ]
}


@pytest.fixture
def configured(control: FakeControl) -> FakeControl:
    control.config = VIEW
    return control


# --- get ---


def test_every_value_has_its_origin_and_a_secret_is_only_there(idi: Run, configured: FakeControl) -> None:
    found = idi("config", "get")
    assert (found.code, found.err) == (0, "")
    assert found.out == (
        "jede  version 3\n"
        "  EMPTY      (empty)     platform.yaml:9:1\n"
        "  LOG_LEVEL  debug x     idi config set\n"
        "  PASSWORD   (a secret)  platform.yaml:8:25\n"
        "  WORKERS    4           platform.yaml:7:23 (dev)\n"
        "\n"
        "cam  version 0\n"
        "  nothing is configured\n"
    )
    assert idi("config", "get", "cam").out == "cam  version 0\n  nothing is configured\n"


def test_one_value_is_alone_on_stdout(idi: Run, configured: FakeControl) -> None:
    assert idi("config", "get", "jede", "LOG_LEVEL").out == "debug\nx\n"
    secret = idi("config", "get", "jede", "PASSWORD")
    assert (secret.code, secret.out) == (1, "")
    assert "is a secret: it is there, and it is never shown." in secret.err
    wrong = idi("config", "get", "jede", "LOG_LEVL")
    assert wrong.code == 2
    assert "jede has no variable 'LOG_LEVL'. Did you mean 'LOG_LEVEL'?" in wrong.err
    assert "Did you mean 'jede'?" in idi("config", "get", "jedd").err


@pytest.mark.parametrize("where", ["before", "after"])
def test_get_with_json(idi: Run, configured: FakeControl, where: str) -> None:
    assert (
        idi("--json", "config", "get") if where == "before" else idi("config", "get", "--json")
    ).document == VIEW
    [one] = idi("config", "get", "jede", "--json").document["modules"]
    assert one == VIEW["modules"][0]
    document = idi("config", "get", "jede", "WORKERS", "--json").document
    assert document == {
        "module": "jede",
        "version": 3,
        "values": [value("WORKERS", "4", "platform.yaml:7:23 (dev)")],
    }


def record(overlays: Overlays) -> None:
    _, _, state, _, keys = place("platform.yaml", "dev")

    async def write() -> None:
        journal = Path(state) / "journal"
        async with open_store(journal, Path(keys), origin="idi/test", clock=time.time) as store:
            wanted = Wanted(up=False, text="x", file="platform.yaml", overlays=overlays)
            await store.begin(Actor("peer", "anna"), "down", {}, documents=wanted.documents())

    asyncio.run(write())


def test_where_nothing_runs_the_file_speaks_with_what_was_set(idi: Run, folder: Path) -> None:
    (folder / "platform.yaml").write_text(DECLARATION)
    found = idi("config", "get")
    assert found.err == "From platform.yaml as it is now, since nobody answers.\n"
    assert "  LOG_LEVEL  info        platform.yaml:3:23\n" in found.out
    record(changed(Overlays(), JEDE, {"LOG_LEVEL": value_of("debug"), "LINK": value_of("${peer.cam.url}")}))
    found = idi("config", "get", "jede")
    assert "jede  version 2\n  LOG_LEVEL  debug       idi config set\n" in found.out
    said = "idi config set jede LINK no longer holds, since it does not fit the file: '${peer.cam.url}': the module"
    assert said in found.err
    assert idi("config", "get", "jede", "LOG_LEVEL").out == "debug\n"


def test_a_plan_where_nothing_runs_has_what_was_set(idi: Run, folder: Path) -> None:
    (folder / "platform.yaml").write_text(DECLARATION.replace("    secrets: {PASSWORD: jede/password}\n", ""))
    record(changed(Overlays(), JEDE, {"LOG_LEVEL": value_of("debug")}))
    found = idi("plan", "--origins")
    assert found.err == ""
    assert "modules.jede.config.LOG_LEVEL  idi config set\n" in found.out
    assert "modules.cam.config.LOG_LEVEL   platform.yaml:3:23\n" in found.out
    note = (
        "LOG_LEVEL of jede is set by idi config set; platform.yaml:3:23 says otherwise. "
        "idi config set jede --unset LOG_LEVEL goes back to that."
    )
    assert idi("plan").err == f"{note}\n"


# --- set ---


def test_set_asks_at_the_version_that_it_read(idi: Run, configured: FakeControl) -> None:
    new = {"type": "message", "text": "The configuration of jede is version 4 now."}
    configured.changes["config"] = [new, done("jede", "ensure", "+", "1 instance of revision b")]
    found = idi("config", "set", "jede", "LOG_LEVEL=trace", 'CODE="8080"', "WORKERS=8", "FAST=true", "NONE=")
    assert found.code == 0
    assert configured.requests[-1][2] == {
        "action": "config",
        "module": "jede",
        "set": {"LOG_LEVEL": "trace", "CODE": "8080", "WORKERS": 8, "FAST": True, "NONE": ""},
        "unset": [],
        "expect": 3,
    }
    assert "The configuration of jede is version 4 now.\n" in found.out
    assert found.out.splitlines()[-1].startswith("Done in ")


def test_options_may_stand_between(idi: Run, configured: FakeControl) -> None:
    found = idi(
        "config", "set", "--expect", "2", "jede", "A=b", "--unset", "X", "C=d", "--unset", "Y", "--json"
    )
    assert found.code == 0
    assert [item["type"] for item in found.documents] == ["started", "done"]
    asked = configured.requests[-1][2]
    assert (asked["set"], asked["unset"], asked["expect"]) == ({"A": "b", "C": "d"}, ["X", "Y"], 2)


def test_a_stale_version_is_refused_with_both_values(idi: Run, configured: FakeControl) -> None:
    said = "There is LOG_LEVEL=debug (idi config set); wanted was LOG_LEVEL=trace."
    configured.answers["POST", "/v1/changes"] = problem(409, said, way_out="Look at it.")
    found = idi("config", "set", "jede", "LOG_LEVEL=trace", "--expect", "2")
    assert (found.code, found.out, found.err) == (1, "", f"{said}\nLook at it.\n")
    assert json.loads(idi("config", "set", "jede", "A=b", "--json").err)["detail"] == said


def test_what_cannot_be_set_is_2_in_the_words_of_the_declaration(idi: Run, configured: FakeControl) -> None:
    mistake = (
        "idi config set jede PORT: PORT is set by the platform itself for every module; choose another name."
    )
    configured.answers["POST", "/v1/changes"] = problem(422, "x", mistakes=[mistake])
    found = idi("config", "set", "jede", "PORT=1")
    assert (found.code, found.err) == (2, f"{mistake}\n1 mistake, nothing was changed.\n")
    assert idi("config", "set", "jedd", "A=b").code == 2


def test_set_where_nothing_runs_is_3(idi: Run) -> None:
    assert idi("config", "set", "jede", "A=b").code == 3
