"""Pods of the module's chart that really run, with a stand-in for the agent: what kubelet makes of the template.

The stand-in answers as the agent does and says what it was asked and what it finds in its pod; the module is the tests'
own program. The agent itself has tests of its own.
"""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from idi.parts.clients.helm import Helm, Reach, charts
from tests.support.charts import Values, module, program, slot
from tests.support.cluster.base import debian_python
from tests.support.cluster.builds import build
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.group import ClusterError
from tests.support.cluster.images import image
from tests.support.cluster.objects import Namespace, running
from tests.support.platform import until

CHART = charts() / "module"
AGENT = """
    import base64, http.server, json, os, signal, time, urllib.request

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    def say(what):
        print(time.time_ns(), what, flush=True)

    class Answers(http.server.BaseHTTPRequestHandler):
        asked = set()

        def do_GET(self):
            if self.path not in self.asked:
                self.asked.add(self.path)
                say(self.path)
            try:
                if self.path == "/ready":
                    urllib.request.urlopen("http://127.0.0.1:20001/", timeout=1).read()
                if self.path == "/stopping":
                    time.sleep(float(os.environ["IDI_DRAIN_S"]))
                self.send_response(200)
            except OSError:
                self.send_response(503)
            self.end_headers()

        def log_message(self, *_):
            pass

    claims = open("/var/run/idi/token/token").read().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    about = claims["kubernetes.io"]
    say(f"token={claims['aud'][0]}/{claims['sub']}/{about['pod']['name'] == os.environ['POD_NAME']}")
    say(f"life={claims['exp'] - claims['iat']}")
    open("/run/idi/own", "w").write("x")
    say(f"root={os.access('/', os.W_OK)}")
    say(f"told={json.loads(os.environ['IDI_AGENT'])['module']}")
    say(f"proxy={open('/etc/idi/proxy/bootstrap.json').read()}")
    http.server.ThreadingHTTPServer((os.environ["POD_IP"], 20000), Answers).serve_forever()
"""
DOCKERFILE = """
    ARG BASE
    FROM ${BASE}
    COPY idi/ /opt/idi/idi/
    ENV PYTHONPATH=/opt/idi
    USER 65532:65532
"""


