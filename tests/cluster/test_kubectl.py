"""The command line's way into a cluster, through a real kubectl and a real kubeconfig."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from idi.api.cluster import Cluster, Denied, Failed, Missing, NoContext, Unreachable
from idi.api.errors import IdiError
from idi.api.forward import Forward
from idi.cli.failure import FAILED, NOT_RUNNING, from_error
from idi.parts.clients.kubernetes import Kubernetes
from idi.parts.clients.token_review import Role, TokenReviews
from tests.support.cluster import cluster as own_cluster
from tests.support.cluster import faults
from tests.support.cluster.access import access
from tests.support.cluster.client import Client
from tests.support.cluster.layout import cache
from tests.support.cluster.objects import Namespace
from tests.support.platform import alive, free_port, until

pytestmark = pytest.mark.requirement("K1")


@pytest.fixture
def cluster(kube: Client, namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    # What it remembers of an API server, it would leave in the user's home.
    monkeypatch.setenv("KUBECACHEDIR", str(cache() / "kubectl"))
    document = yaml.safe_load(kube.kubeconfig.read_text())
    return Cluster(document["current-context"], namespace.name)


Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture
def changed(
    cluster: Cluster, kube: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Change], None]:
    """Have a kubeconfig of the same context, but with another cluster or user in it."""

    def change(how: Change) -> None:
        document = yaml.safe_load(kube.kubeconfig.read_text())
        how(document["clusters"][0]["cluster"], document["users"][0]["user"])
        file = tmp_path / "kubeconfig"
        file.write_text(json.dumps(document))
        file.chmod(0o600)
        monkeypatch.setenv("KUBECONFIG", str(file))

    return change


def code(error: IdiError) -> int:
    return from_error(error).code


async def test_a_role_has_a_token_that_proves_it(
    cluster: Cluster, kube: Client, namespace: Namespace, tmp_path: Path
) -> None:
    namespace.kube.api.create(namespace.path("serviceaccounts"), {"metadata": {"name": "role.deployer"}})
    token = await asyncio.to_thread(cluster.token, "deployer")
    async with Kubernetes(access(kube.kubeconfig, tmp_path)) as client:
        assert await TokenReviews(client, namespace.name).who(token) == Role("deployer")
    with pytest.raises(Missing, match=f"no role operator in namespace {namespace.name}") as refusal:
        cluster.token("operator")
    assert code(refusal.value) == FAILED


def test_documents_are_applied_and_read(cluster: Cluster, namespace: Namespace) -> None:
    def document(name: str, text: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}

    assert cluster.get("configmap", "one") is None
    # Larger than a pipe.
    long = "x" * 500_000
    both = {"apiVersion": "v1", "kind": "List", "items": [document("one", long), document("two", "2")]}
    cluster.apply(both)
    assert (cluster.get("configmap", "one") or {})["data"]["text"] == long
    cluster.apply(document("two", "tried"), dry_run=True)
    assert (cluster.get("configmap", "two") or {})["data"]["text"] == "2"
    namespace.kube.kubectl("-n", namespace.name, "patch", "cm", "two", "-p", '{"data":{"text":"theirs"}}')
    with pytest.raises(Failed, match="conflict with"):
        cluster.apply(document("two", "mine"))
    assert cluster.apply(document("two", "mine"), force=True)["data"]["text"] == "mine"
    names = [one["metadata"]["name"] for one in (cluster.get("configmaps") or {})["items"]]
    assert {"one", "two"} <= set(names)
    assert (cluster.get("configmaps", labels="a=b") or {})["items"] == []
    assert cluster.version().server.startswith("1.")


def test_what_one_may_is_known_before_one_tries(
    cluster: Cluster, namespace: Namespace, changed: Callable[[Change], None]
) -> None:
    assert cluster.can("create", "deployments.apps")
    token = namespace.kube.kubectl("-n", namespace.name, "create", "token", "default").strip()

    def weak(_: dict[str, Any], user: dict[str, Any]) -> None:
        user.clear()
        user["token"] = token

    changed(weak)
    assert not cluster.can("create", "deployments.apps")
    assert not cluster.can("get", "pods", subresource="log")
    for tried in (
        lambda: cluster.token("deployer"),
        lambda: cluster.get("pods"),
        lambda: cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}),
    ):
        with pytest.raises(Denied, match=f"system:serviceaccount:{namespace.name}:default") as refusal:
            tried()
        assert "auth can-i --list" in refusal.value.way_out
        assert code(refusal.value) == FAILED


def test_each_way_not_to_get_there_has_its_way_out(
    cluster: Cluster,
    own: own_cluster.Cluster,
    changed: Callable[[Change], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def failure(asked: Cluster = cluster) -> Unreachable:
        with pytest.raises(Unreachable) as failure:
            asked.version()
        assert code(failure.value) == NOT_RUNNING
        assert failure.value.way_out
        return failure.value

    nowhere = failure(replace(cluster, context="nowhere"))
    assert isinstance(nowhere, NoContext)
    assert f"there is: {cluster.context}." in nowhere.message
    assert isinstance(failure(replace(cluster, context="--help")), NoContext)
    port = free_port()
    changed(lambda server, _: server.update(server=f"https://127.0.0.1:{port}"))
    assert "Nobody answers" in failure().message
    with pytest.raises(Unreachable, match="Nobody answers"), cluster.forward("service/control", 8443):
        pass

    def stranger(_: dict[str, Any], user: dict[str, Any]) -> None:
        user.clear()
        user["token"] = "nonsense"

    changed(stranger)
    assert "does not know who you are" in failure().message
    changed(lambda server, _: server.pop("certificate-authority-data"))
    assert "is not the one that your kubeconfig trusts" in failure().message
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no kubeconfig with any cluster" in failure().message


def fetched(forward: Forward) -> str:
    """What answers there, empty where nothing does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{forward.port}/", timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def carriers(port: int) -> list[int]:
    """The processes that forward to this port of a cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            given = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"port-forward" in given and any(one.endswith(f":{port}".encode()) for one in given):
            found.append(int(path.parent.name))
    return found


def serving(namespace: Namespace, port: int) -> None:
    namespace.pod("server", "serve", f":{port}")
    namespace.kube.api.create(
        namespace.path("services"),
        {"metadata": {"name": "server"}, "spec": {"selector": {"name": "server"}, "ports": [{"port": port}]}},
    )
    namespace.await_running("server")


def test_a_forwarded_port_outlives_its_pod(cluster: Cluster, namespace: Namespace) -> None:
    port = free_port()
    serving(namespace, port)
    with cluster.forward("service/server", port) as forward:
        first = forward.port
        assert fetched(forward) == "server"
        assert len(carriers(port)) == 2  # kubectl, and what holds it
        namespace.kube.api.delete(namespace.path("pods/server"), at_once=True)
        namespace.await_gone("server")
        until(lambda: not fetched(forward) and forward.trouble, 20)
        namespace.pod("server", "serve", f":{port}")
        until(lambda: fetched(forward) == "server", 40, lambda: str(forward.trouble))
        assert forward.port == first
        assert forward.restarts >= 1
        assert forward.trouble is None
    assert carriers(port) == []


async def test_a_forwarded_port_outlives_the_api_server(
    cluster: Cluster, own: own_cluster.Cluster, namespace: Namespace
) -> None:
    port = free_port()
    await asyncio.to_thread(serving, namespace, port)

    def restart() -> None:
        with faults.without_api_server(own):
            until(lambda: not fetched(forward), 20)

    async with cluster.forward("pod/server", port) as forward:
        await asyncio.to_thread(restart)
        await asyncio.to_thread(until, lambda: fetched(forward) == "server", 30)
    assert carriers(port) == []


HOLDER = """
import sys, time
from idi.api.cluster import Cluster
with Cluster(sys.argv[1], sys.argv[2]).forward("pod/server", int(sys.argv[3])) as forward:
    print(forward.port, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_forwarded_port_ends_with_its_holder(
    cluster: Cluster, namespace: Namespace, ending: signal.Signals
) -> None:
    port = free_port()
    serving(namespace, port)
    source = str(Path(__file__).resolve().parents[2] / "src")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, cluster.context, cluster.namespace, str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    try:
        assert holder.stdout is not None
        assert int(holder.stdout.readline()) > 0
        held = carriers(port)
        assert len(held) == 2
        holder.send_signal(ending)
        holder.wait(10)
        until(lambda: not any(alive(pid) for pid in held), 5)
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
