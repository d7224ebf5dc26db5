"""What a cluster tells, judged: nothing here asks one."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from idi.api import environments, preflight, preflight_trial
from idi.api.cluster import Cluster, Versions
from idi.api.environments import merged, release_values
from idi.api.finding import Finding
from idi.api.kubectl import Denied, Failed, documents
from idi.api.preflight_nodes import nodes
from idi.api.preflight_rights import ESCALATE, GIVE_REVIEW, REVIEW, given, judged, needed
from idi.api.preflight_trial import Trial, held_up
from idi.declaration.load import Loaded, load
from idi.declaration.types import KubernetesTarget, Platform
from idi.parts.clients import profiles
from idi.parts.clients.kubernetes_quantity import amount as quantity

pytestmark = pytest.mark.requirement("K4")

IMAGES = "images: {control: 'r/c@sha256:0', sidecar: 'r/s@sha256:0'}"


def platform(modules: str = "a: {image: i, pool: ml}", target: str = "") -> Platform:
    text = f"platform: x\nmodules:\n  {modules}\nenvironments:\n  staging:\n    target:\n"
    found = load(f"{text}      kubernetes: {{context: c, {IMAGES}{target}}}\n", environment="staging")
    assert isinstance(found, Loaded), str(found)
    return found.platform


def node(pool: str = "", *taints: str, ready: str = "True", **spec: Any) -> dict[str, Any]:
    given = [dict(zip(("key", "value", "effect"), taint.split(" "), strict=True)) for taint in taints]
    return {
        "metadata": {"name": "n", "labels": {"idi.dev/pool": pool} if pool else {}},
        "spec": {"taints": given, **spec},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "2", "memory": "4Gi"},
        },
    }


def states(findings: list[Finding]) -> dict[str, str]:
    return {one.name: one.state for one in findings}


ML = "idi.dev/pool ml NoSchedule"


@pytest.mark.requirement("K3")
@pytest.mark.parametrize(
    ("there", "free", "pool", "said"),
    [
        ([node("general"), node("ml", ML)], "ok", "ok", "1 node for a"),
        ([node("general"), node("ml")], "ok", "warn", "anybody else's pods"),
        ([node("general"), node()], "ok", "fail", "idi.dev/pool=ml"),
        ([node("general"), node("ml", ML, ready="Unknown")], "ok", "fail", "no node has the label"),
        ([node("general"), node("ml", ML, unschedulable=True)], "ok", "fail", "no node has the label"),
        ([node("general"), node("ml", ML, "sku gpu NoSchedule")], "ok", "fail", "sku=gpu:NoSchedule"),
        ([node("general"), node("ml", "idi.dev/pool other NoSchedule")], "ok", "fail", "idi.dev/pool=other"),
        ([node("ml", ML)], "fail", "ok", "1 node for a"),
        ([node("general", "x y PreferNoSchedule"), node("ml", ML)], "ok", "ok", "1 node"),
        ([], "fail", "fail", "no node"),
    ],
)
def test_pools_are_there_and_let_their_modules_in(
    there: list[dict[str, Any]], free: str, pool: str, said: str
) -> None:
    found = list(nodes(there, platform()))
    assert states(found) == {"nodes": free, "pool ml": pool}
    assert said in found[1].detail
    assert all(one.remedy for one in found if one.state != "ok")


def test_a_pod_that_no_node_has_room_for() -> None:
    large = platform("a: {image: i, pool: ml, resources: {cpu: 2}}")
    found = list(nodes([node("general"), node("ml", ML)], large))
    assert found[1].state == "fail"
    assert "2020m" in found[1].detail
    assert [quantity(text) for text in ("250m", "2", "1Gi", "4G", "many")] == [
        quantity("0.25"),
        2,
        1 << 30,
        4 * 10**9,
        0,
    ]


@pytest.mark.parametrize(
    ("server", "client", "state"),
    [
        ("1.34.4", "1.34.4", "ok"),
        ("1.29.0-gke.100", "1.30.1", "ok"),
        ("1.28.15-eks-1", "1.29.0", "fail"),
        ("1.34.4", "1.31.0", "warn"),
        ("nonsense", "1.31.0", "fail"),
    ],
)
def test_versions(server: str, client: str, state: str) -> None:
    found = preflight.judged_version(Versions(client, server), "here")
    assert found.state == state
    assert bool(found.remedy) == (state != "ok")


class Holds(Cluster):
    """A namespace with this Secret, if any."""

    def __init__(self, **data: bytes) -> None:
        super().__init__("c", "x-staging", "kubectl")
        object.__setattr__(self, "data", data)

    def get(self, kind: str, name: str = "", *, labels: str = "") -> dict[str, Any] | None:
        assert (kind, name, labels) == ("secret", "ours", "")
        data: dict[str, bytes] = self.data  # type: ignore[attr-defined]
        return {"data": {key: base64.b64encode(value).decode() for key, value in data.items()}}


@pytest.mark.requirement("S2")
def test_the_seal_key_is_there_and_long_enough() -> None:
    def check(cluster: Cluster, platform: Platform) -> list[Finding]:
        return preflight.looked(preflight.Check("seal", "its Secret", preflight.seal), cluster, platform)

    plain = platform(target=", seal: {secret: ours, key: a, previous: b}")
    [found] = check(Holds(a=b"x" * 32, b=b"y" * 32), plain)
    assert found.state == "ok"
    [found] = check(Holds(a=b"x" * 32, b=b"y" * 31), plain)
    assert (found.state, "32 bytes under b." in found.detail) == ("fail", True)
    [found] = check(Holds(), plain)
    assert "under a, b." in found.detail
    assert "create secret generic ours --from-file=a" in found.remedy
    assert release_values(plain)["control"]["sealKey"] == {"secret": "ours", "key": "a", "previous": "b"}
    assert list(check(Holds(), platform())) == []
    assert "sealKey" not in release_values(platform())["control"]


def storage_class(name: str, default: bool = False, **more: Any) -> dict[str, Any]:
    annotations = {preflight.DEFAULT_CLASS: "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}, "provisioner": "p", **more}


@pytest.mark.parametrize(
    ("there", "wanted", "state", "said"),
    [
        ([storage_class("a", True)], "", "ok", "a (the default)"),
        ([storage_class("a")], "", "fail", "there is: a"),
        ([], "", "fail", "there is: none"),
        ([storage_class("a")], "a", "ok", "StorageClass a"),
        ([storage_class("a", True)], "b", "fail", "no StorageClass b"),
        ([storage_class("a", True), storage_class("b", True)], "", "warn", "a, b"),
        ([storage_class("a", True, provisioner="kubernetes.io/no-provisioner")], "", "warn", "nobody"),
    ],
)
def test_storage_classes(there: list[dict[str, Any]], wanted: str, state: str, said: str) -> None:
    found = preflight.judged_storage(there, wanted)
    assert found.state == state
    assert said in f"{found.detail} {found.remedy}"


def quotas(**hard: str) -> list[dict[str, Any]]:
    keys = {key.replace("_", "."): value for key, value in hard.items()}
    return [{"metadata": {"name": "theirs"}, "spec": {"hard": keys}}]


@pytest.mark.requirement("K3")
@pytest.mark.parametrize(
    ("there", "state", "said"),
    [
        ([], "ok", "no quota of others"),
        (quotas(pods="100", requests_cpu="10", cpu="10"), "ok", "allow"),
        (quotas(pods="4"), "fail", "asks for 7 with"),
        (quotas(requests_cpu="600m"), "fail", "requests.cpu: 600m"),
        (quotas(limits_memory="1Gi"), "fail", "limits.memory"),
        (quotas(requests_storage="1Gi"), "fail", "5GiB"),
        (quotas(persistentvolumeclaims="0"), "fail", "asks for 1"),
        (quotas(pods="8"), "warn", "not for the largest"),
        (quotas(services="0", secrets="1"), "ok", "allow"),
    ],
)
def test_quotas_of_others(there: list[dict[str, Any]], state: str, said: str) -> None:
    scaled = platform("a: {image: i, scale: {max: 4, cpu: 70%}, resources: {cpu: 100m}}")
    found = preflight.judged_quota(there, scaled)
    assert found.state == state
    assert said in f"{found.detail} {found.remedy}"


def test_a_metrics_api_that_does_not_answer_is_none() -> None:
    assert preflight.judged_metrics(None, ["a"]).state == "fail"
    down = {"status": {"conditions": [{"type": "Available", "status": "False", "message": "no endpoints"}]}}
    assert "no endpoints" in preflight.judged_metrics(down, ["a"]).detail
    up = {"status": {"conditions": [{"type": "Available", "status": "True"}]}}
    assert preflight.judged_metrics(up, ["a"]).state == "ok"


def test_who_makes_load_balancers() -> None:
    there = {"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    assert "192.0.2.1" in preflight.judged_balancer(there, []).detail
    waits = {"spec": {"type": "LoadBalancer"}, "status": {}}
    assert preflight.judged_balancer(waits, []).state == "warn"
    assert "GKE" in preflight.judged_balancer(None, [node(providerID="gce://p/z/n")]).detail
    assert preflight.judged_balancer(None, [node()]).state == "warn"


def answers(*missing: str) -> dict[Any, bool]:
    every = [*needed("x-staging", there=False), *given(), ESCALATE, REVIEW, *GIVE_REVIEW]
    return {right: str(right) not in missing for right in every}


def test_rights_that_are_missing_are_named() -> None:
    assert judged(answers(), "x-staging", there=False).state == "ok"
    found = judged(
        answers("create namespaces x-staging", "create deployments.apps"), "x-staging", there=False
    )
    assert (found.state, "create namespaces x-staging" in found.detail) == ("fail", True)
    assert "create deployments.apps" in found.detail
    # What is given away has to be one's own, or may be given all the same.
    own = "list endpointslices.discovery.k8s.io"
    assert judged(answers(own), "x-staging", there=False).state == "ok"
    escalate = "escalate roles.rbac.authorization.k8s.io"
    assert own in judged(answers(own, escalate), "x-staging", there=False).detail
    bind = "bind clusterroles.rbac.authorization.k8s.io"
    assert judged(answers(bind), "x-staging", there=False).state == "ok"
    review = "create tokenreviews.authentication.k8s.io"
    assert judged(answers(review), "x-staging", there=False).state == "ok"
    assert review in judged(answers(bind, review), "x-staging", there=False).detail


def test_several_documents_in_one_output() -> None:
    assert documents(b' {"a": 1}\n{"a": 2} ') == [{"a": 1}, {"a": 2}]
    assert documents(b"") == []
    with pytest.raises(Failed):
        documents(b'{"a": 1} nonsense')


def test_values_of_a_profile_lie_under_those_of_the_declaration() -> None:
    assert merged({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {},
    }
    found = release_values(platform(target=", profile: gke, gateway: LoadBalancer, dns: [10.0.0.1/32]"))
    service = found["gateway"]["service"]
    assert (service["type"], service["annotations"]) == (
        "LoadBalancer",
        {"cloud.google.com/l4-rbs": "enabled"},
    )
    assert found["networkPolicy"]["dns"] == {"namespaces": ["kube-system"], "cidrs": ["10.0.0.1/32"]}
    assert "annotations" not in release_values(platform())["gateway"]["service"]


@pytest.mark.requirement("K3")
def test_what_nobody_declared_is_in_nobodys_way() -> None:
    assert "quota" not in release_values(platform())
    large = platform(
        "a: {image: i, storage: {size: 1TiB}, resources: {memory: 100GiB}}", ", quota: {memory: 200GiB}"
    )
    found = release_values(large)["quota"]
    assert int(found["limits.memory"]) > 100 << 30
    assert int(found["requests.storage"]) > 1 << 40
    assert "persistentvolumeclaims" not in found


# --- the trial, with a cluster that says what the test wants -----------------------------------------------------


class Told:
    """In place of kubectl: `said` is what the second pod logs, one answer after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
        self.said = list(said)
        self.applied: list[str] = []
        self.deleted: list[str] = []
        self.may = True
        self.pods: list[dict[str, Any]] = [{"status": {"phase": "Running"}}] * 2
        self.admits_privileged = False
        for name in ("apply", "get", "log", "delete", "may"):
            monkeypatch.setattr(Cluster, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(preflight_trial, "LOOK_S", 0.01)
        monkeypatch.setattr(preflight_trial, "HOLD_S", 0.2)

    def _apply(self, document: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if dry_run and not self.admits_privileged:
            raise Denied("violates PodSecurity")
        self.applied += [document["kind"]] if not dry_run else []
        return {"items": [{"kind": "Service", "spec": {"clusterIP": "10.0.0.9"}}]}

    def _get(self, kind: str, name: str = "", *, labels: str = "") -> dict[str, Any]:
        if kind == "namespaces":
            old = {"name": "idi-doctor-old", "creationTimestamp": "2020-01-01T00:00:00Z"}
            new = {"name": "idi-doctor-new", "creationTimestamp": "2999-01-01T00:00:00Z"}
            return {"items": [{"metadata": old}, {"metadata": new}]}
        return {"items": self.pods}

    def _log(self, pod: str) -> str:
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]

    def _delete(self, kind: str, name: str) -> None:
        self.deleted.append(name)

    def _may(self, asked: Any) -> list[bool]:
        return [self.may] * len(asked)


def tried(image: str = "r/s@sha256:0", seconds: float = 1.0) -> list[Finding]:
    import time

    trial = Trial("c", "kubectl", image, time.monotonic() + seconds, threading.Event(), "idi-doctor-1")
    return list(trial.findings())


def test_a_policy_that_parts_two_pods_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, "", "reached\n", "reached\n", "reached\nparted\n")
    assert states(tried()) == {"security": "ok", "image": "ok", "network": "ok"}
    assert told.applied == ["Namespace", "List", "Pod", "NetworkPolicy"]
    assert told.deleted == ["idi-doctor-old", "idi-doctor-1"]


