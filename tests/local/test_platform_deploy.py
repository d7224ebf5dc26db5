"""`idi deploy` on a laptop: the named modules as declared now, the others as they run."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.platform import ROOT, Platform, platform

pytestmark = pytest.mark.requirement("C1")

SMALL = (ROOT / "tests" / "support" / "small_module.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms, deadline: 4s}, grace: 2s}
modules:
  jede: {run: python -I -S small.py, calls: [cam], config: {COLOUR: red}}
  cam: {run: python -I -S small.py, config: {COLOUR: red}}
"""
GREEN = DECLARATION.replace("COLOUR: red", "COLOUR: green")


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"small.py": SMALL}) as one:
        said = one.run("deploy", check=False)
        assert said.returncode == 3, said
        assert "idi up" in said.stderr
        one.up()
        yield one


def pids(shop: Platform, name: str) -> list[int]:
    return [one["pid"] for one in shop.instances(name)]


@pytest.mark.requirement("C1", "S5")
def test_only_the_named_module_is_another(shop: Platform) -> None:
    cam, token = pids(shop, "cam"), shop.token()
    shop.write(GREEN)
    told = [json.loads(line) for line in shop.run("deploy", "jede", "--json").stdout.splitlines()]
    assert told[-1] == {"type": "done", "ok": True}
    assert shop.ask("/v1/jede/COLOUR", token).text == "green"
    assert shop.ask("/v1/cam/COLOUR", token).text == "red"
    assert pids(shop, "cam") == cam
    entry = next(
        one for one in reversed(shop.journal()) if one["action"] == "deploy" and one["phase"] == "begin"
    )
    assert entry["detail"] == {"file": "platform.yaml", "modules": ["jede"]}
    # What is left of the file comes with the next push of all.
    plan = json.loads(shop.run("plan", "--json").stdout)
    assert {step["module"] for step in plan["steps"]} == {"cam"}
    assert "Done" in shop.run("deploy").stdout
    assert shop.ask("/v1/cam/COLOUR", token).text == "green"
    assert "Nothing to change" in shop.run("deploy", "cam").stdout


def test_a_version_that_does_not_get_ready_stops_the_push(shop: Platform) -> None:
    shop.write(GREEN)
    shop.run("deploy")
    before, token = pids(shop, "cam"), shop.token()
    head, _, cam = GREEN.rpartition("  cam: ")
    shop.write(f"{head}  cam: {cam.replace('small.py', 'nothing.py')}")
    said = shop.run("deploy", "cam", check=False)
    assert said.returncode == 1
    assert "The push failed" in said.stderr
    assert "nothing.py" in said.stdout, "its last lines"
    assert set(before) <= set(pids(shop, "cam"))
    assert shop.ask("/v1/cam/COLOUR", token).text == "green"
    shop.write(GREEN)
    shop.run("deploy", "cam")
    assert shop.ready()


def test_what_is_not_declared_is_wrong_usage(shop: Platform) -> None:
    said = shop.run("deploy", "jeed", check=False)
    assert said.returncode == 2
    assert "Did you mean 'jede'?" in said.stderr
    said = shop.run("status", "--role", "viewer", check=False)
    assert said.returncode == 2
    assert "--role is for an environment on a cluster" in said.stderr
