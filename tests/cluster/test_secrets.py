"""Secrets of an environment on a cluster: where they are and where they are not, and that they and the keys around them
are replaced while traffic goes on."""

from __future__ import annotations

import base64
import gzip
import json
import os
import secrets
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.canaries import seen
from tests.support.cluster import control, faults
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.history import judge

pytestmark = [pytest.mark.requirement("S1", "S2"), pytest.mark.timeout(900)]

MODULES = """\
  jede:
    image: {image}
    instances: 2
    calls: [cam]
    publishes: [jede.decided]
    secrets: {{WORD: jede/word, KEY_FILE: {{path: jede/key, as: file}}}}
    config: {{LEVEL: planted-in-the-configuration}}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    routes: [{{path: /open/jede/, public: true}}, {{path: /v1/jede/, scopes: [jede.read]}}]
  cam:
    image: {image}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
"""
GATEWAY = """\
gateway:
  clients: {pilot: {scopes: [jede.read]}}
  address_limit: {requests: 100000, every: 1s, burst: 100000, anonymous: {requests: 100000, burst: 100000}}"""
SEAL = "        seal: {secret: idi-seal}\n"
PLANTED = {"planted": b"planted-in-the-configuration"}
"""What is no secret: that a search finds it says that it would find one."""

HELD = """
import base64, json, os
path = os.environ["KEY_FILE"]
folder = os.path.realpath("/var/run/idi/secrets")
[kept] = [line.split()[2] for line in open("/proc/mounts") if line.split()[1] == folder]
print(json.dumps({
    "word": os.environ["WORD"],
    "bus": os.environ["BUS_URL"],
    "key": base64.b64encode(open(path, "rb").read()).decode(),
    "mode": oct(os.stat(path).st_mode & 0o777),
    "kept": kept,
    "level": os.environ["LEVEL"],
}))
"""

SEALED = """
import json, os
path = "/etc/idi/seal/seal.key"
folders = [os.path.join(at, name) for at, _, names in os.walk("/var/lib/idi") for name in names]
processes = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline", "rb").read() + open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        continue
    processes.append(words.hex())
print(json.dumps({
    "mode": oct(os.stat(path).st_mode & 0o777),
    "kept": [line.split()[2] for line in open("/proc/mounts") if line.split()[1] == "/etc/idi/seal"],
    "seal": [one for one in folders if os.path.basename(one).startswith("seal")],
    "processes": processes,
}))
"""