def test_one_that_parts_nobody_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, "reached\n")
    found = {one.name: one for one in tried()}
    assert found["network"].state == "fail"
    assert "not enforced" in found["network"].detail
    assert "Dataplane V2" in found["network"].remedy
    assert told.deleted[-1] == "idi-doctor-1"


def test_what_kept_it_from_an_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, "")
    [found] = [one for one in tried(seconds=0.1) if one.name == "network"]
    assert (found.state, "does not get to the other" in found.detail) == ("warn", True)
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such manifest"}}
    told.pods = [{"metadata": {"name": "server"}, "status": {"containerStatuses": [{"state": waiting}]}}]
    [found] = [one for one in tried() if one.name == "network"]
    assert "no such manifest" in found.detail
    assert "Push it" in found.remedy
    told.may = False
    told.deleted.clear()
    [found] = tried()
    assert "may not make" in found.detail
    assert told.deleted == []
    [found] = tried(image="")
    assert "names no image" in found.detail
    told.may = told.admits_privileged = True
    assert states(tried(seconds=0.1))["security"] == "warn"


def test_what_could_not_be_removed_is_said_with_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    Told(monkeypatch, "reached\nparted\n")

    def refuse(*_: str) -> None:
        raise Denied("no")

    monkeypatch.setattr(Cluster, "delete", refuse)
    found = {one.name: one for one in tried()}["left behind"]
    assert found.state == "fail"
    assert "delete namespace idi-doctor-1" in found.remedy


