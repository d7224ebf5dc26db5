"""The cluster says how many instances there are: by their load, within the quota, where the GPUs are.

Autoscaler, metrics, quota and scheduler are the cluster's real ones; requests go on all the time, and none may fail.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.conftest import CLIENTS, MODULES
from tests.support.cluster.environment import Environment
from tests.support.cluster.faults import quota_full
from tests.support.cluster.objects import replicas_wanted
from tests.support.history import judge

pytestmark = [pytest.mark.requirement("K2"), pytest.mark.timeout(600)]

BEFORE = "    resources: {{cpu: 20m, memory: 64MiB}}\n    routes: [{{path: /v1/cam/"
DEPLOYMENT = "cam-stable"
MOST, LEAST = 4, 2
SCALE = f"    scale: {{{{max: {MOST}, cpu: 60%, down_after: 15s}}}}\n"


def declare(environment: Environment, scale: str = "", *, target: str = "", more: str = "") -> None:
    """The session's three modules, with a cam that asks for enough to scale by."""
    assert BEFORE in MODULES
    own = f"    resources: {{{{cpu: 100m, memory: 64MiB}}}}\n{scale}    routes: [{{{{path: /v1/cam/"
    image = environment.images["standin-python"]
    modules = (MODULES.replace(BEFORE, own) + more).format(image=image)
    environment.declare(modules, more=CLIENTS, target=target)


@pytest.fixture(scope="module")
def shop(environment: Environment) -> Iterator[Environment]:
    text = (environment.folder / "platform.yaml").read_text()
    declare(environment)
    environment.done("up")
    yield environment
    (environment.folder / "platform.yaml").write_text(text)
    environment.done("up")


def cam(environment: Environment) -> dict[str, Any]:
    modules = environment.done("status", "--json").document["modules"]
    return next(one for one in modules if one["name"] == "cam")


def replicas(environment: Environment) -> int:
    return int(environment.kubectl("get", "deployment", DEPLOYMENT, "-o", "jsonpath={.spec.replicas}"))


def test_scaling_by_load_is_switched_on_and_off_without_a_moment_of_fewer(shop: Environment) -> None:
    shop.done("scale", "cam=3")
    pods = {pod["metadata"]["uid"] for pod in shop.pods("idi.dev/module=cam")}
    load = shop.load("load-switch", "/open/cam/echo", 300)
    with replicas_wanted(shop.kube, shop.namespace, DEPLOYMENT) as wanted:
        declare(shop, SCALE)
        shop.done("up")
        time.sleep(5)
        on = replicas(shop)
        assert {pod["metadata"]["uid"] for pod in shop.pods("idi.dev/module=cam")} == pods, "none was rolled"
        declare(shop)
        shop.done("up")
    assert not json.loads(shop.kubectl("get", "hpa", "-o", "json"))["items"]
    verdict = judge(shop.history(load, stop=True))
    print(f"numbers wanted: {wanted}; load: {verdict}")
    assert on == 3
    assert set(wanted) == {3}
    assert not verdict.faults, verdict.faults
    assert {pod["metadata"]["uid"] for pod in shop.pods("idi.dev/module=cam")} == pods
    shop.done("scale", "cam=2")


def test_load_brings_instances_and_takes_them_away_and_no_request_is_lost(shop: Environment) -> None:
    declare(shop, SCALE)
    shop.done("up")
    assert cam(shop)["scale"] == {"least": LEAST, "most": MOST}
    light = shop.load("load-light", "/open/cam/echo", 400, workers=2, pause_s=0.1)
    began = time.monotonic()
    heavy = shop.load("load-heavy", "/open/cam/cpu?for=40ms", 300, workers=3, pause_s=0.1)
    try:
        shop.until(lambda: replicas(shop) > LEAST, 120, "the autoscaler to want more")
        wanted_s = time.monotonic() - began
        shop.until(lambda: cam(shop)["ready"] == MOST, 120, f"{MOST} instances to be ready")
        out_s = time.monotonic() - began
        # What the autoscaler wants is what is desired, and neither a plan nor a second up takes it back.
        assert cam(shop)["desired"] == MOST
        print(shop.kubectl("get", "hpa", "-o", "wide"), shop.done("status").out)
        assert "No changes" in shop.done("plan").out
        assert "Nothing to change." in shop.done("up").out
        assert replicas(shop) == MOST
    finally:
        burnt = judge(shop.history(heavy, stop=True))
    ended = time.monotonic()
    shop.until(lambda: cam(shop)["desired"] == LEAST, 180, "the autoscaler to want fewer")
    shop.until(lambda: len(shop.pods("idi.dev/module=cam")) == LEAST, 60, "the surplus to be gone")
    back_s = time.monotonic() - ended
    other = judge(shop.history(light, stop=True))
    print(
        f"more wanted after {wanted_s:.1f} s, all ready after {out_s:.1f} s, back {back_s:.1f} s after the load"
    )
    print(f"heavy: {burnt}; light: {other}")
    assert not [*burnt.faults, *other.faults]
    assert len(burnt.by) == MOST, "the new ones had their share of the load"


