"""What a real API server says of the charts, and what it does with them.

The images are not there to be pulled, so pods are made, placed and never run; where something has to run, pods of the
tests' own program stand in with the labels of the real ones.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from idi.parts.clients.helm import Helm, Reach, charts
from idi.parts.clients.helm_errors import HelmError
from idi.parts.clients.kubernetes import Kubernetes
from idi.parts.targets.kubernetes.replicas import Replicas
from tests.support.charts import Values, full, module, platform, program, slot, storing, text, whole
from tests.support.cluster.access import access
from tests.support.cluster.api import ApiError
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import API
from tests.support.cluster.objects import Namespace, replicas_wanted
from tests.support.platform import until

CASES: dict[str, tuple[str, Callable[[], Values]]] = {
    "a module": ("module", module),
    "a module with everything": ("module", full),
    "a module that stores": ("module", storing),
    "an environment": ("platform", platform),
    "an environment with everything": ("platform", whole),
}
each_case = pytest.mark.parametrize("case", CASES)
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


@pytest.fixture
def restricted(kube: Client, namespace: Namespace) -> Namespace:
    kube.api.patch(f"/api/v1/namespaces/{namespace.name}", {"metadata": {"labels": RESTRICTED}})
    return namespace


@pytest.fixture
def helm(kube: Client, tmp_path: Path) -> Helm:
    return Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "helm")


@pytest.fixture(scope="module")
def schemas(kube: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON Schemas of this very API server, as kubeconform reads them, closed against unknown fields."""
    folder = tmp_path_factory.mktemp("schemas")
    for path, entry in kube.api.get("/openapi/v3")["paths"].items():
        group = path.removeprefix("apis/").removeprefix("api/")
        wanted = (
            "v1",
            "apps/v1",
            "autoscaling/v2",
            "policy/v1",
            "networking.k8s.io/v1",
            "scheduling.k8s.io/v1",
        )
        if group not in (*wanted, "rbac.authorization.k8s.io/v1"):
            continue
        components = kube.api.get(entry["serverRelativeURL"])["components"]
        for schema in components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        for name, schema in components["schemas"].items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                document = {"$ref": f"#/components/schemas/{name}", "components": components}
                suffix = "-".join(part for part in (kind["group"].split(".")[0], kind["version"]) if part)
                (folder / f"{kind['kind']}-{suffix}.json".lower()).write_text(json.dumps(document))
    return folder


def conforms(schemas: Path, manifest: str) -> subprocess.CompletedProcess[str]:
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command = [str(program("kubeconform")), "-strict", "-summary", "-schema-location", location, "-"]
    return subprocess.run(command, input=manifest, capture_output=True, text=True, timeout=60)