def test_why_a_pod_is_held_up() -> None:
    unschedulable = {"reason": "Unschedulable", "message": "0/3 nodes are available"}
    assert held_up({"status": {"conditions": [unschedulable]}}) == "0/3 nodes are available"
    assert (
        held_up({"metadata": {"name": "client"}, "status": {"phase": "Failed"}}) == "client ended by itself"
    )
    assert held_up({"status": {}}) == ""


class Slow:
    """A cluster that answers one question and not the other."""

    context, kubectl = "c", "kubectl"

    def __init__(self, *_: object) -> None:
        self.answers = threading.Event()

    def version(self) -> Versions:
        return Versions("1.34.0", "1.34.0")

    def who(self) -> str:
        return "erin"


def test_a_check_that_takes_too_long_is_named_and_the_others_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()

    class NoTrial:
        def __init__(self, *_: object) -> None: ...

        def findings(self) -> Iterator[Finding]:
            yield Finding("network", "ok", "they hold")

    def storage(*_: object) -> Iterator[Finding]:
        yield Finding("storage", "ok", "there is one")

    def nodes_late(*_: object) -> Iterator[Finding]:
        slow.answers.wait(5)
        yield Finding("nodes", "ok", "too late")

    checks = (
        preflight.Check("nodes", "the nodes", nodes_late),
        preflight.Check("storage", "StorageClasses", storage),
    )
    for name, other in (
        ("Cluster", lambda *_: slow),
        ("Trial", NoTrial),
        ("CHECKS", checks),
        ("CHECK_S", 0.2),
    ):
        monkeypatch.setattr(preflight, name, other)
    found = []
    for one in preflight.preflight(platform(), lambda _: None):
        found.append(one)
        if one.name == "network":
            slow.answers.set()
    assert states(found) == {"cluster": "ok", "nodes": "fail", "storage": "ok", "network": "ok"}
    assert "took longer than 0 s to tell the nodes" in found[1].detail


