"""Helm by hand: what a person installs with the values that `idi render helm` writes is what `idi up` makes, object by
object, and `idi up` over it changes nothing."""

from __future__ import annotations

import base64
import gzip
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.support.cluster.client import Client
from tests.support.cluster.environment import Environment

pytestmark = [pytest.mark.requirement("K1", "C1"), pytest.mark.timeout(900)]

MODULES = """\
  jede:
    image: {image}
    calls: [cam]
    config: {{LEVEL: info, WHERE: "${{peer.cam.url}}/x"}}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    scale: {{max: 2, cpu: 80%}}
    routes: [{{path: /open/jede/, public: true}}]
  cam:
    image: {image}
    instances: 2
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
  sfl:
    image: {image}
    storage: {{size: 10MiB}}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
"""
KINDS = (
    *("serviceaccounts", "services", "configmaps", "persistentvolumeclaims", "resourcequotas", "limitranges"),
    *("deployments.apps", "statefulsets.apps", "horizontalpodautoscalers.autoscaling"),
    *("poddisruptionbudgets.policy", "networkpolicies.networking.k8s.io"),
    *("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
    *("clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io"),
)
"""Every kind that is in one of the two charts but for priority classes, which nothing here asks for."""
OF_THE_SERVER = frozenset(
    {
        *(
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "status",
            "finalizers",
        ),
        *("clusterIP", "clusterIPs", "volumeName"),
        *("deployment.kubernetes.io/revision", "volume.kubernetes.io/selected-node"),
        *("pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"),
        *("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"),
    }
)
"""What Kubernetes writes into an object beside what it was given."""


@pytest.fixture(scope="module")
def shop(
    kube: Client, images: Mapping[str, str], helm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    made = Environment(tmp_path_factory.mktemp("hand"), kube, images, helm, f"hand-{uuid4().hex[:4]}")
    with made.ending():
        made.declare(MODULES.format(image=images["standin-python"]))
        yield made


def plain(found: object) -> object:
    if isinstance(found, dict):
        return {key: plain(value) for key, value in found.items() if key not in OF_THE_SERVER}
    return [plain(one) for one in found] if isinstance(found, list) else found


def made_by_helm(shop: Environment) -> dict[str, object]:
    """Every object of the environment's releases as it was given to the server."""
    found = {}
    words = ["-l", "app.kubernetes.io/managed-by=Helm", "-o", "json"]
    for one in json.loads(shop.kubectl("get", ",".join(KINDS), *words))["items"]:
        release = one["metadata"].get("annotations", {}).get("meta.helm.sh/release-namespace")
        if release == shop.namespace:
            found[f"{one['kind']} {one['metadata']['name']}"] = plain(one)
    return found


def records(shop: Environment) -> dict[str, Any]:
    """What Helm keeps of each release: its values and its text."""
    found = {}
    for one in json.loads(shop.kubectl("get", "secrets", "-l", "owner=helm", "-o", "json"))["items"]:
        held = base64.b64decode(base64.b64decode(one["data"]["release"]))
        document = json.loads(gzip.decompress(held))
        name = f"{document['name']} {document['version']}"
        found[name] = (document["config"], sorted(yaml.safe_load_all(document["manifest"]), key=str))
    return found


def type_in(shop: Environment, line: str) -> None:
    """As a person would, in a shell that finds both programs."""
    path = f"{shop.helm.parent}:{Path(sys.executable).parent}:{shop.place()['PATH']}"
    done = subprocess.run(
        shlex.split(line),
        cwd=shop.folder,
        env={**shop.place(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def pods(shop: Environment) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in shop.pods("idi.dev/module")}


@pytest.fixture(scope="module")
def by_hand(shop: Environment) -> tuple[dict[str, object], dict[str, Any]]:
    """The objects and the records of what the printed lines install."""
    lines = shop.done("render", "helm", "by-hand").out.splitlines()
    assert [line.split()[0] for line in lines] == ["kubectl", *["helm"] * 4]
    for line in lines:
        type_in(shop, line)
    return made_by_helm(shop), records(shop)


def test_idi_up_takes_what_was_installed_by_hand_as_it_is(shop: Environment, by_hand: Any) -> None:
    shop.kubectl("rollout", "status", "statefulset/control", "--timeout=120s", timeout_s=150)
    # Nobody has told control what is declared, so no pod of a module has traffic yet.
    before = pods(shop)
    assert len(before) == 4
    shop.done("up")
    assert shop.ready() == {"jede": 1, "cam": 2, "sfl": 1}
    assert pods(shop) == before
    assert records(shop) == by_hand[1], "no release has another revision"
    assert "No changes" in shop.done("plan").out


def test_what_a_person_installs_is_what_idi_up_makes(shop: Environment, by_hand: Any) -> None:
    objects, kept = by_hand
    assert len(objects) > 40
    shop.idi("down")
    shop.kube.kubectl("delete", "namespace", shop.namespace, timeout_s=120)
    shop.done("up")
    by_idi = made_by_helm(shop)
    assert sorted(by_idi) == sorted(objects)
    different = [name for name in objects if objects[name] != by_idi[name]]
    assert not different, [(objects[name], by_idi[name]) for name in different]
    assert records(shop) == kept
    print(f"compared: {len(objects)} objects, {len(kept)} releases")


def test_a_rollback_by_hand_is_seen_and_taken_back(shop: Environment) -> None:
    shop.done("up")
    shop.done("config", "set", "cam", "LEVEL=debug")
    context = shlex.quote(shop.context)
    type_in(shop, f"helm --kube-context {context} rollback cam 1 -n {shop.namespace}")
    shop.kubectl("rollout", "status", "deployment/cam-stable", "--timeout=60s", timeout_s=90)
    planned = shop.done("plan").out
    print(f"plan after helm rollback: {planned}")
    assert "cam" in planned
    assert "No changes" not in planned
    shop.done("up")
    assert "No changes" in shop.done("plan").out