@pytest.fixture(scope="module")
def images(own: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """By digest: the stand-in for the sidecar, and a module that serves on its port."""
    folder = tmp_path_factory.mktemp("sidecar")
    (folder / "idi").mkdir()
    (folder / "idi" / "__init__.py").touch()
    (folder / "idi" / "agent.py").write_text(textwrap.dedent(AGENT))
    (folder / "Dockerfile").write_text(textwrap.dedent(DOCKERFILE))
    serving = image("idi-test/module", {"tool": own.programs["tool"]}, "/tool", "serve", "127.0.0.1:20001")
    own.registry.push(serving)
    made = build(own, folder, "idi-test-agent", bases={"BASE": debian_python()})
    sidecar = own.registry.push_kept(made.manifest, made.blobs, "idi-test/agent")
    return {"sidecar": sidecar, "module": serving.reference}


@pytest.fixture
def helm(kube: Client, namespace: Namespace, tmp_path: Path) -> Helm:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.api.patch(f"/api/v1/namespaces/{namespace.name}", {"metadata": {"labels": labels}})
    kube.api.create(
        namespace.path("configmaps"),
        {"metadata": {"name": "idi-proxy"}, "data": {"bootstrap.json": "{}", "ca.crt": "none"}},
    )
    return Helm(program("helm"), Reach(kube.kubeconfig), tmp_path / "helm")


def values(images: Mapping[str, str], name: str = "jede", revision: str = "1a2b3c4d", **more: Any) -> Values:
    own = {"image": images["module"], "replicas": 1, **more.pop("slot", {})}
    small = {"requests": {"cpu": "50m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    return module(
        name,
        sidecar={"image": images["sidecar"]},
        slots={"stable": slot(revision, **own)},
        **{"resources": small, **more},
    )


def ready(revision: str) -> Callable[[list[Any]], Any]:
    """The pod of that revision, once it is Ready."""
    return lambda pods: running(
        [one for one in pods if one["metadata"]["labels"]["idi.dev/revision"] == revision]
    )


def started(kube: Client, namespace: Namespace, *words: str) -> subprocess.Popen[str]:
    command = kube.command("-n", namespace.name, *words)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def logged(namespace: Namespace, pod: str, container: str) -> dict[str, float]:
    """When each thing was said, in seconds."""
    lines = namespace.kube.kubectl("-n", namespace.name, "logs", pod, "-c", container).splitlines()
    return {what: int(when) / 1e9 for when, what in (line.split(maxsplit=1) for line in lines)}


def ended(pods: list[Any]) -> list[dict[str, Any]]:
    """How the sidecar and the module ended, once both have; times in seconds."""
    [status] = [pod["status"] for pod in pods]
    states = [one["state"] for one in (*status["initContainerStatuses"], *status["containerStatuses"])]
    if not all("terminated" in state for state in states):
        return []
    times = ("startedAt", "finishedAt")
    return [
        {**one, **{key: datetime.fromisoformat(one[key]).timestamp() for key in times}}
        for one in (state["terminated"] for state in states)
    ]


@pytest.mark.requirement("K1")
async def test_a_pod_comes_up_in_order_and_goes_in_order(
    kube: Client, namespace: Namespace, helm: Helm, images: Mapping[str, str]
) -> None:
    own = {"config": {"LOG_LEVEL": "info"}}
    await helm.upgrade("jede", CHART, namespace.name, values(images, slot=own, grace_s=2, drain_s=5))
    pod = kube.api.until(namespace.path("pods"), ready("1a2b3c4d"), 60, "jede")
    name = pod["metadata"]["name"]
    hidden = "http://127.0.0.1:20001/file?path=/var/run/idi/token/token"
    with pytest.raises(ClusterError, match="exit code 2"):
        namespace.run(name, "get", hidden)
    service = kube.api.until(
        namespace.path("endpointslices", "discovery.k8s.io/v1"),
        lambda slices: [
            one for one in slices if one["endpoints"] and one["endpoints"][0]["conditions"]["ready"]
        ],
        20,
        "an endpoint",
    )[0]
    assert [(one["name"], one["port"]) for one in service["ports"]] == [("http", 20101)]
    assert service["endpoints"][0]["targetRef"]["name"] == name
    # What ended stays to be looked at; its log does not.
    path = namespace.path("pods") + f"/{name}"
    kube.api.patch(path, {"metadata": {"finalizers": ["idi.dev/test"]}})
    await helm.uninstall("jede", namespace.name)
    until(lambda: "/stopping" in logged(namespace, name, "sidecar"))
    said, module_said = logged(namespace, name, "sidecar"), logged(namespace, name, "module")
    assert "ended" not in module_said, "asked to end before the agent was done"
    [of_sidecar, of_module] = kube.api.until(namespace.path("pods"), ended, 40, "the end of jede")
    kube.api.patch(path, {"metadata": {"finalizers": None}})
    account = f"system:serviceaccount:{namespace.name}:idi-jede"
    assert f"token=idi/{account}/True" in said
    assert "life=600" in said
    assert {"root=False", "told=jede", "proxy={}"} <= set(said)
    # The agent lives before the module begins, which is asked to end once the agent has answered, and ends before it.
    assert said["/live"] < module_said["began"] < said["/stopping"]
    assert of_module["exitCode"] == 0
    assert said["/stopping"] + 4 <= of_module["finishedAt"] <= of_sidecar["finishedAt"] + 1


@pytest.mark.requirement("K1")
async def test_a_rollout_has_no_moment_without_a_ready_pod(
    kube: Client, namespace: Namespace, helm: Helm, images: Mapping[str, str]
) -> None:
    await helm.upgrade("jede", CHART, namespace.name, values(images, grace_s=1, drain_s=0), wait=True)
    await helm.upgrade(
        "jede", CHART, namespace.name, values(images, revision="99999999", grace_s=1, drain_s=0)
    )
    path = namespace.path("deployments", "apps/v1") + "/jede-stable"
    least = 1
    for _ in range(600):
        status = kube.api.get(path)["status"]
        least = min(least, status.get("readyReplicas", 0))
        if status.get("updatedReplicas") == status.get("readyReplicas") == status["replicas"] == 1:
            if status["observedGeneration"] == 2:
                break
    else:
        pytest.fail(f"not rolled out: {status}")
    assert least == 1


async def test_what_a_module_stored_is_there_for_the_next_revision(
    kube: Client, namespace: Namespace, helm: Helm, images: Mapping[str, str]
) -> None:
    stored: dict[str, Any] = {"storage": {"size": "16Mi"}, "grace_s": 1, "drain_s": 0}
    await helm.upgrade("sfl", CHART, namespace.name, values(images, "sfl", **stored))
    first = kube.api.until(namespace.path("pods"), ready("1a2b3c4d"), 60, "sfl")
    namespace.run("sfl-stable-0", "write", "/data/kept", "so it is")
    await helm.upgrade("sfl", CHART, namespace.name, values(images, "sfl", "99999999", **stored))
    second = kube.api.until(namespace.path("pods"), ready("99999999"), 60, "its successor")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    read = "http://127.0.0.1:20001/file?path=/data/kept"
    assert namespace.run("sfl-stable-0", "get", read) == "so it is"


@pytest.mark.requirement("K2")
async def test_a_busy_module_gets_another_instance(
    kube: Client, namespace: Namespace, helm: Helm, images: Mapping[str, str]
) -> None:
    scaled = values(images, slot={"replicas": None}, scale={"min": 1, "max": 2, "cpuPercent": 50})
    await helm.upgrade("jede", CHART, namespace.name, scaled)
    pod = kube.api.until(namespace.path("pods"), ready("1a2b3c4d"), 60, "jede")
    burn = ("/tool", "get", "http://127.0.0.1:20001/burn?ms=60000", "90s")
    busy = started(kube, namespace, "exec", pod["metadata"]["name"], "-c", "module", "--", *burn)
    try:
        kube.api.until(namespace.path("pods"), lambda pods: len(pods) == 2, 90, "one more")
        # Another revision leaves the number to the autoscaler.
        await helm.upgrade("jede", CHART, namespace.name, {**scaled, "drain_s": 3})
        path = namespace.path("deployments", "apps/v1") + "/jede-stable"
        assert kube.api.get(path)["spec"]["replicas"] == 2
    finally:
        busy.terminate()
        busy.wait(10)