@each_case
def test_every_field_is_one_that_kubernetes_knows(schemas: Path, case: str) -> None:
    chart, values = CASES[case]
    done = conforms(schemas, text(chart, values()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout


def test_a_field_that_kubernetes_does_not_know_is_seen(schemas: Path) -> None:
    wrong = text("module", module()).replace("maxSurge:", "maxSurplus:")
    assert "maxSurplus" in conforms(schemas, wrong).stdout


@pytest.mark.requirement("K1", "T4")
@each_case
def test_the_api_server_takes_it_under_the_restricted_profile(
    kube: Client, restricted: Namespace, case: str
) -> None:
    chart, values = CASES[case]
    made = [one for one in yaml.safe_load_all(text(chart, values())) if one]
    for one in made:
        # Rendered for one namespace, tried in the test's own.
        if "namespace" in one["metadata"] or one["kind"] in (
            "ClusterRole",
            "ClusterRoleBinding",
            "PriorityClass",
        ):
            continue
        one["metadata"]["namespace"] = restricted.name
    words = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = subprocess.run(
        kube.command(*words), input=yaml.safe_dump_all(made), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.count("serverside-applied") == len(made)


@pytest.mark.requirement("K1")
async def test_it_installs_and_the_pods_are_admitted(kube: Client, restricted: Namespace, helm: Helm) -> None:
    await helm.upgrade("idi", charts() / "platform", restricted.name, platform())
    # The registry's name does not exist, so each is admitted, and then waits for its image.
    await helm.upgrade("jede", charts() / "module", restricted.name, module())
    await helm.upgrade("sfl", charts() / "module", restricted.name, storing())

    def all_there(pods: list[Any]) -> bool:
        kinds = [one["metadata"]["labels"].get("idi.dev/module") for one in pods]
        parts = [one["metadata"]["labels"].get("idi.dev/part") for one in pods]
        return (
            kinds.count("jede") == 2
            and kinds.count("sfl") == 1
            and parts.count("control") == 1
            and parts.count("gateway") == 2
        )

    kube.api.until(restricted.path("pods"), all_there, 40, "every pod")
    claims = kube.api.get(restricted.path("persistentvolumeclaims"))["items"]
    assert {one["metadata"]["name"] for one in claims} == {"control-state", "sfl-data"}
    for release in ("sfl", "jede", "idi"):
        await helm.uninstall(release, restricted.name)
    left = kube.api.get(restricted.path("persistentvolumeclaims"))["items"]
    assert {one["metadata"]["name"] for one in left} == {"control-state", "sfl-data"}
    # And the next install takes them up again.
    await helm.upgrade("sfl", charts() / "module", restricted.name, storing())
    await helm.uninstall("sfl", restricted.name)
    with pytest.raises(ApiError, match="not found"):
        kube.api.get(f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/idi-{restricted.name}-tokens")


async def test_who_never_got_ready_is_replaced_where_there_is_one_writer(
    kube: Client, restricted: Namespace, helm: Helm
) -> None:
    kube.api.create(restricted.path("configmaps"), {"metadata": {"name": "idi-proxy"}})
    await helm.upgrade("sfl", charts() / "module", restricted.name, storing())

    def with_revision(revision: str) -> Callable[[list[Any]], bool]:
        return lambda pods: [one["metadata"]["labels"]["idi.dev/revision"] for one in pods] == [revision]

    kube.api.until(restricted.path("pods"), with_revision("1a2b3c4d"), 30, "the first")
    stored = storing()
    stored["slots"] = {"stable": slot("99999999", replicas=1)}
    await helm.upgrade("sfl", charts() / "module", restricted.name, stored)
    kube.api.until(restricted.path("pods"), with_revision("99999999"), 60, "its successor")


@pytest.mark.requirement("K3")
async def test_a_quota_refuses_what_is_over_it(kube: Client, restricted: Namespace, helm: Helm) -> None:
    # Who is made while a quota is may not be in its count, until another spec makes it count anew.
    for pods in (10, 4):
        quota = {"pods": str(pods), "requests.storage": "6Gi"}
        narrow = platform(quota=quota, gateway={"replicas": 0})
        await helm.upgrade("idi", charts() / "platform", restricted.name, narrow)
        kube.api.until(
            restricted.path("pods"),
            lambda found: len(found) == 3,
            20,
            "control and two replicas of the plane",
        )
    kube.api.until(
        restricted.path("resourcequotas"),
        lambda found: (
            [one["status"][kind].get("pods") for one in found for kind in ("hard", "used")] == ["4", "3"]
        ),
        40,
        "its count of three",
    )
    many = module(slots={"stable": slot(replicas=6)})
    await helm.upgrade("jede", charts() / "module", restricted.name, many)
    refused = kube.api.until(
        restricted.path("events"),
        lambda events: [one["message"] for one in events if "exceeded quota" in one.get("message", "")],
        40,
        "a refusal",
    )
    assert "pods=1" in refused[0]
    there = kube.api.get(restricted.path("pods"))["items"]
    # Those that have ended count in no quota.
    counted = [one["metadata"]["name"] for one in there if one["status"]["phase"] in ("Pending", "Running")]
    assert len(counted) <= 4, [(one["metadata"]["name"], one["status"]["phase"]) for one in there]
    # What Helm itself makes is refused to Helm, and a person is told.
    short = (
        r"the quota idi of the namespace is used up: \S+ of 6Gi requests\.storage in use, 2Gi more asked for"
    )
    with pytest.raises(HelmError, match=short) as told:
        await helm.upgrade(
            "sfl", charts() / "module", restricted.name, {**storing(), "storage": {"size": "2Gi"}}
        )
    assert told.value.kind == "quota"
    assert not told.value.retryable
    assert "Raise quota" in told.value.way_out


@pytest.mark.requirement("K2")
async def test_an_autoscaler_takes_over_without_dropping_anybody(
    kube: Client, restricted: Namespace, helm: Helm, tmp_path: Path
) -> None:
    """Not for a moment: every number that is asked for meanwhile is seen."""
    scaled = module(slots={"stable": slot(replicas=None)}, scale={"min": 2, "max": 4, "cpuPercent": 70})
    fixed = module(slots={"stable": slot(replicas=3)})

    def count() -> int:
        path = restricted.path("deployments", "apps/v1")
        return int(kube.api.get(f"{path}/jede-stable")["spec"]["replicas"])

    await helm.upgrade("jede", charts() / "module", restricted.name, fixed)
    async with Kubernetes(access(kube.kubeconfig, tmp_path)) as api:
        replicas = Replicas(api, restricted.name)
        with replicas_wanted(kube, restricted.name, "jede-stable") as wanted:
            await replicas.keep("jede")
            await helm.upgrade("jede", charts() / "module", restricted.name, scaled)
            await replicas.keep("jede")
            await replicas.least("jede", 2)
        assert set(wanted) == {3}
        # What the autoscaler has raised stays; the least that is asked for holds at once.
        kube.kubectl("-n", restricted.name, "scale", "deployment/jede-stable", "--replicas=4")
        await replicas.keep("jede")
        await replicas.least("jede", 3)
        assert count() == 4
        kube.kubectl("-n", restricted.name, "scale", "deployment/jede-stable", "--replicas=1")
        await replicas.least("jede", 3)
        assert count() == 3
        await replicas.keep("nobody")
    # The other way round the number of the values holds, whoever set another one.
    kube.kubectl("-n", restricted.name, "scale", "deployment/jede-stable", "--replicas=4")
    await helm.upgrade("jede", charts() / "module", restricted.name, fixed)
    assert count() == 3


def serving(namespace: Namespace, name: str, labels: Mapping[str, str], port: int) -> None:
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    locked = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    container = {
        "name": "main",
        "image": namespace.tool,
        "args": ["serve", f":{port}"],
        "readinessProbe": probe,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    namespace.pod(name, labels=labels, containers=[container], securityContext=locked)


@pytest.mark.requirement("K1", "T4")
async def test_nothing_gets_through_that_no_policy_names(
    kube: Client, own: Cluster, restricted: Namespace, helm: Helm
) -> None:
    none = {"gateway": {"replicas": 0}}
    await helm.upgrade("idi", charts() / "platform", restricted.name, platform(**none))
    network = {"dns": {"namespaces": [], "cidrs": [f"{API}/32"]}}
    nobody = {"slots": {"stable": slot(replicas=0)}}
    for name, more in (
        ("jede", {"callers": ["pas"], "calls": ["cam"]}),
        ("pas", {"calls": ["jede"]}),
        ("cam", {"callers": ["jede"]}),
        ("dere", {"callers": ["jede"]}),
    ):
        values = module(name, networkPolicy={**network, **more}, **nobody)
        await helm.upgrade(name, charts() / "module", restricted.name, values)
    # Their pods, with a server on the first mesh port; one on the agent's port, and a stranger.
    for name in ("jede", "pas", "cam", "dere"):
        serving(restricted, name, {"idi.dev/module": name}, 20101)
    serving(restricted, "agent", {"idi.dev/module": "jede"}, 20000)
    serving(restricted, "watcher", {"idi.dev/part": "control"}, 8443)
    serving(restricted, "stranger", {}, 8080)
    # Kubelet's probes get in everywhere, or none of them would be ready.
    at = {
        name: restricted.await_running(name, 60)["status"]["podIP"]
        for name in ("jede", "pas", "cam", "dere", "agent", "watcher", "stranger")
    }

    def reaches(source: str, target: str, port: int) -> bool:
        try:
            restricted.run(source, "get", f"http://{at[target]}:{port}/", "1s")
        except ClusterError:
            return False
        return True

    # Policies come into effect a moment after they are there.
    until(lambda: not reaches("stranger", "jede", 20101), 20, lambda: "a stranger reaches jede")
    assert reaches("pas", "jede", 20101)
    assert reaches("jede", "cam", 20101)
    assert reaches("jede", "watcher", 8443)
    assert reaches("watcher", "agent", 20000)
    assert not reaches("cam", "jede", 20101), "cam is not declared as a caller of jede"
    assert not reaches("jede", "dere", 20101), "jede does not call dere, though dere would let it in"
    assert not reaches("pas", "agent", 20000), "the agent's port is for control"
    assert not reaches("stranger", "agent", 20000)
    assert not reaches("pas", "stranger", 8080), "by default nothing gets in, and nothing undeclared out"
    assert restricted.run("jede", "resolve", f"jede.{restricted.name}.svc.cluster.local")


def may(kube: Client, namespace: str, who: str, verb: str, what: str, *more: str) -> bool:
    done = subprocess.run(
        kube.command("-n", namespace, "auth", "can-i", verb, what, f"--as={who}", *more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip() == "yes"


@pytest.mark.requirement("S6", "T4")
async def test_a_person_may_act_in_the_roles_that_were_given_and_do_nothing_else(
    kube: Client, restricted: Namespace, helm: Helm
) -> None:
    roles = {"operator": {"users": ["erin"], "groups": []}}
    values = platform(roles=roles, gateway={"replicas": 0})
    await helm.upgrade("idi", charts() / "platform", restricted.name, values)

    def token(role: str) -> str:
        words = ("-n", restricted.name, "--as=erin", "create", "token", f"role.{role}", "--audience=idi")
        return kube.kubectl(*words)

    assert token("operator")
    with pytest.raises(ClusterError, match="forbidden"):
        token("deployer")
    allowed = [
        ("get", "services/control"),
        ("create", "pods/control-0", "--subresource=portforward"),
        ("list", "pods"),
    ]
    for words in allowed:
        assert may(kube, restricted.name, "erin", *words), words
    for words in [("get", "secrets"), ("create", "pods"), ("patch", "deployments"), ("create", "pods/exec")]:
        assert not may(kube, restricted.name, "erin", *words), words
    role = f"system:serviceaccount:{restricted.name}:role.operator"
    for words in [("get", "pods"), ("get", "secrets"), ("get", "configmaps"), ("create", "pods")]:
        assert not may(kube, restricted.name, role, *words), words


@pytest.mark.requirement("S6", "T4")
async def test_control_may_make_releases_and_no_more(
    kube: Client, restricted: Namespace, helm: Helm, tmp_path: Path
) -> None:
    values = platform(gateway={"replicas": 0})
    await helm.upgrade("idi", charts() / "platform", restricted.name, values)
    own = Helm(
        program("helm"), Reach(as_account(kube, restricted, "idi-control", tmp_path)), tmp_path / "own"
    )
    for values in (full(), module(), storing()):
        values["priorityClassName"] = None
        await own.upgrade(values["module"], charts() / "module", restricted.name, values)
    assert [one.number for one in await own.history("jede", restricted.name)] == [1, 2]
    await own.rollback("jede", restricted.name, 1)
    await own.uninstall("sfl", restricted.name)
    await own.uninstall("jede", restricted.name)
    account = f"system:serviceaccount:{restricted.name}:idi-control"
    assert may(kube, restricted.name, account, "create", "tokenreviews.authentication.k8s.io")
    assert may(kube, restricted.name, account, "create", "pods"), "a plan tries one, which is not kept"
    for words in [
        ("create", "serviceaccounts/role.operator", "--subresource=token"),
        ("create", "pods", "--subresource=exec"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("patch", "resourcequotas"),
        ("get", "nodes"),
        ("get", "secrets", "--all-namespaces"),
    ]:
        assert not may(kube, restricted.name, account, *words), words
    with pytest.raises(HelmError, match="may not") as told:
        await own.upgrade(
            "idi", charts() / "platform", restricted.name, platform(rbac={"tokenReview": False})
        )
    assert told.value.kind == "forbidden"


def as_account(kube: Client, namespace: Namespace, account: str, folder: Path) -> Path:
    """A kubeconfig of a service account's own token."""
    token = kube.kubectl("-n", namespace.name, "create", "token", account).strip()
    document = yaml.safe_load(kube.kubeconfig.read_text())
    context = next(one for one in document["contexts"] if one["name"] == document["current-context"])
    context["context"]["user"] = account
    document["users"] = [{"name": account, "user": {"token": token}}]
    path = folder / f"{account}.kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(document))
    return path
