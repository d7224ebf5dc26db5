"""Changes of an environment on a cluster: what a plan finds out before anything is done, and what somebody else did."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from tests.support.cluster.environment import Environment
from tests.support.cluster.objects import replicas_wanted

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.timeout(600)]

PLAN_S = 25.0


@pytest.fixture(autouse=True)
def left_quiet(environment: Environment) -> Iterator[None]:
    """What comes after finds the pods as declared, and none that is still ending."""
    yield
    environment.until(lambda: len(environment.pods("idi.dev/module")) == 4, 120, "no other pods")


def plan(environment: Environment, code: int = 0) -> dict[str, Any]:
    said = environment.idi("plan", "--json")
    assert said.code == code, said
    found: dict[str, Any] = said.document
    return found


def steady(environment: Environment) -> None:
    environment.done("up")
    assert plan(environment)["steps"] == []


def drift(environment: Environment) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["object"], one["field"]): one for one in plan(environment)["drift"]}


def workload(environment: Environment, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        environment.kubectl("get", "deployment", f"{name}-stable", "-o", "json")
    )
    return found


def container(environment: Environment, name: str) -> dict[str, Any]:
    found: dict[str, Any] = workload(environment, name)["spec"]["template"]["spec"]["containers"][0]
    return found


@contextmanager
def edited(environment: Environment, before: str, after: str) -> Iterator[None]:
    """Another declaration, for so long."""
    file = environment.folder / "platform.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    try:
        yield
    finally:
        file.write_text(text)


CONTAINER = "spec.template.spec.containers[module]"


@pytest.mark.requirement("K1", "S5")
def test_what_was_changed_behind_its_back_is_planned_and_put_back(environment: Environment) -> None:
    steady(environment)
    declared = container(environment, "dere")
    environment.kubectl(
        *("set", "image", "deployment/dere-stable", f"module={environment.images['sidecar']}")
    )
    environment.kubectl("set", "env", "deployment/cam-stable", "-c", "module", "SECRETLY=hunter2")
    environment.kubectl("scale", "deployment/cam-stable", "--replicas=3")
    environment.kubectl("delete", "service/jede", "networkpolicy/jede", "pdb/cam")
    environment.kubectl("set", "resources", "deployment/jede-stable", "-c=module", "--requests=cpu=30m")
    began = time.monotonic()
    found = plan(environment)
    print(f"idi plan with drift of three modules: {(time.monotonic() - began) * 1000:.0f} ms")
    assert time.monotonic() - began < PLAN_S
    its = {(one["object"], one["field"]): one for one in found["drift"]}
    image = its[("Deployment dere-stable", f"{CONTAINER}.image")]
    assert (image["manager"], image["declared"][:40]) == ("kubectl-set", declared["image"][:40])
    assert its[("Deployment cam-stable", "spec.replicas")]["there"] == "3"
    assert its[("Deployment jede-stable", f"{CONTAINER}.resources.requests.cpu")]["there"] == "30m"
    gone = {what for what, field in its if not field}
    assert gone == {"Service jede", "NetworkPolicy jede", "PodDisruptionBudget cam"}
    assert ("Deployment cam-stable", f"{CONTAINER}.env[SECRETLY]") in its
    assert "hunter2" not in json.dumps(found), "a value may be a secret"
    assert {step["module"] for step in found["steps"]} == {"dere", "cam", "jede"}
    shown = environment.done("plan").out
    assert "changed on the cluster: " in shown
    assert "(kubectl-set)" in shown
    environment.done("up")
    assert plan(environment)["steps"] == []
    listed = environment.done("audit", "list", "--json", "--limit", "900").out
    seen = [one for one in map(json.loads, listed.splitlines()) if one["action"] == "drift"]
    assert {one["subject"] for one in seen} == {"dere", "cam", "jede"}
    assert any("image is another (kubectl-set)" in one["detail"]["what"] for one in seen)
    assert "hunter2" not in listed
    # Its pods are those that were declared, and not only on paper.
    assert container(environment, "dere") == declared
    for pod in environment.pods("idi.dev/module=dere"):
        if "deletionTimestamp" not in pod["metadata"]:
            assert pod["spec"]["containers"][0]["image"] == declared["image"]
    assert "SECRETLY" not in [one["name"] for one in container(environment, "cam")["env"]]
    assert environment.ready() == {"jede": 1, "cam": 2, "dere": 1}
    assert environment.done("call", "jede", "/call/cam").out


def test_a_rollback_by_hand_is_put_back(environment: Environment) -> None:
    steady(environment)
    with edited(environment, "  dere:\n", "  dere:\n    config: {COLOUR: green}\n"):
        environment.done("up")
        green = workload(environment, "dere")["spec"]["template"]["metadata"]["labels"]["idi.dev/revision"]
        by_hand = [str(environment.helm), "rollback", "dere", "--namespace", environment.namespace]
        subprocess.run(by_hand, env=environment.place(), check=True, capture_output=True, timeout=60)
        environment.until(
            lambda: (
                workload(environment, "dere")["spec"]["template"]["metadata"]["labels"]["idi.dev/revision"]
                != green
            ),
            30,
            "the rollback",
        )
        found = plan(environment)
        assert "dere" in {one["module"] for one in found["drift"]}
        environment.done("up")
        labels = workload(environment, "dere")["spec"]["template"]["metadata"]["labels"]
        assert labels["idi.dev/revision"] == green
        assert plan(environment)["steps"] == []
    steady(environment)


def test_a_restart_by_kubectl_is_no_drift(environment: Environment) -> None:
    steady(environment)
    environment.kubectl("rollout", "restart", "deployment/dere-stable")
    environment.kubectl("rollout", "status", "deployment/dere-stable", "--timeout=90s", timeout_s=100)
    environment.until(lambda: plan(environment)["steps"] == [], 30, "nothing to do")
    assert plan(environment)["drift"] == []


def test_who_counts_by_a_controller_keeps_the_count(environment: Environment) -> None:
    steady(environment)
    # As an autoscaler does it, which writes by this subresource.
    scale = f"/apis/apps/v1/namespaces/{environment.namespace}/deployments/dere-stable/scale"
    environment.kube.api.patch(f"{scale}?fieldManager=kube-controller-manager", {"spec": {"replicas": 2}})
    try:
        environment.until(lambda: len(environment.pods("idi.dev/module=dere")) == 2, 30, "two")
        found = plan(environment)
        [one] = found["drift"]
        assert (one["field"], one["left"], one["manager"]) == (
            "spec.replicas",
            True,
            "kube-controller-manager",
        )
        assert found["steps"] == []
        assert "left to kube-controller-manager" in environment.done("plan").out
        assert "kube-controller-manager counts the instances of dere: 1 is the least" in str(
            environment.done("scale", "dere=1")
        )
        # Nor does a change of the module take it back, not for a moment.
        with (
            edited(environment, "  dere:\n", "  dere:\n    config: {COLOUR: violet}\n"),
            replicas_wanted(environment.kube, environment.namespace, "dere-stable") as wanted,
        ):
            environment.done("up")
            assert plan(environment)["steps"] == []
        assert set(wanted) == {2}
        assert len(environment.pods("idi.dev/module=dere")) == 2
    finally:
        environment.kubectl("scale", "deployment/dere-stable", "--replicas=1")
    environment.until(lambda: plan(environment)["drift"] == [], 30, "one")


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {{name: {name}}}
spec:
  matchConstraints:
    resourceRules: [{{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}}]
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}
  validations:
    - {{expression: "!has(object.spec.replicas) || object.spec.replicas < 4", message: four is too many here}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {{name: {name}}}
spec: {{policyName: {name}, validationActions: [Deny]}}
"""


