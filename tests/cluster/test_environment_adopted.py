"""What a control that was started anew takes over, and what it does not believe for ever."""

from __future__ import annotations

import time

import pytest

from tests.support.cluster import faults
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.history import judge

pytestmark = [pytest.mark.requirement("K1", "D1"), pytest.mark.timeout(600)]


def test_a_pod_that_only_kubelet_finds_well_loses_its_traffic(environment: Environment, own: Cluster) -> None:
    """It was ready before the new control, so it is taken over; its proxy never comes, and nobody answers for it."""
    pod = environment.pods("idi.dev/module=cam")[0]
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]

    def instance() -> dict[str, object]:
        modules = environment.done("status", "--json").document["modules"]
        there = next(one for one in modules if one["name"] == "cam")["instances"]
        return next((one for one in there if one["id"] == name), {})

    with faults.unheard(own, node, pod["status"]["podIP"]):
        # A replica would still have its stream, and tell of its loss.
        environment.kubectl("delete", "pod", "-l", "idi.dev/part=xds", "--grace-period=0", "--force")
        environment.kubectl("delete", "pod", "control-0", "--grace-period=0", "--force")
        environment.until(lambda: environment.idi("status").code == 0, 90, "control to be back")
        began = time.monotonic()
        environment.until(lambda: instance().get("state", "ready") != "ready", 60, f"{name} to be taken out")
        print(f"taken out {time.monotonic() - began:.1f} s after control was back: {instance()}")
        ready = environment.kubectl(
            "get", "pod", name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        )
        assert ready == "True", "kubelet never saw anything"
        verdict = judge(environment.history(environment.load("load-adopted", "/open/jede/call/cam/echo", 5)))
        assert not verdict.faults, verdict.faults
        assert name not in verdict.by
    environment.until(lambda: instance().get("state") == "ready", 60, f"{name} to be back")
