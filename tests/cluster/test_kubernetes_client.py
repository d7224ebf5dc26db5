"""The client of the Kubernetes API, on a real server: documents, refusals, logs, and a watch that misses nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from idi.parts.clients.kubernetes import Access, Kubernetes, KubernetesError, in_cluster, path
from idi.parts.clients.kubernetes_watch import Event, Kind, Watch
from idi.parts.errors import PartError
from tests.support.cluster import faults
from tests.support.cluster.access import access as access_of
from tests.support.cluster.access import gated
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.layout import STORE_PORT
from tests.support.cluster.objects import Namespace, container

pytestmark = pytest.mark.requirement("K1")


@pytest.fixture
def access(kube: Client, tmp_path: Path) -> Access:
    return access_of(kube.kubeconfig, tmp_path)


@pytest.fixture
async def client(access: Access) -> AsyncIterator[Kubernetes]:
    async with Kubernetes(access) as client:
        yield client


def maps(namespace: Namespace, name: str = "") -> str:
    return path("v1", "configmaps", namespace.name, name)


def config_map(name: str, **data: str) -> dict[str, Any]:
    labels = {"watched": "yes"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": labels},
        "data": data,
    }


async def test_documents_are_made_read_changed_and_deleted(client: Kubernetes, namespace: Namespace) -> None:
    made = await client.create(maps(namespace), config_map("one", a="1", b="2"))
    assert (await client.get(maps(namespace, "one")))["metadata"]["uid"] == made["metadata"]["uid"]
    changed = await client.patch(maps(namespace, "one"), {"data": {"a": "3", "b": None}})
    assert changed["data"] == {"a": "3"}
    assert not await client.delete(maps(namespace, "other"))
    with pytest.raises(KubernetesError) as refusal:
        await client.delete(maps(namespace, "one"), uid="00000000-0000-0000-0000-000000000000")
    assert refusal.value.conflict
    assert await client.delete(maps(namespace, "one"), dry_run=True)
    assert await client.delete(maps(namespace, "one"), propagation="Orphan", grace_s=0)
    # Whatever has to happen before it goes is the cluster's own work.
    namespace.kube.api.until(maps(namespace), lambda left: not left, fieldSelector="metadata.name=one")


async def test_an_applied_document_replaces_what_was_applied_before(
    client: Kubernetes, namespace: Namespace
) -> None:
    place = maps(namespace, "one")
    await client.apply(place, config_map("one", a="1", b="2"))
    assert (await client.apply(place, config_map("one", a="1")))["data"] == {"a": "1"}
    tried = await client.apply(place, config_map("one", a="tried"), dry_run=True)
    assert tried["data"] == {"a": "tried"}
    assert (await client.get(place))["data"] == {"a": "1"}
    namespace.kube.kubectl("-n", namespace.name, "patch", "cm", "one", "-p", '{"data":{"a":"theirs"}}')
    with pytest.raises(KubernetesError, match="kubectl-patch") as refusal:
        await client.apply(place, config_map("one", a="mine"))
    assert refusal.value.conflict
    assert not refusal.value.retryable
    assert (await client.apply(place, config_map("one", a="mine"), force=True))["data"] == {"a": "mine"}


async def test_a_long_collection_comes_in_pages(client: Kubernetes, namespace: Namespace) -> None:
    for number in range(7):
        await client.create(maps(namespace), config_map(f"m{number}"))
    listing = await client.listing(maps(namespace), labels="watched=yes", page=2)
    assert [one["metadata"]["name"] for one in listing.items] == [f"m{number}" for number in range(7)]
    assert listing.version
    found = await client.listing(maps(namespace), fields="metadata.name=m3")
    assert len(found.items) == 1


async def test_each_refusal_is_told_apart(client: Kubernetes, access: Access, namespace: Namespace) -> None:
    async def refused(asked: Any) -> KubernetesError:
        with pytest.raises(KubernetesError) as refusal:
            await asked
        assert not refusal.value.retryable
        return refusal.value

    await client.create(maps(namespace), config_map("one"))
    missing = await refused(client.get(maps(namespace, "none")))
    assert missing.not_found
    assert missing.reason == "NotFound"
    assert 'configmaps "none" not found' in missing.message
    taken = await refused(client.create(maps(namespace), config_map("one")))
    assert taken.already_exists
    assert not taken.conflict
    wrong = await refused(client.create(maps(namespace), {**config_map("two"), "spec": {}}))
    assert wrong.invalid
    assert 'unknown field "spec"' in wrong.message
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"a": "1"}}
    assert (await refused(client.patch(maps(namespace, "one"), stale))).conflict
    pod = {"containers": [container("main", namespace.tool, "pause")]}
    with faults.quota_full(namespace.kube, namespace.name):
        full = await refused(
            client.create(path("v1", "pods", namespace.name), {"metadata": {"name": "second"}, "spec": pod})
        )
    assert full.quota_exceeded
    assert not full.forbidden
    assert "quota" in full.way_out
    token = namespace.kube.kubectl("-n", namespace.name, "create", "token", "default").strip()
    async with Kubernetes(replace(access, certificate=None, token=token)) as weak:
        forbidden = await refused(weak.get(maps(namespace, "one")))
        assert forbidden.forbidden
        assert token not in f"{forbidden!r} {weak.__dict__!r}"
    async with Kubernetes(replace(access, certificate=None, token="nonsense")) as stranger:
        assert (await refused(stranger.get(maps(namespace, "one")))).unauthorised


async def test_a_token_that_was_replaced_is_read_again(
    access: Access, namespace: Namespace, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("nonsense")
    async with Kubernetes(replace(access, certificate=None, token_file=str(file))) as client:
        with pytest.raises(KubernetesError) as refusal:
            await client.get(maps(namespace))
        assert refusal.value.unauthorised
        file.write_text(namespace.kube.kubectl("-n", namespace.name, "create", "token", "default"))
        with pytest.raises(KubernetesError) as refusal:
            await client.get(maps(namespace))
        assert refusal.value.forbidden


async def test_a_pod_finds_its_cluster_and_namespace(
    kube: Client, access: Access, namespace: Namespace, tmp_path: Path
) -> None:
    """By the files that kubelet puts into a pod, with what a real account gets."""
    namespace.kube.kubectl(
        *("-n", namespace.name, "create", "rolebinding", "edits", "--clusterrole=edit"),
        f"--serviceaccount={namespace.name}:default",
    )
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").symlink_to(access.authority)
    (folder / "namespace").write_text(namespace.name)
    (folder / "token").write_text(kube.kubectl("-n", namespace.name, "create", "token", "default"))
    url = urlsplit(access.url)
    variables = {"KUBERNETES_SERVICE_HOST": str(url.hostname), "KUBERNETES_SERVICE_PORT": str(url.port)}
    async with Kubernetes(in_cluster(variables, folder)) as client:
        assert client.namespace == namespace.name
        await client.create(maps(namespace), config_map("one"))
        with pytest.raises(KubernetesError) as refusal:
            await client.get(path("v1", "configmaps", "kube-system", "one"))
        assert refusal.value.forbidden


async def test_who_does_not_answer_is_told_from_who_refuses(access: Access, own: Cluster) -> None:
    async with gated(access) as (through, gate):
        gate.shut()
        async with Kubernetes(through) as client:
            with pytest.raises(PartError, match="does not answer at") as failure:
                await client.get("/version")
            assert failure.value.retryable
            gate.open()
            assert (await client.get("/version"))["major"] == "1"
        async with Kubernetes(replace(through, authority="")) as client:
            with pytest.raises(PartError, match="certificate is not of the authority"):
                await client.get("/version")


async def test_logs_are_read_and_followed_line_by_line(client: Kubernetes, namespace: Namespace) -> None:
    namespace.pod("server", "serve", ":8080")
    namespace.await_running("server")
    [line] = await client.logs("server", "main", namespace=namespace.name)
    assert line.endswith(" began")
    assert await client.logs("server", namespace=namespace.name, tail=0) == []
    async with aclosing(client.follow("server", namespace=namespace.name, tail=10)) as lines:
        assert (await anext(lines)).endswith(" began")
        await client.delete(path("v1", "pods", namespace.name, "server"), grace_s=2)
        assert (await anext(lines)).endswith(" ended")
        assert [line async for line in lines] == []
    with pytest.raises(KubernetesError) as refusal:
        await client.logs("nobody", namespace=namespace.name)
    assert refusal.value.not_found


class Seen:
    """What follows from the events of a watch, and the events."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.events: list[Event] = []
        self.held: dict[str, dict[str, Any]] = {}
        self._news = asyncio.Event()

    async def follow(self) -> None:
        async with aclosing(self.watch.events()) as events:
            async for event in events:
                self._take(event)
                self._news.set()

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if event.kind is Kind.SYNCED:
            return
        name = event.object["metadata"]["name"]
        assert "managedFields" not in event.object["metadata"]
        assert (name in self.held) == (event.kind is not Kind.ADDED)
        if event.kind is Kind.DELETED:
            del self.held[name]
        else:
            self.held[name] = event.object

    def kinds(self, name: str) -> list[str]:
        return [
            event.kind.value for event in self.events if event.object.get("metadata", {}).get("name") == name
        ]

    @property
    def synced(self) -> int:
        return sum(event.kind is Kind.SYNCED for event in self.events)

    async def until(self, true: Callable[[], bool], timeout_s: float = 30.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not true():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def followed(client: Kubernetes, namespace: Namespace, **query: str) -> AsyncIterator[Seen]:
    seen = Seen(Watch(client, maps(namespace), **(query or {"labels": "watched=yes"})))
    following = asyncio.get_running_loop().create_task(seen.follow())
    try:
        await seen.until(lambda: seen.synced == 1)
        yield seen
        assert not following.done(), following.result()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_watch_tells_each_change_once(client: Kubernetes, namespace: Namespace) -> None:
    await client.create(maps(namespace), config_map("before"))
    async with followed(client, namespace) as seen:
        assert list(seen.held) == ["before"]
        await client.create(maps(namespace), config_map("one", a="1"))
        await client.patch(maps(namespace, "one"), {"data": {"a": "2"}})
        # Out of sight is gone.
        await client.patch(maps(namespace, "before"), {"metadata": {"labels": {"watched": "no"}}})
        await client.delete(maps(namespace, "one"))
        await seen.until(lambda: not seen.held)
        assert seen.kinds("one") == ["added", "modified", "deleted"]
        assert seen.kinds("before") == ["added", "deleted"]
        assert seen.watch.listings == 1


async def test_many_changes_at_once_are_all_told(client: Kubernetes, namespace: Namespace) -> None:
    async def life(number: int) -> None:
        name = f"m{number}"
        await client.create(maps(namespace), config_map(name, turn="0"))
        for turn in range(1, 4):
            await client.patch(maps(namespace, name), {"data": {"turn": str(turn)}})
        if number % 2:
            await client.delete(maps(namespace, name))

    async with followed(client, namespace) as seen:
        async with asyncio.TaskGroup() as lives:
            for number in range(100):
                lives.create_task(life(number))
        left = {f"m{number}" for number in range(0, 100, 2)}
        await seen.until(
            lambda: set(seen.held) == left and all(one["data"]["turn"] == "3" for one in seen.held.values())
        )
        assert len(seen.events) == 1 + 100 * 4 + 50
        assert seen.watch.listings == 1


async def test_a_dropped_watch_goes_on_where_it_was(
    client: Kubernetes, access: Access, own: Cluster, namespace: Namespace
) -> None:
    async with gated(access) as (through, gate), Kubernetes(through) as other:
        async with followed(other, namespace) as seen:
            await client.create(maps(namespace), config_map("one"))
            await seen.until(lambda: "one" in seen.held)
            gate.shut()
            await client.delete(maps(namespace, "one"))
            await client.create(maps(namespace), config_map("two"))
            await asyncio.sleep(0.5)
            assert seen.watch.trouble is not None
            gate.open()
            await seen.until(lambda: list(seen.held) == ["two"])
            assert seen.watch.trouble is None
            assert seen.watch.listings == 1


async def test_what_vanished_while_the_server_forgot_is_told_as_deleted(
    client: Kubernetes, access: Access, own: Cluster, namespace: Namespace
) -> None:
    for name in ("gone", "again", "kept"):
        await client.create(maps(namespace), config_map(name))
    async with gated(access) as (through, gate), Kubernetes(through) as other:
        async with followed(other, namespace) as seen:
            gate.shut()
            await client.delete(maps(namespace, "gone"))
            await client.delete(maps(namespace, "again"))
            await client.create(maps(namespace), config_map("again", a="new"))
            forget(own, int((await client.listing(maps(namespace))).version))
            await asyncio.to_thread(restart, own)
            gate.open()
            await seen.until(lambda: seen.synced == 2)
            assert seen.kinds("gone") == ["added", "deleted"]
            assert seen.kinds("again") == ["added", "deleted", "added"]
            assert seen.kinds("kept") == ["added"]
            assert seen.watch.listings == 2
            await client.create(maps(namespace), config_map("later"))
            await seen.until(lambda: "later" in seen.held)


async def test_a_version_that_nobody_remembers_leads_to_a_listing(
    client: Kubernetes, own: Cluster, namespace: Namespace
) -> None:
    """As in the middle of a stream, where the server says it in an event."""
    first = await client.create(maps(namespace), config_map("one"))
    for name in ("two", "three"):
        await client.create(maps(namespace), config_map(name))
    forget(own, int((await client.listing(maps(namespace))).version))
    await asyncio.to_thread(restart, own)
    watch = Watch(client, maps(namespace), labels="watched=yes")
    watch._version = str(int(first["metadata"]["resourceVersion"]) - 1)
    async with aclosing(watch.events()) as events, asyncio.timeout(20):
        told = [await anext(events) for _ in range(4)]
    assert [event.kind for event in told] == [*[Kind.ADDED] * 3, Kind.SYNCED]
    assert isinstance(watch.trouble, KubernetesError)
    assert watch.trouble.expired


def forget(own: Cluster, version: int) -> None:
    """Have the store drop everything older than this version."""
    with own.control.socket() as inside:
        inside.settimeout(10)
        inside.connect(("127.0.0.1", STORE_PORT))
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = inside
        connection.request("POST", "/v3/kv/compaction", json.dumps({"revision": str(version)}))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()


def restart(own: Cluster) -> None:
    """What the API server itself remembers is gone, too."""
    with faults.without_api_server(own):
        pass


async def test_a_watch_outlives_the_api_server(
    client: Kubernetes, own: Cluster, namespace: Namespace
) -> None:
    await client.create(maps(namespace), config_map("gone"))
    async with followed(client, namespace) as seen:
        await asyncio.to_thread(restart, own)
        await client.delete(maps(namespace, "gone"))
        await client.create(maps(namespace), config_map("new"))
        await seen.until(lambda: list(seen.held) == ["new"])
        assert seen.kinds("gone") == ["added", "deleted"]


async def test_a_watch_that_is_not_allowed_says_so(access: Access, namespace: Namespace) -> None:
    token = namespace.kube.kubectl("-n", namespace.name, "create", "token", "default").strip()
    told: list[Kind] = []

    async def listen(weak: Kubernetes) -> None:
        async with asyncio.timeout(20):
            async for event in Watch(weak, maps(namespace)):
                told.append(event.kind)

    async with Kubernetes(replace(access, certificate=None, token=token)) as weak:
        with pytest.raises(KubernetesError) as refusal:
            await listen(weak)
        assert refusal.value.forbidden
        assert not told
        # Listing alone is not enough, either.
        role = {
            "metadata": {"name": "lists"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
        }
        rbac = "rbac.authorization.k8s.io/v1"
        namespace.kube.api.create(namespace.path("roles", rbac), role)
        namespace.kube.kubectl(
            "-n",
            namespace.name,
            "create",
            "rolebinding",
            "lists",
            "--role=lists",
            f"--serviceaccount={namespace.name}:default",
        )
        with pytest.raises(KubernetesError) as refusal:
            await listen(weak)
        assert refusal.value.forbidden
        assert told[-1] is Kind.SYNCED