def refused(environment: Environment) -> dict[str, dict[str, Any]]:
    found = plan(environment, 1)
    return {one["object"]: one for one in found["refused"]}


@pytest.mark.requirement("K1", "K3")
def test_what_the_api_server_would_refuse_is_in_the_plan_and_nothing_is_changed(
    environment: Environment,
) -> None:
    steady(environment)
    environment.until(lambda: settled(environment), 60, "those that are declared, and nobody on the way out")
    before = workload(environment, "dere")["metadata"]["resourceVersion"]
    pods = len(environment.pods("idi.dev/module"))
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(pods_of_all(environment))}}}
    quotas = f"/api/v1/namespaces/{environment.namespace}/resourcequotas"
    with edited(environment, "  dere:\n", "  dere:\n    instances: 3\n"):
        environment.kube.api.create(quotas, quota)
        try:
            environment.kube.api.until(quotas, lambda all: any(has_status(one) for one in all))
            found = refused(environment)["Pod of Deployment dere-stable"]
            assert "exceeded quota: full" in found["reason"]
            assert "quota" in found["way_out"]
            said = environment.idi("plan")
            assert said.code == 1
            assert "exceeded quota: full" in said.out
            assert "would refuse this; nothing was changed" in said.err
            # One has room, two have none.
            room = str(pods_of_all(environment) + 1)
            environment.kubectl(
                *("patch", "quota", "full", "-p", json.dumps({"spec": {"hard": {"pods": room}}}))
            )
            environment.until(
                lambda: (
                    "has no room for 2" in refused(environment)["Pod of Deployment dere-stable"]["reason"]
                ),
                20,
                "the other quota",
            )
        finally:
            environment.kube.api.delete(f"{quotas}/full")
    assert workload(environment, "dere")["metadata"]["resourceVersion"] == before
    assert len(environment.pods("idi.dev/module")) == pods
    assert plan(environment)["refused"] == []


