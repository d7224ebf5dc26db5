"""`idi doctor` of an environment on a cluster, against a real one, and against what is wrong there."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from idi.api.cluster import Cluster as Reached
from idi.api.preflight_rights import needed
from tests.support.charts import platform as chart_values
from tests.support.charts import rendered
from tests.support.cluster import faults
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import IDI, Environment
from tests.support.cluster.layout import cache
from tests.support.cluster.objects import Namespace

pytestmark = pytest.mark.requirement("K4")

MODULES = """\
  jede: {{image: "{image}", calls: [cam], scale: {{max: 3, cpu: 70%}}, resources: {{cpu: 20m, memory: 64MiB}}}}
  cam: {{image: "{image}", pool: ml, resources: {{cpu: 20m, memory: 64MiB}}}}
  eat: {{image: "{image}", pool: storage, storage: {{size: 1GiB}}, resources: {{cpu: 20m, memory: 64MiB}}}}
"""
WHOLE_S = 60.0
"""Promised, where the machine is not busy."""

Findings = dict[str, dict[str, str]]


@pytest.fixture
def place(kube: Client, images: Mapping[str, str], helm: Path, tmp_path: Path) -> Environment:
    """A declaration for a namespace that is not there; nothing is brought up."""
    # By its place: the kubeconfig that a test writes is the one that the command gets.
    made = Environment(tmp_path, kube, images, helm, f"look-{uuid4().hex[:6]}")
    made.variables["KUBECACHEDIR"] = str(cache() / "kubectl")
    declare(made)
    return made


def declare(place: Environment, target: str = "") -> None:
    place.declare(MODULES.format(image=place.images["standin-python"]), target=target)


def doctor(place: Environment) -> Findings:
    said = place.idi("doctor", "--json", timeout_s=3 * WHOLE_S)
    found: Findings = {one["name"]: one for one in said.document["checks"]}
    failed = [one for one in found.values() if one["state"] == "fail"]
    assert said.code == (1 if failed else 0), said.out
    assert all(one.get("remedy") for one in found.values() if one["state"] != "ok"), found
    return found


def trials(kube: Client) -> list[str]:
    every = [one["metadata"] for one in kube.api.get("/api/v1/namespaces")["items"]]
    return [
        one["name"]
        for one in every
        if "idi.dev/doctor" in one.get("labels", {}) and "deletionTimestamp" not in one
    ]


@pytest.mark.requirement("K3")
def test_a_cluster_that_has_it_all(place: Environment, kube: Client) -> None:
    before = {one["metadata"]["name"] for one in kube.api.get("/api/v1/namespaces")["items"]}
    began = time.monotonic()
    found = doctor(place)
    print(f"doctor of a cluster: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 2 * WHOLE_S
    bad = {name: one for name, one in found.items() if one["state"] == "fail"}
    assert not bad
    for name in ("kubectl", "helm", "declaration", "cluster", "rights", "storage", "nodes", "quota"):
        assert found[name]["detail"]
    assert {"pool general", "pool ml", "pool storage", "metrics", "image"} <= set(found)
    assert found["security"]["state"] == "ok"
    assert "parted two pods" in found["network"]["detail"]
    # What it made is gone, or going, and nothing else has changed.
    assert trials(kube) == []
    after = {one["metadata"]["name"] for one in kube.api.get("/api/v1/namespaces")["items"]}
    assert {name for name in after - before if not name.startswith("idi-doctor-")} == set()
    assert place.namespace not in after


def test_people_read_it_in_three_groups(place: Environment) -> None:
    said = place.idi("doctor", timeout_s=3 * WHOLE_S)
    assert said.code == 0, said.out
    for title in ("This machine", "This platform", f"The cluster, for namespace {place.namespace}"):
        assert f"\n{title}\n" in f"\n{said.out}"
    assert "checks passed" in said.out
    assert "two pods" in said.err


def test_who_interrupts_it_leaves_nothing(place: Environment, kube: Client) -> None:
    command = [str(IDI), "doctor", "--env", place.env]
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(place.folder),
        "KUBECONFIG": str(kube.kubeconfig),
        "IDI_HELM": str(place.helm),
        **place.variables,
    }
    with subprocess.Popen(
        command, cwd=place.folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        place.until(lambda: trials(kube), WHOLE_S, "its namespace")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=WHOLE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert trials(kube) == []


def test_a_context_that_is_not_there(place: Environment) -> None:
    file = place.folder / "platform.yaml"
    file.write_text(file.read_text().replace(f"context: {place.context}", "context: nowhere"))
    found = doctor(place)
    assert found["cluster"]["state"] == "fail"
    assert place.context in found["cluster"]["detail"]
    assert "rights" not in found


Change = Callable[[dict[str, Any], dict[str, Any]], None]


def changed(place: Environment, how: Change) -> None:
    """Give the command a kubeconfig of the same context with another cluster or user in it."""
    document = yaml.safe_load(place.kube.kubeconfig.read_text())
    how(document["clusters"][0]["cluster"], document["users"][0]["user"])
    file = place.folder / "kubeconfig"
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    place.variables["KUBECONFIG"] = str(file)


def test_a_cluster_that_nobody_reaches(place: Environment) -> None:
    def shut(cluster: dict[str, Any], _: dict[str, Any]) -> None:
        cluster["server"] = "https://127.0.0.1:1"

    changed(place, shut)
    began = time.monotonic()
    found = doctor(place)
    assert (found["cluster"]["state"], "Nobody answers" in found["cluster"]["detail"]) == ("fail", True)
    assert time.monotonic() - began < WHOLE_S


@pytest.mark.requirement("S6")
def test_a_user_who_may_little(place: Environment, kube: Client, namespace: Namespace) -> None:
    token = kube.kubectl("-n", namespace.name, "create", "token", "default").strip()

    def weak(_: dict[str, Any], user: dict[str, Any]) -> None:
        user.clear()
        user["token"] = token

    changed(place, weak)
    found = doctor(place)
    assert found["rights"]["state"] == "fail"
    assert f"namespaces {place.namespace}" in found["rights"]["detail"]
    assert found["nodes"]["state"] == "warn"
    assert "may not read the nodes" in found["nodes"]["detail"]
    assert "may not make and remove a namespace" in found["network"]["detail"]
    assert trials(kube) == []
    # An administrator of the namespace gets further, and not far enough.
    kube.api.create("/api/v1/namespaces", {"metadata": {"name": place.namespace}})
    try:
        binding = ("create", "rolebinding", "admin", "--clusterrole=admin")
        place.kubectl(*binding, f"--serviceaccount={namespace.name}:default")
        rights = doctor(place)["rights"]
        assert rights["state"] == "fail"
        assert "deployments" not in rights["detail"]
        assert "clusterrolebindings" in rights["detail"]
    finally:
        kube.api.delete(f"/api/v1/namespaces/{place.namespace}")


@pytest.mark.requirement("K3")
def test_a_storage_class_and_a_quota_that_do_not_fit(place: Environment, kube: Client) -> None:
    declare(place, "        storage_class: nowhere\n")
    kube.api.create("/api/v1/namespaces", {"metadata": {"name": place.namespace}})
    try:
        place.kubectl("create", "quota", "theirs", "--hard=pods=3,requests.cpu=10")
        found = doctor(place)
        assert (found["storage"]["state"], "nowhere" in found["storage"]["detail"]) == ("fail", True)
        assert found["quota"]["state"] == "fail"
        assert "theirs has pods: 3" in found["quota"]["detail"]
    finally:
        kube.api.delete(f"/api/v1/namespaces/{place.namespace}")


@pytest.mark.requirement("S4")
def test_a_seal_key_that_is_not_there_or_no_key(place: Environment, kube: Client) -> None:
    declare(place, "        seal: {secret: idi-seal}\n")
    kube.api.create("/api/v1/namespaces", {"metadata": {"name": place.namespace}})
    try:
        for content in (None, "word", secrets.token_hex(16)):
            if content is not None:
                key = f"--from-literal=seal.key={content}"
                place.kubectl("delete", "secret", "idi-seal", "--ignore-not-found")
                place.kubectl("create", "secret", "generic", "idi-seal", key)
            found = doctor(place)["seal"]
            assert content is None or content not in json.dumps(found)
            good = content is not None and len(content) == 32
            assert (found["state"], "idi-seal" in found["detail"]) == ("ok" if good else "fail", True)
            assert good or "create secret generic idi-seal" in found["remedy"]
    finally:
        kube.api.delete(f"/api/v1/namespaces/{place.namespace}")


def test_an_image_that_no_node_can_have(place: Environment) -> None:
    file = place.folder / "platform.yaml"
    sidecar = place.images["sidecar"]
    file.write_text(file.read_text().replace(sidecar, sidecar[:-4] + "0000"))
    found = doctor(place)
    assert found["network"]["state"] == "warn"
    assert "sidecar's image" in found["network"]["detail"]
    assert trials(place.kube) == []


@pytest.mark.requirement("K3")
def test_a_pool_without_a_node(place: Environment, own: Cluster) -> None:
    [ml] = [one.name for one in own.nodes if one.pool == "ml"]
    place.kube.kubectl("cordon", ml)
    try:
        found = doctor(place)
    finally:
        place.kube.kubectl("uncordon", ml)
    assert (found["pool ml"]["state"], found["pool general"]["state"]) == ("fail", "ok")
    assert "cam" in found["pool ml"]["detail"]


@pytest.fixture
def unenforced(own: Cluster) -> Iterator[None]:
    """Without the program that enforces policies: they are taken and mean nothing."""
    with ExitStack() as stack:
        for node in own.nodes:
            stack.enter_context(faults.stopped(own, node.name, "kube-router"))
        yield


@pytest.mark.requirement("T4")
def test_policies_that_nobody_enforces(place: Environment, unenforced: None) -> None:
    found = doctor(place)
    assert found["network"]["state"] == "fail", found["network"]
    assert "not enforced" in found["network"]["detail"]
    assert trials(place.kube) == []


def test_what_it_asks_for_is_what_the_chart_makes() -> None:
    """Every kind that the chart renders, and every right that its roles give away."""
    from idi.api.preflight_rights import REVIEW, given

    plurals = {"NetworkPolicy": "networkpolicies"}
    made, gives = set(), set()
    for one in rendered("platform", chart_values()):
        group = one["apiVersion"].rpartition("/")[0]
        made.add((group, plurals.get(one["kind"], f"{one['kind'].lower()}s")))
        for rule in one.get("rules", ()):
            gives |= {
                (verb, group, resource)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    asked = {(right.group, right.resource) for right in needed("x", there=True) if right.verb == "create"}
    assert made <= asked
    assert gives <= {(right.verb, right.group, right.resource) for right in (*given(), REVIEW)}


def test_rights_are_as_the_server_says(kube: Client, namespace: Namespace, monkeypatch: Any) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    monkeypatch.setenv("KUBECACHEDIR", str(cache() / "kubectl"))
    context = yaml.safe_load(kube.kubeconfig.read_text())["current-context"]
    reached = Reached(context, namespace.name)
    pods = {"verb": "create", "group": "", "resource": "pods", "namespace": namespace.name}
    assert reached.may([pods, pods]) == [True, True]
    assert reached.who()
