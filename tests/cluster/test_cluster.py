"""The test cluster is a real one: what later tests rely on holds, its faults are undone, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import cgroups, faults, owner
from tests.support.cluster.api import ApiError
from tests.support.cluster.base import debian_python
from tests.support.cluster.builds import build
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.group import ClusterError
from tests.support.cluster.images import image
from tests.support.cluster.layout import API, API_PORT, POOL, POOLS, Layout
from tests.support.cluster.objects import PORT, Namespace, container, on
from tests.support.platform import until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def busy(kube: Client, tool: str) -> Iterator[Namespace]:
    """A deployment under an autoscaler, busy from the start: the metrics take a while, the other tests use it."""
    namespace = Namespace.made(kube, tool, "busy")
    serving = container("main", tool, "serve", f":{PORT}")
    serving["resources"] = {"requests": {"cpu": "50m"}, "limits": {"cpu": "200m"}}
    spec = {
        "selector": {"matchLabels": {"name": "busy"}},
        "template": {"metadata": {"labels": {"name": "busy"}}, "spec": {"containers": [serving]}},
    }
    kube.api.create(namespace.path("deployments", "apps/v1"), {"metadata": {"name": "busy"}, "spec": spec})
    target = {"type": "Utilization", "averageUtilization": 50}
    metric = {
        "type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "main", "target": target},
    }
    scaler = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
        "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [metric],
    }
    scalers = namespace.path("horizontalpodautoscalers", "autoscaling/v2")
    kube.api.create(scalers, {"metadata": {"name": "busy"}, "spec": scaler})
    kube.kubectl(
        "-n", namespace.name, "wait", "deployment/busy", "--for=condition=Available", "--timeout=40s"
    )
    load = ["/tool", "get", f"http://127.0.0.1:{PORT}/burn?ms=60000", "90s"]
    asking = subprocess.Popen(
        kube.command("-n", namespace.name, "exec", "deployment/busy", "--", *load),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield namespace
    asking.kill()
    asking.wait()
    namespace.remove()


@pytest.mark.requirement("K3")
def test_each_pool_has_a_node_and_keeps_others_off_it(
    kube: Client, own: Cluster, namespace: Namespace
) -> None:
    nodes = kube.api.get("/api/v1/nodes")["items"]
    assert [node["metadata"]["labels"][POOL] for node in nodes] == [node.pool for node in own.nodes]
    assert {*POOLS} == {node.pool for node in own.nodes}
    for node in nodes:
        pool = node["metadata"]["labels"][POOL]
        kept = [(taint["key"], taint["value"]) for taint in node["spec"].get("taints", [])]
        assert kept == ([] if pool == "general" else [(POOL, pool)])
    namespace.pod("anywhere", "pause")
    namespace.pod("learning", "pause", **on("ml"))
    namespace.pod("refused", "pause", nodeSelector={POOL: "ml"})
    assert namespace.await_running("anywhere")["spec"]["nodeName"] in ("n1", "n4")
    assert namespace.await_running("learning")["spec"]["nodeName"] == "n2"
    assert "nodeName" not in kube.api.get(namespace.path("pods/refused"))["spec"]


@pytest.mark.requirement("K1")
def test_a_pod_by_digest_is_pulled_from_the_registry_inside(own: Cluster, namespace: Namespace) -> None:
    other = image("idi-test/another", {"tool": own.programs["tool"], "mark": namespace.name}, "/tool")
    with pytest.raises(ClusterError, match="404"):
        own.registry.digest_of("idi-test/another", "latest")
    reference = own.registry.push(other)
    locked = container("main", reference, "serve", f":{PORT}")
    namespace.pod("by-digest", containers=[locked], securityContext={"runAsNonRoot": True})
    status = namespace.await_running("by-digest")["status"]["containerStatuses"][0]
    assert status["imageID"] == reference
    namespace.pod("unknown", containers=[container("main", reference.replace("another", "unknown"), "pause")])
    reason = namespace.kube.api.until(namespace.path("pods"), pulling_failed, what="a pull refused")
    assert reason in ("ErrImagePull", "ImagePullBackOff")


def pulling_failed(pods: list[dict[str, dict[str, list[dict[str, dict[str, dict[str, str]]]]]]]) -> str:
    states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", [])]
    reasons = [state["waiting"]["reason"] for state in states if "waiting" in state]
    return next((reason for reason in reasons if "Pull" in reason), "")


@pytest.mark.requirement("K1")
def test_a_volume_outlives_its_pod_and_goes_with_its_claim(own: Cluster, namespace: Namespace) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    claims = namespace.path("persistentvolumeclaims")
    namespace.kube.api.create(claims, {"metadata": {"name": "data"}, "spec": claim})

    def pod(name: str, *words: str) -> None:
        mounted = container(
            "main", namespace.tool, *words, volumeMounts=[{"name": "data", "mountPath": "/data"}]
        )
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        once = {"restartPolicy": "Never", "containers": [mounted], "volumes": volumes, **on("storage")}
        namespace.pod(name, **once)

    pod("writer", "write", "/data/kept", "kept")
    assert namespace.await_ended("writer")["status"]["phase"] == "Succeeded"
    namespace.kube.api.delete(namespace.path("pods/writer"))
    namespace.await_gone("writer")
    pod("reader", "serve", f":{PORT}")
    namespace.await_running("reader")
    assert namespace.run("reader", "get", f"http://127.0.0.1:{PORT}/file?path=/data/kept") == "kept"
    [kept] = (own.layout.folder / "n3").glob("var-lib/idi-volumes/*/kept")
    namespace.kube.api.delete(namespace.path("pods/reader"))
    namespace.kube.api.delete(f"{claims}/data")
    until(lambda: not kept.parent.exists(), 30, lambda: f"{kept} is still there")


@pytest.mark.requirement("K1")
def test_a_native_sidecar_is_up_before_the_container_and_ends_after_it(namespace: Namespace) -> None:
    probe = {"exec": {"command": ["/tool", "get", "http://127.0.0.1:9000/"]}, "periodSeconds": 1}
    beside = container("beside", namespace.tool, "serve", ":9000", restartPolicy="Always", startupProbe=probe)
    main = container("main", namespace.tool, "get", "http://127.0.0.1:9000/")
    namespace.pod("pair", restartPolicy="Never", initContainers=[beside], containers=[main])
    assert namespace.await_ended("pair")["status"]["phase"] == "Succeeded"
    [asked] = namespace.log("pair", "main").values()
    served = namespace.log("pair", "beside")
    assert served["began"] < asked < served["ended"]


@pytest.mark.requirement("K1")
def test_policies_hold_on_a_node_across_nodes_and_through_a_service(namespace: Namespace) -> None:
    namespace.pod("server", "serve", f":{PORT}")
    address = namespace.service("server")
    places = {"same": {}, "across": on("ml")}
    clients = {
        f"{role}-{place}": (role, spec) for place, spec in places.items() for role in ("friend", "stranger")
    }
    for name, (role, spec) in clients.items():
        namespace.pod(name, "pause", labels={"role": role}, **spec)
    pod = namespace.await_running("server")["status"]["podIP"]
    urls = [f"http://{pod}:{PORT}/", f"http://{address}/"]
    for name in clients:
        namespace.await_running(name)
        until(lambda at=name: not refused(namespace, at, urls[1]), 10)  # type: ignore[misc]
        assert namespace.run(name, "get", urls[0]) == "server"
    allowed = {"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}
    spec = {
        "podSelector": {"matchLabels": {"name": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [allowed],
    }
    policies = namespace.path("networkpolicies", "networking.k8s.io/v1")
    namespace.kube.api.create(policies, {"metadata": {"name": "server"}, "spec": spec})
    for place in places:
        until(lambda at=place: refused(namespace, f"stranger-{at}", urls[0]), 10)  # type: ignore[misc]
        assert refused(namespace, f"stranger-{place}", urls[1])
        for url in urls:
            assert namespace.run(f"friend-{place}", "get", url) == "server"


def refused(namespace: Namespace, pod: str, url: str) -> bool:
    try:
        namespace.run(pod, "get", url, "500ms")
    except ClusterError as error:
        return "refused" in str(error) or "Timeout" in str(error) or "deadline" in str(error)
    return False


@pytest.mark.requirement("K1")
def test_a_service_has_a_name(namespace: Namespace) -> None:
    namespace.pod("server", "serve", f":{PORT}")
    namespace.pod("client", "pause", **on("storage"))
    address = namespace.service("server")
    namespace.await_running("server")
    namespace.await_running("client")
    assert namespace.run("client", "resolve", "server") == address
    assert namespace.run("client", "resolve", f"server.{namespace.name}.svc.cluster.local") == address
    with pytest.raises(ClusterError, match="no such host"):
        namespace.run("client", "resolve", "nobody")


@pytest.mark.requirement("K3")
def test_a_full_quota_refuses_the_next_pod(namespace: Namespace) -> None:
    namespace.pod("first", "pause")
    with faults.quota_full(namespace.kube, namespace.name):
        with pytest.raises(ApiError, match="exceeded quota") as refusal:
            namespace.pod("second", "pause")
        assert refusal.value.status == 403
    namespace.pod("second", "pause")


@pytest.mark.requirement("S2")
def test_secrets_lie_encrypted_in_the_store(own: Cluster, namespace: Namespace) -> None:
    plain = {"metadata": {"name": "one"}, "stringData": {"word": "nobody-may-read-this"}}
    namespace.kube.api.create(namespace.path("secrets"), plain)
    namespace.kube.api.create(
        namespace.path("configmaps"), {"metadata": {"name": "one"}, "data": {"word": "open"}}
    )
    stored = own.stored(f"/registry/secrets/{namespace.name}/one")
    assert stored.startswith(b"k8s:enc:aesgcm:v1:")
    assert b"nobody-may-read-this" not in stored
    assert b"open" in own.stored(f"/registry/configmaps/{namespace.name}/one")


@pytest.mark.requirement("K1")
def test_a_dockerfile_is_built_and_run_with_no_registry_outside(
    own: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    (tmp_path / "hello.py").write_text("import sys; print('hello', sys.version_info[:2])\n")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nCOPY hello.py /hello.py\nUSER 65532:65532\n"
        'RUN python3 /hello.py\nENTRYPOINT ["python3", "/hello.py"]\n'
    )
    built = build(own, tmp_path, "hello", bases={"BASE": debian_python()})
    image = own.registry.push_kept(built.manifest, built.blobs, "idi-test/hello")
    namespace.pod("hello", restartPolicy="Never", containers=[container("main", image)])
    assert namespace.await_ended("hello")["status"]["phase"] == "Succeeded"
    assert "hello (3, 11)" in namespace.kube.kubectl("-n", namespace.name, "logs", "hello")


@pytest.mark.requirement("T3")
def test_nodes_that_hear_nobody_do_again(own: Cluster, namespace: Namespace) -> None:
    namespace.pod("server", "serve", f":{PORT}", nodeName="n1")
    for pool in ("ml", "storage"):
        namespace.pod(pool, "pause", **on(pool))
    url = f"http://{namespace.await_running('server')['status']['podIP']}:{PORT}/"
    for pool in ("ml", "storage"):
        namespace.await_running(pool)
    with faults.partition(own, "n1", "n2"):
        assert refused(namespace, "ml", url)
        assert namespace.run("storage", "get", url) == "server"
    assert namespace.run("ml", "get", url) == "server"
    with faults.cut_off(own, "n2"):
        assert not hears_the_api_server(own, "n2")
        assert hears_the_api_server(own, "n3")
    assert hears_the_api_server(own, "n2")


def hears_the_api_server(own: Cluster, node: str) -> bool:
    with own.groups[node].socket() as inside:
        inside.settimeout(1)
        try:
            inside.connect((API, API_PORT))
        except OSError:
            return False
    return True


@pytest.mark.requirement("T3")
def test_pods_live_on_without_the_api_server_and_without_a_kubelet(
    own: Cluster, namespace: Namespace
) -> None:
    namespace.pod("server", "serve", f":{PORT}", nodeName="n1")
    address = namespace.await_running("server")["status"]["podIP"]
    with faults.without_api_server(own):
        with pytest.raises(OSError):
            own.api.get("/readyz")
        assert answers(own, address)
    with faults.stopped(own, "n1", "kubelet"):
        # Only a node's kubelet runs anything in its pods.
        with pytest.raises(ClusterError):
            namespace.run("server", "get", f"http://127.0.0.1:{PORT}/")
        assert answers(own, address)
    assert until(lambda: said(namespace, "server"), 20) == "server"
    assert namespace.await_running("server")["status"]["containerStatuses"][0]["restartCount"] == 0


def said(namespace: Namespace, pod: str) -> str:
    """What the pod says to itself; nothing while its kubelet, just started, does not know it yet."""
    try:
        return namespace.run(pod, "get", f"http://127.0.0.1:{PORT}/")
    except ClusterError:
        return ""


def answers(own: Cluster, address: str) -> bool:
    """Whether a pod of the first node answers on that node, which needs none of Kubernetes."""
    with own.groups["n1"].socket() as inside:
        inside.settimeout(5)
        inside.connect((address, PORT))
        inside.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return inside.recv(64).startswith(b"HTTP/1.0 200")


@pytest.mark.requirement("T3")
def test_a_node_that_lost_power_comes_back_with_its_pods(own: Cluster, namespace: Namespace) -> None:
    namespace.pod("there", "serve", f":{PORT}", **on("storage"))
    namespace.await_running("there")
    with faults.node_killed(own, "n3"):
        assert not cgroups.processes(f"{own.layout.cgroup}/n3")
        assert own.groups["n3"].running is False
    until(lambda: restarts(namespace, "there") == 1, 30, lambda: str(restarts(namespace, "there")))
    assert until(lambda: said(namespace, "there"), 20) == "there"


def restarts(namespace: Namespace, pod: str) -> int:
    status = namespace.kube.api.get(namespace.path(f"pods/{pod}"))["status"]
    return int(status["containerStatuses"][0]["restartCount"])


@pytest.mark.requirement("K2")
def test_a_busy_container_is_scaled_out_by_its_own_metric(busy: Namespace) -> None:
    def scaled(found: list[dict[str, dict[str, int]]]) -> bool:
        return any(one["status"].get("readyReplicas", 0) == 2 for one in found)

    busy.kube.api.until(busy.path("deployments", "apps/v1"), scaled, 60, "a second replica")


@pytest.mark.requirement("T3")
@pytest.mark.parametrize("ending", ["down", "killed"])
def test_nothing_is_left_of_a_cluster(own: Cluster, ending: str) -> None:
    """It runs beside the session's, with the same addresses."""
    layout = Layout(f"left-{os.getpid()}")
    held = subprocess.Popen(
        [sys.executable, "-m", "tests.support.cluster", "hold", layout.name, "--nodes", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert held.stdout is not None
    try:
        assert held.stdout.readline() == "ready\n"
        inside = Namespace.made(Client(layout.kubeconfig), own.tool, "left")
        inside.pod("running", "serve", f":{PORT}")
        assert inside.await_running("running")["spec"]["nodeName"] == "n1"
        assert len(cgroups.processes(layout.cgroup)) > 10
        held.send_signal(signal.SIGTERM if ending == "down" else signal.SIGKILL)
        held.wait(30)
    finally:
        held.kill()
        held.wait()
        held.stdout.close()
    if ending == "killed":
        # The kernel ends them; nobody is there to do it.
        until(lambda: not cgroups.processes(layout.cgroup), 10, lambda: str(cgroups.processes(layout.cgroup)))
        assert owner.sweep() == [layout.name]
    assert not cgroups.remains(layout.cgroup)
    assert not layout.folder.exists()
    assert not layout.lock.exists()
    assert not named(layout)
    assert str(layout.folder) not in Path("/proc/self/mountinfo").read_text()
    assert own.api.get("/readyz") == "ok"


def named(layout: Layout) -> list[str]:
    """Processes of this machine with the cluster's folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(layout.folder) in line:
            found.append(line)
    return found