def everybody(environment: Environment) -> list[dict[str, Any]]:
    """Every pod that a quota counts."""
    found = json.loads(environment.kubectl("get", "pods", "-o", "json"))["items"]
    return [one for one in found if one["status"].get("phase") not in ("Succeeded", "Failed")]


def settled(environment: Environment) -> bool:
    """Whether there are as many pods as are declared: who is ready may still have a predecessor."""
    declared = sum(workload(environment, name)["spec"]["replicas"] for name in ("jede", "cam", "dere"))
    return len(environment.pods("idi.dev/module")) == declared


def pods_of_all(environment: Environment) -> int:
    return len(everybody(environment))


def has_status(quota: dict[str, Any]) -> bool:
    return bool(quota["metadata"]["name"] == "full" and "hard" in quota.get("status", {}))


def test_a_policy_and_an_immutable_field_speak_in_the_plan(environment: Environment) -> None:
    steady(environment)
    name = f"idi-test-{uuid4().hex[:6]}"
    with edited(environment, "  dere:\n", "  dere:\n    instances: 4\n"):
        environment.kubectl(
            "apply", "-f", "-", stdin=POLICY.format(name=name, namespace=environment.namespace)
        )
        try:
            # A policy comes into force a moment after it is there.
            environment.until(lambda: environment.idi("plan", "--json").code == 1, 30, "the policy")
            found = refused(environment)["Deployment dere-stable"]
            assert "four is too many here" in found["reason"]
            assert "policy" in found["way_out"]
        finally:
            environment.kubectl("delete", "validatingadmissionpolicybinding", name)
            environment.kubectl("delete", "validatingadmissionpolicy", name)
    # Somebody made it anew with another selector, which can never be changed.
    whole = workload(environment, "dere")
    environment.kubectl("delete", "deployment", "dere-stable", "--wait=true")
    whole["metadata"] = {
        key: whole["metadata"][key] for key in ("name", "namespace", "labels", "annotations")
    }
    whole["spec"]["selector"]["matchLabels"]["mine"] = "yes"
    whole["spec"]["template"]["metadata"]["labels"]["mine"] = "yes"
    environment.kubectl("create", "-f", "-", stdin=json.dumps(whole))
    try:
        found = refused(environment)["Deployment dere-stable"]
        assert "immutable" in found["reason"]
        assert "remove that object first" in found["way_out"]
    finally:
        environment.kubectl("delete", "deployment", "dere-stable", "--wait=true")
    steady(environment)
    assert environment.ready()["dere"] == 1


