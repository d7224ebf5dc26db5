"""The nine modules of platform.yaml on a cluster: the same file as on a laptop, with the images that there are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.cluster.client import Client
from tests.support.cluster.environment import NINE, Environment, declare_nine
from tests.support.history import judge
from tests.support.scale import scale

pytestmark = [pytest.mark.requirement("K1", "K3"), pytest.mark.timeout(900)]

POOL = {"vtl": "ml", "rame": "ml", "eat": "storage", "sfl": "storage"}


@pytest.fixture(scope="module")
def nine(
    kube: Client, images: Mapping[str, str], helm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    made = Environment(tmp_path_factory.mktemp("nine"), kube, images, helm, f"junzi-{uuid4().hex[:4]}")
    with made.ending():
        declare_nine(made)
        began = time.monotonic()
        made.done("up")
        print(f"nine modules from nothing: {time.monotonic() - began:.1f} s")
        yield made


def test_all_nine_are_ready_each_on_its_pool(nine: Environment) -> None:
    assert {name: ready for name, ready in nine.ready().items() if name in NINE} == NINE
    nodes = {
        node["metadata"]["name"]: node["metadata"]["labels"].get("idi.dev/pool", "")
        for node in json.loads(nine.kubectl("get", "nodes", "-o", "json"))["items"]
    }
    for module in NINE:
        for pod in nine.pods(f"idi.dev/module={module}"):
            assert nodes[pod["spec"]["nodeName"]] == POOL.get(module, "general"), module
    print(nine.kubectl("get", "pods,pvc,pdb,hpa,resourcequota", "-o", "wide"))


@pytest.mark.requirement("G1", "T1")
def test_the_smoke_suite_of_a_laptop_passes(nine: Environment) -> None:
    said = nine.done("test", "smoke")
    print(said.out)


@pytest.mark.requirement("B1")
def test_events_go_their_three_hops(nine: Environment) -> None:
    """A decision changes a case, dere learns from it, eat keeps what was learned."""
    nine.done("events", "publish", "jede.decided", "{}")
    nine.until(
        lambda: json.loads(nine.done("call", "eat", "/events").out)["handled"].get("dere.learned"),
        60,
        "eat to hear of what dere learned",
    )


@pytest.mark.quiet
@pytest.mark.requirement("K1", "C1")
def test_pushes_of_all_nine_under_load_fail_nothing(nine: Environment) -> None:
    """Every module is rolled; from the command to all nine healthy."""
    times = []
    token = nine.done("token", "--ttl", "1h", "--json").document["token"]
    load = nine.load("load-push", "/v1/jede/call/cam/echo", 20 * scale(1, 10), workers=2, token=token)
    for _ in range(scale(1, 10)):
        began = time.monotonic()
        nine.done("restart", *NINE)
        times.append(time.monotonic() - began)
    verdict = judge(nine.history(load, 600))
    print(f"pushes: {[round(each, 1) for each in times]} s; load: {verdict}")
    assert verdict.faults == []
    # The last of the former version says goodbye still.
    nine.until(lambda: {name: n for name, n in nine.ready().items() if name in NINE} == NINE, 60, "all nine")