class Keeping(Environment):
    """`canaries` by name: what they are now."""

    canaries: dict[str, bytes]

    def set(self, path: str, value: bytes) -> None:
        done = subprocess.run(
            self.words("secrets", "set", path),
            input=value,
            cwd=self.folder,
            env=self.place(),
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, (done.stdout, done.stderr, self.told())

    def held(self) -> dict[str, dict[str, Any]]:
        """What each instance of jede has."""
        return {
            pod["metadata"]["name"]: json.loads(self.python(pod["metadata"]["name"], "module", HELD))
            for pod in self.pods("idi.dev/module=jede")
            if "deletionTimestamp" not in pod["metadata"]
        }

    def as_given(self) -> None:
        """Every instance of jede has what is set."""
        held = self.held()
        assert len(held) == 2
        for one in held.values():
            assert one["word"].encode() == self.canaries["word"]
            assert base64.b64decode(one["key"]) == self.canaries["key"]


@pytest.fixture(scope="module")
def shop(
    kube: Client,
    own: Cluster,
    images: Mapping[str, str],
    helm: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Keeping]:
    """With a seal key of the user's own; every secret is set."""
    made = Keeping(tmp_path_factory.mktemp("keep"), kube, images, helm, f"keep-{uuid4().hex[:4]}")
    with made.ending():
        made.declare(MODULES.format(image=images["standin-python"]), more=GATEWAY, target=SEAL, events=True)
        said = made.idi("up")
        assert (said.code, "Secret idi-seal" in said.err) == (1, True), said
        assert "create secret generic idi-seal" in said.err
        made.canaries = {"seal": secrets.token_bytes(32)}
        (made.folder / "seal.key").write_bytes(made.canaries["seal"])
        made.kubectl("create", "secret", "generic", "idi-seal", f"--from-file={made.folder / 'seal.key'}")
        began = time.monotonic()
        said = made.idi("up")
        print(f"up: {said.code} after {time.monotonic() - began:.0f} s: {said.out} {said.err}")
        made.canaries["word"] = f"canary word+/{secrets.token_hex(12)}".encode()
        made.canaries["key"] = b"\0" + secrets.token_bytes(40)
        made.set("jede/word", made.canaries["word"])
        made.set("jede/key", made.canaries["key"])
        made.until(lambda: made.ready().get("jede") == 2, 90, "jede")
        client = made.done("token", "--client", "pilot", "--new-secret", "--json").document
        made.canaries["client"] = str(client["client_secret"]).encode()
        login = next(iter(made.held().values()))["bus"].partition("://")[2].partition("@")[0]
        made.canaries["bus"] = login.partition(":")[2].encode()
        assert all(len(canary) > 15 for canary in made.canaries.values())
        yield made


def test_a_secret_reaches_its_module_and_lies_encrypted_in_the_store(shop: Keeping, own: Cluster) -> None:
    shop.as_given()
    assert {(one["mode"], one["kept"]) for one in shop.held().values()} == {("0o440", "tmpfs")}
    stored = own.everything_stored()
    assert len(stored) > 200
    assert {name: found for name, value in stored.items() if (found := seen(shop.canaries, value))} == {}
    mine = [
        name for name in stored if name.startswith(f"/registry/secrets/{shop.namespace}/jede-secrets-env-")
    ]
    assert len(mine) == 1
    assert all(stored[name].startswith(b"k8s:enc:aesgcm:v1:") for name in mine)
    # The search would have found it: what is no secret is there, and the API server reads what is one.
    assert [name for name in stored if "/configmaps/" in name and seen(PLANTED, stored[name])]
    assert seen(shop.canaries, shop.kubectl("get", "secrets", "-o", "json")) == ["seal", "word", "key", "bus"]


def test_a_secret_and_a_configuration_are_replaced_under_load(shop: Keeping) -> None:
    before = set(shop.held())
    load = shop.load("load-secrets", "/open/jede/call/cam/echo", 300)
    shop.canaries |= {"former word": shop.canaries["word"], "former key": shop.canaries["key"]}
    shop.canaries["word"] = f"canary word {secrets.token_hex(12)}".encode()
    shop.set("jede/word", shop.canaries["word"])
    shop.as_given()
    shop.done("secrets", "rotate", "jede/key")
    second = shop.held()
    [key] = {one["key"] for one in second.values()}
    shop.canaries["key"] = base64.b64decode(key)
    assert shop.canaries["key"] != shop.canaries["former key"]
    shop.as_given()
    assert not before & set(second)
    shop.done("config", "set", "jede", "LEVEL=planted-in-the-configuration-too")
    third = shop.held()
    assert not set(second) & set(third)
    assert {one["level"] for one in third.values()} == {"planted-in-the-configuration-too"}
    verdict = judge(shop.history(load, stop=True))
    after = judge(shop.history(shop.load("load-after", "/open/jede/echo", 3)))
    print(f"a secret set, one rotated, a configuration set under load: {verdict}")
    assert not [*verdict.faults, *after.faults], verdict.faults
    assert verdict.sent > 300
    # Whoever answers has the new ones.
    assert set(after.by) == set(third)
    listed = {
        one["path"]: one["version"] for one in shop.done("secrets", "list", "--json").document["secrets"]
    }
    assert listed == {"jede/word": 2, "jede/key": 2}
    # Nothing of the former revisions is left: no Secret object has the former values.
    shop.until(
        lambda: "former word" not in seen(shop.canaries, shop.kubectl("get", "secrets", "-o", "json")),
        60,
        "the former Secret objects to go with the last pod",
    )
    maps = json.loads(shop.kubectl("get", "configmaps", "-l", "idi.dev/module=jede", "-o", "json"))["items"]
    newest = [one for one in maps if one["data"].get("LEVEL") == "planted-in-the-configuration-too"]
    assert len(newest) == 1
    assert all(one["immutable"] for one in maps)
    assert len({one["metadata"]["name"] for one in maps}) == len(maps)
    # Setting the former value goes back to it.
    shop.set("jede/word", shop.canaries["former word"])
    shop.canaries["word"], shop.canaries["former word"] = (
        shop.canaries["former word"],
        shop.canaries["word"],
    )
    shop.as_given()


def test_the_clusters_own_key_is_replaced_under_load(shop: Keeping, own: Cluster) -> None:
    """As the customer does it: the next key is read, then written, then everything is written anew, then the former
    goes; the API server is started again each time."""
    file = own.layout.encryption
    former, following = control.encryption_keys(file)[0], (f"k-{uuid4().hex[:6]}", os.urandom(32))
    load = shop.load("load-etcd", "/open/jede/call/cam/echo", 300)

    def started_again(*keys: tuple[str, bytes]) -> None:
        control.encryption(file, *keys)
        with faults.without_api_server(own):
            pass

    started_again(former, following)
    started_again(following, former)
    every = shop.kube.kubectl("get", "secrets", "--all-namespaces", "-o", "json")
    replaced = shop.kube.kubectl("replace", "-f", "-", stdin=every).splitlines()
    started_again(following)
    stored = {
        name: value
        for name, value in own.everything_stored().items()
        if name.startswith("/registry/secrets/")
    }
    assert len(replaced) >= len(stored) > 5
    assert {value.split(b":")[4].decode() for value in stored.values()} == {following[0]}
    assert not [name for name, value in stored.items() if seen(shop.canaries, value)]
    shop.as_given()
    assert seen({"word": shop.canaries["word"]}, shop.kubectl("get", "secrets", "-o", "json"))
    verdict = judge(shop.history(load, stop=True))
    print(f"encryption key replaced, {len(replaced)} secrets written anew: {verdict}")
    assert not verdict.faults, verdict.faults
    # Control follows, and Helm finds its releases.
    shop.until(lambda: shop.idi("status").code == 0, 60, "control")
    shop.done("restart", "cam")
    shop.done("up")


def test_the_seal_key_is_the_users_and_never_on_the_volume(shop: Keeping, own: Cluster) -> None:
    shop.kubectl("delete", "pod", "control-0", "--wait=false")
    shop.until(
        lambda: (
            shop.kubectl("get", "pod", "control-0", "-o", "jsonpath={.status.phase}", "--ignore-not-found")
            == "Running"
        ),
        90,
        "control's next pod",
    )
    shop.kubectl("rollout", "status", "statefulset/control", "--timeout=120s", timeout_s=150)
    shop.until(lambda: shop.idi("status").code == 0, 60, "control")
    found = json.loads(shop.python("control-0", "control", SEALED))
    assert (found["mode"], found["kept"]) == ("0o440", ["tmpfs"])
    assert found["seal"] == []
    words = b" ".join(bytes.fromhex(one) for one in found["processes"])
    assert b"openbao" in words
    assert seen({"seal": shop.canaries["seal"]}, words) == []
    # It opened by itself: it gives and takes.
    shop.done("secrets", "rotate", "jede/key")
    [key] = {one["key"] for one in shop.held().values()}
    shop.canaries["key"] = base64.b64decode(key)
    said = shop.idi("keys", "rotate", "seal")
    assert said.code == 1
    assert "previous" in said.out + said.err


@pytest.mark.requirement("S2", "T4")
def test_no_canary_is_anywhere(shop: Keeping, own: Cluster) -> None:
    """Beside the memory of its module, the Secret objects, and what OpenBao and control keep closed."""
    places: dict[str, bytes] = {}
    kinds = shop.kube.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    documents = [kind for kind in kinds if kind not in ("secrets", "pods.metrics.k8s.io")]
    for kind in documents:
        places[kind] = shop.kubectl("get", kind, "-o", "json").encode()
    places["volumes"] = shop.kube.kubectl(
        "get", "persistentvolumes,clusterrolebindings", "-o", "json"
    ).encode()
    for one in json.loads(shop.kubectl("get", "secrets", "-l", "owner=helm", "-o", "json"))["items"]:
        held = gzip.decompress(base64.b64decode(base64.b64decode(one["data"]["release"])))
        places[f"release {one['metadata']['name']}"] = held
    names = [
        pod["metadata"]["name"] for pod in json.loads(shop.kubectl("get", "pods", "-o", "json"))["items"]
    ]
    for name in names:
        places[f"log of {name}"] = shop.kubectl("logs", name, "--all-containers", "--tail=-1").encode()
    for words in (
        *(["plan"], ["status"], ["status", "--json"], ["secrets", "list"], ["config", "get", "jede"]),
        *(["env", "jede"], ["keys", "list"], ["render", "helm", "rendered"], ["audit", "list"]),
        *(["logs", "jede"], ["events", "dead"], ["doctor"]),
    ):
        said = shop.idi(*words)
        places[f"idi {' '.join(words)}"] = (said.out + said.err).encode()
    for path in (shop.folder / "rendered").iterdir():
        places[f"rendered {path.name}"] = path.read_bytes()
    places |= volumes(own)
    print(f"searched: {len(places)} places, {sum(map(len, places.values())) / 1e6:.1f} MB, {len(names)} pods")
    assert len(names) >= 9
    assert {name: found for name, text in places.items() if (found := seen(shop.canaries, text))} == {}
    # The search finds what is there.
    found = [name for name, text in places.items() if seen(PLANTED, text)]
    assert "configmaps" in found
    assert "idi config get jede" in found
    assert [name for name in found if name.startswith("release ")]
    assert [name for name in found if name.startswith("volume ")]


def volumes(own: Cluster) -> dict[str, bytes]:
    """Every file on a volume of any node, but for control's key folder: what is in there opens OpenBao and is for
    nobody else."""
    found = {}
    for node in own.nodes:
        root = own.layout.folder / node.name / "var-lib" / "idi-volumes"
        for path in root.rglob("*"):
            if path.is_file() and "keys" not in path.relative_to(root).parts:
                found[f"volume {path.relative_to(root)}"] = path.read_bytes()
    return found


@pytest.mark.requirement("S2", "T4")
def test_no_canary_and_no_key_is_in_an_image(shop: Keeping, own: Cluster) -> None:
    blobs = [path for path in (own.layout.folder / "registry").rglob("data") if path.is_file()]
    layers = files = 0
    for path in blobs:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        assert seen(shop.canaries, data) == [], path
        try:
            archive = tarfile.open(fileobj=BytesIO(data))  # noqa: SIM115 - most blobs are none
        except tarfile.TarError:
            continue
        with archive:
            layers += 1
            for member in archive:
                files += 1
                name = member.name.rpartition("/")[2]
                assert name not in ("seal.key", "recovery.json", "control.json", ".idi"), member.name
    print(f"images: {len(blobs)} blobs, {layers} layers, {files} files")
    assert layers > 8