# --- deploy


def revisions(environment: Environment) -> dict[str, str]:
    return {
        name: workload(environment, name)["spec"]["template"]["metadata"]["labels"]["idi.dev/revision"]
        for name in ("jede", "cam", "dere")
    }


def uids(environment: Environment, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in environment.pods(f"idi.dev/module={name}")}


@pytest.mark.requirement("C1", "S5")
def test_a_push_brings_the_named_modules_alone(environment: Environment) -> None:
    steady(environment)
    before, others = revisions(environment), uids(environment, "cam") | uids(environment, "dere")
    coloured = "    config: {COLOUR: green}\n"
    file = environment.folder / "platform.yaml"
    text = file.read_text()
    try:
        changed = text
        for name in ("jede", "cam", "dere"):
            changed = changed.replace(f"  {name}:\n", f"  {name}:\n{coloured}", 1)
        # jede calls one more: whom it calls has to let it in, and its pods stay.
        file.write_text(changed.replace("calls: [cam]", "calls: [cam, dere]", 1))
        began = time.monotonic()
        said = environment.done("deploy", "jede", "--json")
        print(f"idi deploy of one module: {time.monotonic() - began:.1f} s")
        told = [json.loads(line) for line in said.out.splitlines()]
        assert told[-1] == {"type": "done", "ok": True}
        now = revisions(environment)
        assert now["jede"] != before["jede"]
        assert (now["cam"], now["dere"]) == (before["cam"], before["dere"])
        assert uids(environment, "cam") | uids(environment, "dere") == others
        assert environment.done("call", "jede", "/call/dere").out
        # What is left of the file is still to come, also for a control that starts anew.
        assert {step["module"] for step in plan(environment)["steps"]} == {"cam", "dere"}
        environment.kubectl("delete", "pod", "control-0", "--wait=true", timeout_s=120)
        environment.kubectl("wait", "pod/control-0", "--for=condition=Ready", "--timeout=120s", timeout_s=130)
        environment.until(lambda: environment.idi("status").code == 0, 60, "control")
        time.sleep(5)  # it would resume after three
        assert revisions(environment) == now
        environment.done("deploy")
        assert plan(environment)["steps"] == []
    finally:
        file.write_text(text)
    environment.done("deploy")
    assert environment.ready() == {"jede": 1, "cam": 2, "dere": 1}


@pytest.mark.requirement("C1")
def test_a_push_that_does_not_get_ready_stops_and_the_old_version_serves(environment: Environment) -> None:
    steady(environment)
    before = uids(environment, "cam")
    broken = "    readiness: {http: /never, every: 500ms, deadline: 8s}\n"
    file = environment.folder / "platform.yaml"
    text = file.read_text()
    at = text.index("  cam:\n")
    cam = text[at:].replace("    readiness: {http: /ready, every: 500ms}\n", broken, 1)
    file.write_text(text[:at] + cam)
    try:
        said = environment.idi("deploy", "cam")
        assert said.code == 1, said
        assert "The push failed" in said.err
        assert "  | " in said.out, "its last lines"
        assert before <= uids(environment, "cam")
        assert environment.done("call", "cam", "/").out
    finally:
        file.write_text(text)
    environment.done("deploy", "cam")
    assert environment.ready()["cam"] == 2


def test_a_push_of_nothing_that_runs_is_3_and_of_nobody_is_2(environment: Environment) -> None:
    nobody = environment.idi("deploy", "jeed")
    assert nobody.code == 2
    assert "No module is called 'jeed'. Did you mean 'jede'?" in nobody.err
    file = environment.folder / "platform.yaml"
    text = file.read_text()
    try:
        file.write_text(text.replace(f"platform: {environment.platform}", "platform: nowhere"))
        folder = environment.folder / "elsewhere"
        folder.mkdir(mode=0o700, exist_ok=True)
        away = folder / "platform.yaml"
        away.write_text(file.read_text())
        said = environment.idi("deploy", "--file", str(away))
        assert said.code == 3, said
        assert "up" in said.err
    finally:
        file.write_text(text)