@pytest.mark.requirement("K1")
def test_the_least_may_be_raised_lowered_and_nothing(shop: Environment) -> None:
    """Also from none: an autoscaler leaves a Deployment alone that somebody set to 0."""
    shop.done("scale", "cam=3")
    assert (cam(shop)["ready"], cam(shop)["scale"]["least"]) == (3, 3)
    refused = shop.idi("scale", f"cam={MOST + 1}")
    assert refused.code == 1
    assert f"{MOST} at most" in refused.err
    shop.done("scale", "cam=0")
    assert (cam(shop)["ready"], cam(shop)["desired"]) == (0, 0)
    shop.done("scale", f"cam={LEAST}")
    assert cam(shop)["ready"] == LEAST


@pytest.mark.requirement("K3")
def test_what_has_no_room_in_the_quota_is_refused_with_what_is_short(shop: Environment) -> None:
    declare(shop, target="        quota: {cpu: 2, memory: 8GiB, pods: 14}\n")
    shop.done("up")
    refused = shop.idi("scale", "dere=6")
    print(refused.err)
    assert refused.code == 1
    assert "of pods where the quota has 14" in refused.err
    assert "under target.kubernetes" in refused.err
    assert shop.ready()["dere"] == 1
    # A file that cannot have room is not even sent.
    text = (shop.folder / "platform.yaml").read_text()
    (shop.folder / "platform.yaml").write_text(text.replace("pods: 14", "pods: 9"))
    said = shop.idi("up")
    assert said.code == 2
    assert "quota pods is 9" in said.err


@pytest.mark.requirement("K3")
def test_a_quota_of_somebody_elses_is_told_when_a_pod_is_refused(shop: Environment) -> None:
    declare(shop)
    shop.done("up")
    with quota_full(shop.kube, shop.namespace):
        began = time.monotonic()
        said = shop.idi("scale", "dere=2")
        print(f"after {time.monotonic() - began:.1f} s: {said.out}{said.err}")
        assert said.code == 1
        assert "1 of 2 instances of dere could be made" in said.out + said.err
        assert "the quota full of the namespace is used up" in said.out + said.err
        assert "pods in use, 1 more asked for" in said.out + said.err
        modules = shop.done("status", "--json").document["modules"]
        dere = next(one for one in modules if one["name"] == "dere")
        assert (dere["ready"], "used up" in dere["reason"]) == (1, True), dere
    shop.done("scale", "dere=1")


@pytest.mark.requirement("K3")
def test_who_asks_for_a_gpu_runs_where_one_is(shop: Environment) -> None:
    vtl = (
        "  vtl:\n    image: {image}\n    pool: ml\n    readiness: {{http: /ready, every: 500ms}}\n"
        "    resources: {{cpu: 20m, memory: 64MiB, gpu: 1}}\n"
    )
    declare(shop, more=vtl)
    [node] = json.loads(shop.kubectl("get", "nodes", "-l", "idi.dev/pool=ml", "-o", "json"))["items"]
    name = node["metadata"]["name"]
    without = shop.idi("doctor")
    assert without.code == 1
    assert "no node of pool ml has nvidia.com/gpu, which vtl asks for" in without.out, without.out
    has = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]
    patch = ("patch", "node", name, "--subresource=status", "--type=json", "-p")
    shop.kubectl(*patch, json.dumps(has))
    try:
        shop.until(
            lambda: (
                shop.kubectl("get", "node", name, "-o", r"jsonpath={.status.allocatable.nvidia\.com/gpu}")
                == "1"
            ),
            60,
            "kubelet to allot it",
        )
        found = shop.idi("doctor")
        assert "nvidia.com/gpu on 1 node of pool ml for vtl" in found.out, found.out
        shop.done("up")
        [pod] = shop.pods("idi.dev/module=vtl")
        assert pod["spec"]["nodeName"] == name
        module = next(one for one in pod["spec"]["containers"] if one["name"] == "module")
        assert module["resources"]["limits"]["nvidia.com/gpu"] == "1"
    finally:
        shop.kubectl(*patch, json.dumps([{"op": "remove", "path": "/status/capacity/nvidia.com~1gpu"}]))