@pytest.mark.requirement("K3")
def test_who_asks_for_a_gpu_needs_a_node_of_its_pool_that_has_one() -> None:
    def judge(there: list[dict[str, Any]], modules: str, target: str = "") -> tuple[str, str]:
        found = {one.name: one for one in nodes(there, platform(modules, target))}
        return found["gpu"].state, found["gpu"].detail

    one = "a: {image: i, pool: ml, resources: {gpu: 1}}"
    plain, having = node("ml", ML), node("ml", ML)
    having["status"]["allocatable"]["nvidia.com/gpu"] = "1"
    elsewhere = node("general")
    elsewhere["status"]["allocatable"]["nvidia.com/gpu"] = "8"
    assert judge([elsewhere, plain], one) == (
        "fail",
        "no node of pool ml has nvidia.com/gpu, which a asks for",
    )
    assert judge([elsewhere, having], one) == ("ok", "nvidia.com/gpu on 1 node of pool ml for a")
    assert "2 of nvidia.com/gpu" in judge([having], one.replace("gpu: 1", "gpu: 2"))[1]
    assert "amd.com/gpu" in judge([having], one, ", gpu: amd.com/gpu")[1]
    assert "gpu" not in states(list(nodes([having], platform())))


@pytest.mark.parametrize("profile", ["gke", "eks", "aks"])
def test_what_a_profile_says_holds_for_modules_too(profile: str) -> None:
    """Gateway and modules ask the same name servers; what is declared comes before it."""
    found = platform(target=f", profile: {profile}")
    assert isinstance(found.target, KubernetesTarget)
    theirs = release_values(found)["networkPolicy"]["dns"]["cidrs"]
    assert profiles.name_servers(found.target) == tuple(theirs)
    assert bool(theirs) == (profile != "aks")
    own = platform(target=f", profile: {profile}, dns: [10.0.0.1/32], storage_class: fast").target
    assert isinstance(own, KubernetesTarget)
    assert profiles.name_servers(own) == ("10.0.0.1/32",)
    assert profiles.storage_class(own) == "fast"


def test_a_profiles_class_of_volumes_is_controls_and_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "profile_values", lambda _: {"control": {"storage": {"class": "quick"}}})
    monkeypatch.setattr(environments, "profile_values", profiles.profile_values)
    found = platform(target=", profile: eks")
    assert isinstance(found.target, KubernetesTarget)
    assert profiles.storage_class(found.target) == "quick"
    assert release_values(found)["control"]["storage"]["class"] == "quick"
